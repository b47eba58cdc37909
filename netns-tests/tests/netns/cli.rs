//! The command line: exit codes, messages, `listen` and `say`.

use crate::prelude::*;

#[test]
fn wrong_usage_ends_with_2() {
    world("usage", |lab| {
        let host = lab.detached_host("a")?;
        for args in [
            &["frobnicate"][..],
            &["run", "--frobnicate"],
            &["listen", "fe80::1"],
            &["listen", "224.0.0.1"],
            &["listen", "10.0.0.1"],
            &["listen", "ff02::1"],
            &["init", "--name", "my host"],
            &["invite", "--ttl", "x"],
        ] {
            exits(&host, args, 2, "")?;
        }
        Ok(())
    });
}

#[test]
fn without_a_daemon_queries_end_with_3_and_name_the_socket() {
    world("no-daemon", |lab| {
        let host = lab.detached_host("a")?;
        for verb in ["status", "peers", "groups"] {
            exits(&host, &[verb, "--json"], 3, "control.sock")?;
        }
        Ok(())
    });
}

#[test]
fn without_a_membership_run_and_invite_end_with_4_and_say_what_to_do() {
    world("no-membership", |lab| {
        let host = lab.detached_host("a")?;
        exits(&host, &["run"], 4, "lcroute init")?;
        exits(&host, &["invite"], 4, "lcroute init")
    });
}

#[test]
fn a_configuration_error_names_file_line_and_key() {
    world("config", |lab| {
        let host = lab.detached_host("a")?;
        host.call("lcroute init")?;
        for (content, line, key) in [
            ("name = \"a\"\n\n[tun]\nmood = \"tap\"\n", "4", "mood"),
            ("[tun]\nmode = \"tape\"\n", "2", "mode"),
            ("[signal]\nservers = [\"http://x\"]\n", "2", "servers"),
            ("[tun]\nname = \"lc0/1\"\n", "2", "name"),
            ("[tun\n", "1", ""),
        ] {
            host.write("lcroute.toml", content)?;
            for said in ["lcroute.toml", line, key] {
                exits(&host, &["run"], 2, said)?;
            }
        }
        holds!(!host.has_interface("lc0"))
    });
}

#[test]
fn a_configuration_file_that_was_named_must_exist() {
    world("config-missing", |lab| {
        let host = lab.detached_host("a")?;
        exits(
            &host,
            &["run", "--config", "nowhere.toml"],
            2,
            "nowhere.toml",
        )
    });
}

/// Returns the JSON document that a verb prints.
fn printed(host: &Host, verb: &str) -> Result<Value> {
    let done = host.run("lcroute", &[verb, "--json"])?.success()?;
    Ok(serde_json::from_str(&done.stdout)?)
}

#[test]
fn listen_prints_what_say_says_and_from_whom() {
    with_members("talk", ["a", "b"], |_, [a, b]| {
        let mut plain = b.host.spawn("lcroute", &["listen", "ff1e::42"])?;
        let mut json = b.host.spawn("lcroute", &["listen", "ff1e::42", "--json"])?;
        eventually("both listen", || {
            b.host
                .run("ip", &["-6", "maddr", "show", "dev", "lc0"])?
                .prints("ff1e::42 users 2")
        })?;
        a.wait_wanted("ff1e::42", b)?;
        a.host
            .run("lcroute", &["say", "ff1e::42", "hello over there"])?
            .success()?;
        let from = a.address()?.to_string();
        eventually("both print the text and the sender", || {
            let heard = plain.stdout();
            shows_all(&heard, &[&format!("{from} (a)  hello over there")])?;
            let heard: Value = serde_json::from_str(&json.stdout())?;
            holds!(
                heard["from"] == from
                    && heard["name"] == "a"
                    && heard["text"] == "hello over there",
                "{heard}"
            )
        })?;
        for listener in [&mut plain, &mut json] {
            let code = listener.stop()?;
            ensure!(code == 0, "listen ended with {code}: {}", listener.stderr());
        }
        Ok(())
    });
}

#[test]
fn listen_refuses_ipv4_without_an_address_and_tells_of_groups_that_stay_on_their_link() {
    world("listen-stays", |lab| {
        let network = lab.closed_network(["a"])?;
        let host = &network.members[0].host;
        for verb in ["listen", "say"] {
            let refused = host.run(
                "lcroute",
                &[verb, "239.1.2.3", "x"][..if verb == "say" { 3 } else { 2 }],
            )?;
            let told = &refused.stderr;
            ensure!(
                refused.code == 1 && told.contains("no IPv4 address"),
                "{told}"
            );
        }
        host.call("lcroute say ff02::42 x")?
            .says("stays on its link")?;
        let mut listener = host.spawn("lcroute", &["listen", "ff02::42"])?;
        listener.says("stays on its link")?;
        listener.stop()?;
        Ok(())
    });
}

