//! Non-members receive nothing.

use crate::prelude::*;

const NOT_PERMITTED: i32 = 4;
/// Longer than two renewals of a 20-second membership.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_stranger_on_the_same_signalling_server_gets_no_link_and_no_packet() {
    world("stranger", |lab| {
        let network = lab.closed_network(["a", "b"])?;
        let [a, b] = network.nodes()?;
        let mut stranger = Member::new(founder(lab, "stranger")?);
        stranger.run_args = vec!["--signal".to_owned(), network.signalling.url()?];
        stranger.start()?;
        let at_stranger = stranger.host.receive("ff1e::42", &[])?;
        let at_b = a.known_receiver(b, "ff1e::42", &[])?;
        network.wait_probed()?;
        let (before, _) = stranger.host.uplink_data()?;
        a.host.send("ff1e::42", 300, &[])?;
        at_b.expect_exactly(300)?;
        ensure!(at_stranger.packets()? == 0, "{}", at_stranger.state()?);
        ensure!(stranger.host.uplink_data()?.0 == before);
        ensure!(stranger.linked_with()?.is_empty(), "the stranger has links");
        let known = a.peers()?;
        holds!(
            known.len() == 1,
            "a knows more than b: {}",
            Value::from(known)
        )
    });
}

#[test]
fn a_foreign_network_pasted_into_a_membership_is_refused() {
    world("pasted", |lab| {
        let (honest, stranger) = (founder(lab, "honest")?, founder(lab, "stranger")?);
        let (network, own) = (network_of(&honest)?, network_of(&stranger)?);
        let path = stranger.state_dir().join("membership.toml");
        let forged = fs::read_to_string(&path)?.replace(&own, &network);
        ensure!(forged.contains(&network));
        fs::write(&path, forged)?;
        refuses_to_run(&stranger)
    });
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    world("stolen", |lab| {
        let (honest, stranger) = (founder(lab, "honest")?, founder(lab, "stranger")?);
        let file = "membership.toml";
        fs::copy(
            honest.state_dir().join(file),
            stranger.state_dir().join(file),
        )?;
        refuses_to_run(&stranger)
    });
}

#[test]
fn a_certificate_with_one_changed_byte_is_refused() {
    world("tampered", |lab| {
        let host = founder(lab, "host")?;
        let path = host.state_dir().join("membership.toml");
        let text = fs::read_to_string(&path)?;
        let chain = text
            .find("chain = \"")
            .context("no chain in membership.toml")?
            + 9;
        let at = chain + text[chain..].find('"').context("an unclosed string")? - 20;
        let other = if &text[at..=at] == "2" { "3" } else { "2" };
        fs::write(&path, [&text[..at], other, &text[at + 1..]].concat())?;
        refuses_to_run(&host)
    });
}

#[test]
fn an_expired_token_makes_no_members() {
    world("expired", |lab| {
        let host = founder(lab, "founder")?;
        let token = host.call("lcroute invite --ttl 1s")?.stdout;
        let mut number = 0;
        eventually("the token has expired", || {
            number += 1;
            let folder = host.path(&format!("state/late-{number}"));
            let folder = folder.to_string_lossy();
            let late = [
                "join",
                token.trim(),
                "--name",
                "late",
                "--state-dir",
                &folder,
            ];
            let refused = host.ask("lcroute", &late)?;
            refused.exits(NOT_PERMITTED)?;
            refused.says("expired")
        })
    });
}

#[test]
fn a_mistyped_token_is_named_as_such() {
    world("mistyped", |lab| {
        let (host, other) = (founder(lab, "founder")?, lab.detached_host("other")?);
        let token = host.call("lcroute invite")?.stdout;
        let token = token.trim();
        let last = if token.ends_with('2') { "3" } else { "2" };
        for wrong in [
            format!("{}{last}", &token[..token.len() - 1]),
            "lct1".to_owned(),
            "x".to_owned(),
        ] {
            let refused = other.run("lcroute", &["join", &wrong])?;
            ensure!(
                [2, NOT_PERMITTED].contains(&refused.code),
                "exit code {}",
                refused.code
            );
            refused.says("token")?;
        }
        holds!(!other.state_dir().join("membership.toml").exists())
    });
}