#[test]
fn say_and_listen_tell_what_sockets_cannot_see() {
    world("told", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let [a, b] = network.nodes()?;
        let unheard = a.host.call("lcroute say ff1e::43 hello")?;
        let said = "nobody listens to ff1e::43";
        unheard.says(said)?;
        let mut listener = b.host.spawn("lcroute", &["listen", "ff1e::43"])?;
        a.wait_wanted("ff1e::43", b)?;
        let heard = a.host.call("lcroute say ff1e::43 hello")?;
        ensure!(heard.stderr.is_empty(), "{}", heard.stderr);
        listener.stop()?;
        b.host.close_everywhere()?;
        let mut listener = b.host.spawn("lcroute", &["listen", "ff1e::43"])?;
        eventually("listen shows the rule", || {
            let told = listener.stderr();
            shows_all(&told, &["nft insert rule", "\"lc0\""])
        })?;
        listener.stop()?;
        network.members[1].stop()?;
        network.members[1]
            .host
            .run("lcroute", &["say", "ff1e::43", "hello"])?
            .says("no daemon answers")
    });
}

#[test]
fn the_json_of_a_daemon_has_what_the_contract_names() {
    with_members("json", ["a", "b"], |_, [a, b]| {
        let _local = a.host.receive("ff1e::1", &[])?;
        let source = b.address()?.to_string();
        let _remote = b
            .host
            .receive("ff3e::8000:2", &["--source", &a.address()?.to_string()])?;
        a.wait_wanted("ff3e::8000:2", b)?;
        let status = printed(&a.host, "status")?;
        let named = "peer_id name address network tun state version uptime_s peers groups counters";
        has_keys(&status, named)?;
        let named = "tun_rx_packets tun_rx_bytes tun_tx_packets tun_tx_bytes link_rx_packets \
            link_rx_bytes link_tx_packets link_tx_bytes drops";
        has_keys(&status["counters"], named)?;
        ensure!(
            status["state"] == "connected" && status["peers"] == 1,
            "{status}"
        );
        let peers = printed(&a.host, "peers")?;
        let peer = &peers[0];
        has_keys(
            peer,
            "peer_id name address state rtt_ms loss lane tx_bytes rx_bytes since_s reason",
        )?;
        ensure!(
            peer["name"] == "b" && peer["address"] == source && peer["lane"] == "media",
            "{peer}"
        );
        let routes = printed(&a.host, "routes")?;
        ensure!(routes[0]["peer_id"] == peer["peer_id"], "{routes}");
        let groups = printed(&a.host, "groups")?;
        let groups = groups.as_array().context("a list")?;
        ensure!(groups.len() == 2, "{groups:?}");
        for group in groups {
            has_keys(group, "group local links sources packets bytes refused")?;
            let is_local = group["group"] == "ff1e::1";
            ensure!(group["local"] == is_local, "{group}");
            let links = group["links"].as_array().map_or(0, Vec::len);
            ensure!(links == usize::from(!is_local), "{group}");
        }
        Ok(())
    });
}

#[test]
fn the_control_socket_is_open_to_its_owner_and_group_only() {
    world("control", |lab| {
        let network = lab.closed_network(["a"])?;
        let socket = network.members[0].host.path("run/control.sock");
        let mode = fs::metadata(&socket)?.permissions().mode();
        holds!(mode & 0o777 == 0o660, "mode {mode:o}")
    });
}

#[test]
fn two_daemons_on_one_state_directory_are_refused() {
    with_members("twice", ["a", "b"], |_, [a, _]| {
        exits(&a.host, &["run"], 1, "")?;
        ensure!(a.host.has_interface("lc0"));
        a.status().map(drop)
    });
}

#[test]
fn a_daemon_that_was_stopped_while_it_waited_for_links_ends_with_0() {
    world("lonely", |lab| {
        let host = lab.host("a")?;
        host.call("lcroute init")?;
        let mut member = Member::new(host);
        // No server listens there.
        member.run_args = vec!["--signal".to_owned(), "ws://198.18.200.1:7117".to_owned()];
        member.start()?;
        ensure!(member.status()?["state"] == "connecting");
        member.stop()
    });
}

/// Runs `lcroute ARGS`, which must end with `code` and print `said` on standard error.
fn exits(host: &Host, args: &[&str], code: i32, said: &str) -> Result<()> {
    let ended = host.run("lcroute", args)?;
    ensure!(
        ended.code == code,
        "lcroute {args:?}: exit code {}: {}",
        ended.code,
        ended.stderr
    );
    ensure!(
        ended.stderr.contains(said),
        "lcroute {args:?} does not say {said:?}: {}",
        ended.stderr
    );
    holds!(
        ended.stdout.is_empty(),
        "lcroute {args:?} writes an error to stdout: {}",
        ended.stdout
    )
}

fn has_keys(value: &Value, named: &str) -> Result<()> {
    for key in named.split_whitespace() {
        ensure!(value.get(key).is_some(), "no {key} in {value}");
    }
    Ok(())
}