#[test]
fn a_member_with_a_prefix_can_send_to_its_groups_only() {
    world("prefix", |lab| {
        let mut network = lab.closed_network(["a"])?;
        let host = lab.closed_hosts(&["b"])?.remove(0);
        let url = network.signalling.url()?;
        let invite = ["invite", "--prefix", "ff1e:1::/32", "--signal", &url];
        let token = network.members[0]
            .host
            .run("lcroute", &invite)?
            .success()?
            .stdout;
        host.run("lcroute", &["join", token.trim(), "--name", "b"])?
            .success()?;
        let mut restricted = Member::new(host);
        restricted.start()?;
        network.members.push(restricted);
        network.wait_linked()?;
        let [a, b] = network.nodes()?;
        let forbidden = a.host.receive("ff1e:2::1", &[])?;
        let allowed = a.host.receive("ff1e:1::1", &[])?;
        b.wait_wanted("ff1e:2::1", a)?;
        b.wait_wanted("ff1e:1::1", a)?;
        b.host.send("ff1e:2::1", 100, &[])?;
        b.host.send("ff1e:1::1", 100, &[])?;
        allowed.expect_exactly(100)?;
        ensure!(forbidden.packets()? == 0, "{}", forbidden.state()?);
        // The other direction is unrestricted.
        a.reaches(b, "ff1e:3::1", 100)
    });
}

#[test]
fn a_membership_renews_itself_and_its_token_takes_it_away_all_the_same() {
    world("renewed", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a", "b", "c"])?)?;
        let url = network.signalling.url()?;
        let invite = format!("invite --ttl 20s --member-ttl 20s --signal {url}");
        let invite = crate::words(&invite);
        let short = network.members[0].host.run("lcroute", &invite)?;
        let short = short.success()?.stdout.trim().to_owned();
        let late = &network.members[2].host;
        late.run("lcroute", &["join", &short])?.success()?;
        let mut end = end_of_membership(late)?;
        network.start()?;
        let [a, b, c] = network.nodes()?;
        for _ in 0..2 {
            end = within(DEADLINE, "c has renewed its membership", || {
                let new = end_of_membership(&c.host)?;
                ensure!(new > end, "still until {end}");
                Ok(new)
            })?;
        }
        ensure!(b.host.run("lcroute", &["revoke", "a"])?.code == NOT_PERMITTED);
        a.host.call(&format!("lcroute revoke --token {short}"))?;
        let id = c.peer_id()?;
        for node in [a, b] {
            becomes(false, || Ok(node.linked_with()?.contains(&id)))?;
        }
        holds!(b.linked_with()? == [a.peer_id()?], "b is out as well")
    });
}

#[test]
fn an_issuer_expels_nodes_and_tokens_without_the_networks_key() {
    world("offline", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a", "b", "c", "d"])?)?;
        let key = network.members[0].host.state_dir().join("network.key");
        fs::rename(&key, network.members[0].host.path("network.key"))?;
        let url = network.signalling.url()?;
        let invite = ["invite", "--ttl", "1h", "--signal", &url];
        let token = network.members[0].host.run("lcroute", &invite)?;
        let token = token.success()?.stdout.trim().to_owned();
        for late in &network.members[1..] {
            let joined = late.host.run("lcroute", &["join", &token])?;
            joined.success()?;
        }
        let promised = end_of_membership(&network.members[0].host)?.min(365 * 86_400);
        let mut last = network.members.pop().context("d")?;
        network.start()?;
        let [a, b, c] = network.nodes()?;
        for node in [b, c] {
            exceeds(promised, || end_of_membership(&node.host))?;
        }
        let (b_id, c_id) = (b.peer_id()?, c.peer_id()?);
        let only_c = || {
            let linked = a.linked_with()?;
            holds!(linked == std::slice::from_ref(&c_id), "{linked:?}")
        };
        a.host.run("lcroute", &["revoke", &b_id])?.success()?;
        eventually("b is out, and c is not", only_c)?;
        a.host.call(&format!("lcroute revoke --token {token}"))?;
        becomes(0, || Ok(a.linked_with()?.len()))?;
        // never renewed: it depends on the token alone
        last.start()?;
        is_expelled(&last)?;
        holds!(a.linked_with()?.is_empty(), "d has a link")
    });
}

#[test]
fn a_token_for_two_nodes_makes_no_third_also_where_the_issuer_was_killed() {
    const WHY: &str = "its token was for 2 nodes, and others came by it first";
    world("uses", |lab| {
        let hosts = lab.closed_hosts(&["a", "b", "c"])?;
        let mut network = lab.network_invited(hosts, &["--uses", "2"])?;
        let late = lab.closed_hosts(&["d"])?.remove(0);
        late.run("lcroute", &["join", &network.token, "--name", "d"])?
            .success()?;
        let mut late = Member::new(late);
        network.start()?;
        let counted = network.members[0].host.state_dir().join("uses");
        eventually("both have been counted, on disk", || {
            let text = fs::read_to_string(&counted)?;
            let token: Value = serde_json::from_str(&text)?;
            let nodes = token["nodes"].as_array().map(Vec::len);
            holds!(nodes == Some(2), "{text}")
        })?;
        network.members[0].daemon()?.kill()?;
        network.members[0].start()?;
        network.wait_linked()?;
        late.start()?;
        is_expelled(&late)?;
        let told = late.host.ask("lcroute", &["status"])?;
        ensure!(
            told.code == NOT_PERMITTED && told.stdout.contains(WHY),
            "{told:?}"
        );
        let log = late.daemon()?.stderr();
        ensure!(log.contains(WHY), "{log}");
        late.stop()?;
        late.host
            .ask("lcroute", &["join", &network.token])?
            .fails(NOT_PERMITTED, WHY)?;
        // the first two stay, and may join any number of times with counted keys
        let [a, b, c] = network.nodes()?;
        b.host.run("lcroute", &["join", &network.token]).map(drop)?;
        for (node, others) in [(a, [b, c]), (b, [a, c])] {
            let linked = node.linked_with()?;
            for other in others {
                ensure!(linked.contains(&other.peer_id()?), "{linked:?}");
            }
            ensure!(linked.len() == 2, "{linked:?}");
        }
        Ok(())
    });
}

#[test]
fn an_ephemeral_node_that_is_expelled_ends_and_can_come_back_as_another() {
    world("ephemeral-uses", |lab| {
        let hosts = lab.closed_hosts(&["a", "b"])?;
        let mut network = lab.network_invited(hosts, &["--ephemeral", "--uses", "1"])?;
        network.start()?;
        network.wait_linked()?;
        let late = lab.closed_hosts(&["c"])?.remove(0);
        late.run("lcroute", &["join", &network.token, "--name", "c"])?
            .success()?;
        let mut late = Member::new(late);
        late.start()?;
        late.daemon()?.expect_exit(DEADLINE, NOT_PERMITTED)?;
        let log = late.daemon()?.stderr();
        shows_all(&log, &["others came by it first", "joins anew"])?;
        // as its supervisor does: with the same state and token
        let again = late.host.ask("lcroute", &["join", &network.token])?;
        again.success().map(drop)
    });
}

/// Flag of a node certificate: earlier keys follow.
const RENEWED: u8 = 2;
/// Offset of the flags: after version, kind, network, subject and three times.
const FLAGS_AT: usize = 2 + 32 + 32 + 8 + 8 + 8;

#[test]
fn a_membership_with_earlier_keys_of_a_token_holders_making_is_none() {
    use librecast::cert::{Certificate, Chain, Kind, Token};
    use librecast::id::{PeerId, SecretKey};
    world("immune", |lab| {
        let (host, evil) = (founder(lab, "founder")?, lab.detached_host("evil")?);
        let token = host.call("lcroute invite")?.stdout;
        evil.run("lcroute", &["join", token.trim()])?.success()?;
        let path = evil.state_dir().join("membership.toml");
        let text = fs::read_to_string(&path)?;
        let old = text.split('"').nth(1).map(str::to_owned);
        let network: PeerId = old.context("no network")?.parse()?;
        let chain = text.rsplit('"').nth(1).context("no chain")?;
        let decoded = Chain::decode(&bs58::decode(chain).into_vec()?)?;
        // a token's holder can sign this: its own key and the invitation's as those of issuers
        let bytes = bs58::decode(&token.trim()[4..]).into_vec()?;
        let secret = SecretKey::from_seed(bytes[32..64].try_into()?);
        let token: Token = token.parse()?;
        let node = decoded.node();
        let mut forged = node.as_bytes()[..node.as_bytes().len() - 64].to_vec();
        forged[FLAGS_AT] |= RENEWED;
        forged.push(2);
        for key in [node.subject(), token.invitation().subject()] {
            forged.push(Kind::Issuer as u8);
            forged.extend(key.public_key());
        }
        let signature = secret.sign("lcroute 2026 certificate", &forged);
        forged.extend(signature);
        let all = vec![
            decoded.issuer().clone(),
            token.invitation().clone(),
            Certificate::decode(&forged)?,
        ];
        let immune = Chain::new(all)?;
        let refused = immune.verify(
            &network,
            UnixTime::from_secs(token.invitation().grant().not_before),
        );
        ensure!(refused.is_err(), "{refused:?}");
        let pasted = bs58::encode(immune.encode()).into_string();
        fs::write(&path, text.replace(chain, &pasted))?;
        refuses_to_run(&evil)
    });
}

/// Returns the end of validity of the membership on disk.
fn end_of_membership(host: &Host) -> Result<u64> {
    let id = host.ask("lcroute", &["--json", "id"])?.success()?;
    let id: Value = serde_json::from_str(&id.stdout)?;
    id["not_after"].as_u64().context("not_after")
}

#[test]
fn what_was_revoked_without_a_daemon_counts_when_it_runs() {
    world("later", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let id = network.members[1].peer_id()?;
        network.members[0].stop()?;
        let founder = &network.members[0].host;
        founder.run("lcroute", &["revoke", "nobody"])?.exits(2)?;
        // by name: the founder remembers its members
        founder.call("lcroute revoke b")?.prints(&id)?;
        network.members[0].start()?;
        let [a, b] = network.nodes()?;
        is_expelled(b)?;
        ensure!(a.linked_with()?.is_empty(), "b has a link");
        ensure!(a.peers()?.is_empty(), "the expelled leave `peers`");
        ensure!(members(&a.host)?.iter().all(|m| m["name"] != "b"));
        let doctor = b.host.ask("lcroute", &["doctor", "--json"])?;
        let checks: Value = serde_json::from_str(&doctor.stdout)?;
        let failed = |c: &Value| c["name"] == "certificate" && c["state"] == "fail";
        let checks = checks["checks"].as_array().context("no checks")?;
        ensure!(doctor.code == 1 && checks.iter().any(failed), "{checks:?}");
        // the key is refused, with a message; a new key and token make another node
        let url = network.signalling.url()?;
        let token = a.host.run("lcroute", &["invite", "--signal", &url])?;
        let token = token.success()?.stdout.trim().to_owned();
        b.host
            .run("lcroute", &["join", &token])?
            .exits(NOT_PERMITTED)?;
        b.host.call("lcroute leave")?;
        ensure!(!b.host.has_interface("lc0"), "the daemon still runs");
        b.host.run("lcroute", &["id"])?.exits(NOT_PERMITTED)?;
        b.host.call(&format!("lcroute join {token} --name b"))?;
        network.members[1].start()?;
        let [a, b] = network.nodes()?;
        eventually("b is back as another node", || {
            let linked = a.linked_with()?;
            holds!(
                linked == [b.peer_id()?] && linked != [id.clone()],
                "{linked:?}"
            )
        })
    });
}

/// Waits until a node's daemon knows that it has been expelled.
fn is_expelled(node: &Member) -> Result<()> {
    becomes("expelled", || Ok(node.status()?["state"].clone()))
}

/// Returns the member of this name in the list of `of`.
fn named(of: &Member, name: &str, present: bool) -> Result<Value> {
    let all = members(&of.host)?;
    let is_meant = |m: &&Value| m["name"] == name && m["present"] == present;
    let found = all.iter().find(is_meant).cloned();
    found.with_context(|| format!("no {name}, present: {present}, in {all:?}"))
}

/// `lcroute members --json`
fn members(host: &Host) -> Result<Vec<Value>> {
    let members = host.ask("lcroute", &["members", "--json"])?.success()?;
    Ok(serde_json::from_str(&members.stdout)?)
}

#[test]
fn members_are_listed_when_they_are_away_and_two_of_one_name_are_told_apart() {
    world("twins", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a", "b", "c"])?)?;
        let url = network.signalling.url()?;
        let token = network.members[0]
            .host
            .run("lcroute", &["invite", "--signal", &url])?;
        let token = token.success()?.stdout.trim().to_owned();
        let spaced = ["join", &token, "--name", "my host"];
        network.members[2].host.run("lcroute", &spaced)?.exits(2)?;
        for twin in &network.members[1..] {
            let join = ["join", &token, "--name", "twin"];
            twin.host.run("lcroute", &join)?.success()?;
        }
        network.members[0].start()?;
        network.members[1].start()?;
        eventually("the first keeps the name", || {
            named(&network.members[0], "twin", true).map(drop)
        })?;
        let last = named(&network.members[0], "twin", true)?["peer_id"].clone();
        network.members[2].start()?;
        eventually("the second gets one of its own", || {
            named(&network.members[0], "twin-2", true).map(drop)?;
            let own = network.members[2].status()?;
            holds!(own["name"] == "twin-2", "{own}")
        })?;
        network.members[1].stop()?;
        let founder = &network.members[0];
        eventually("who has gone is still listed", || {
            let gone = named(founder, "twin", false)?;
            holds!(gone["peer_id"] == last, "{gone}")
        })?;
        founder.host.call("lcroute revoke twin")?;
        eventually("the expelled is listed no more", || {
            let all = members(&founder.host)?;
            ensure!(all.iter().all(|m| m["peer_id"] != last), "{all:?}");
            holds!(all.iter().any(|m| m["name"] == "twin-2"), "{all:?}")
        })?;
        founder
            .host
            .run("lcroute", &["leave"])?
            .exits(NOT_PERMITTED)
    });
}

#[test]
fn keys_can_be_read_by_their_owner_only() {
    world("modes", |lab| {
        let host = founder(lab, "founder")?;
        let folder = fs::metadata(host.state_dir())?.permissions().mode();
        ensure!(folder & 0o777 == 0o700);
        for entry in fs::read_dir(host.state_dir())? {
            let entry = entry?;
            let mode = entry.metadata()?.permissions().mode();
            ensure!(
                mode & 0o777 == 0o600,
                "{:?} has mode {mode:o}",
                entry.file_name()
            );
        }
        Ok(())
    });
}

/// Returns a closed host with a network of its own.
fn founder(lab: &Lab, name: &str) -> Result<Host> {
    let host = lab.closed_hosts(&[name])?.remove(0);
    host.run("lcroute", &["init", "--name", name])?.success()?;
    Ok(host)
}

fn network_of(host: &Host) -> Result<String> {
    let id = host.call("lcroute id --json")?.stdout;
    let id: Value = serde_json::from_str(&id)?;
    Ok(id["network"]
        .as_str()
        .with_context(|| format!("no network in {id}"))?
        .to_owned())
}

fn refuses_to_run(host: &Host) -> Result<()> {
    host.run("lcroute", &["run"])?.exits(NOT_PERMITTED)?;
    holds!(!host.has_interface("lc0"), "lc0 was made nevertheless")
}

/// Sets the clock of this host's running daemon off by these seconds.
fn set_clock(host: &Host, seconds: i64) -> Result<()> {
    let path = host.path("clock-set");
    let file = fs::File::options().write(true).open(path)?;
    // in place, because the file is mapped
    std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0)?;
    Ok(())
}

#[test]
fn a_host_that_boots_with_a_wrong_clock_starts_by_itself_once_it_is_set() {
    world("no-battery", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
        let now = i64::try_from(UnixTime::now().as_secs())?;
        network.members[1].program = env!("CARGO_BIN_EXE_lcroute-skewed");
        network.members[1].host.write("clock-offset", "0")?;
        network.members[0].start()?;
        // 1970, and before the network was founded
        for behind in [now - 60, 2 * 86_400] {
            let b = &mut network.members[1];
            b.host.write("clock-set", (-behind).to_ne_bytes())?;
            b.launch()?;
            eventually("it says what it waits for", || {
                b.daemon()?.must_run()?;
                let log = b.daemon()?.stderr();
                holds!(log.contains("waiting until it is set"), "{log}")
            })?;
            ensure!(!b.host.has_interface("lc0"), "it waits");
            set_clock(&b.host, 0)?;
            network.members[1].wait_ready()?;
            network.wait_linked()?;
            network.members[1].stop()?;
        }
        // and it can be stopped while it waits
        let b = &mut network.members[1];
        b.host.write("clock-set", (-now).to_ne_bytes())?;
        b.launch()?;
        b.daemon()?.says("waiting until it is set")?;
        b.stop()
    });
}

#[test]
fn two_hosts_with_one_key_are_both_told_and_the_first_keeps_its_place() {
    world("one-key", |lab| {
        let mut hosts = lab.closed_hosts(&["a", "b", "twin"])?;
        let twin = hosts.pop().context("twin")?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let from = network.members[1].host.state_dir();
        fs::create_dir_all(twin.state_dir())?;
        for file in fs::read_dir(&from)? {
            let file = file?;
            fs::copy(file.path(), twin.state_dir().join(file.file_name()))?;
        }
        let receiver = network.members[1].host.receive("ff1e::42", &[])?;
        let _sender = network.members[0].host.send_for_ever("ff1e::42")?;
        receiver.expect_more("b hears a")?;
        let mut twin = Member::new(twin);
        twin.start()?;
        both_are_told(&network.members[1], &twin)?;
        for (member, there) in [(&mut network.members[1], 1), (&mut twin, 0)] {
            ensure!(
                member.linked_with()?.len() == there,
                "{:?}",
                member.peers()?
            );
            let log = member.daemon()?.stderr();
            let told = log.matches("another host has this node's key").count();
            ensure!(told == 1, "told {told} times: {log}");
        }
        receiver.expect_more("b still hears a")?;
        let log = network.members[0].daemon()?.stderr();
        ensure!(log.matches("two hosts have the key of b").count() == 1);

        // after a restart the first host has the place, and both report the conflict again
        network.members[1].daemon()?.kill()?;
        network.members[1].start()?;
        both_are_told(&network.members[1], &twin)?;
        let links = network.members[1].linked_with()?.len() + twin.linked_with()?.len();
        holds!(links == 1, "{links} links")
    });
}

/// Checks that each of two nodes with one key reports the other's address, and the remedy.
fn both_are_told(one: &Member, other: &Member) -> Result<()> {
    for (told, of) in [(one, other), (other, one)] {
        let address = of.host.v6()?.to_string();
        eventually(&format!("{} is told", told.host.name()), || {
            let conflict = &told.status()?["key_conflict"];
            ensure!(
                conflict["addresses"].to_string().contains(&address),
                "{conflict}"
            );
            let own = told.status()?["peer_id"].clone();
            let peers = told.peers()?;
            let row = peers.iter().find(|peer| peer["peer_id"] == own);
            let row = row.context("no row of the other host")?;
            ensure!(row["state"] == "refused", "{row}");
            holds!(row["reason"].to_string().contains("lcroute leave"), "{row}")
        })?;
        let done = told.host.ask("lcroute", &["doctor"])?;
        done.exits(1)?;
        done.prints("another host has this node's key")?;
    }
    Ok(())
}
