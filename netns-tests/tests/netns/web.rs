//! `lcroute web`: content and access of pages, and no cost without viewers.

use crate::groups::{invitation, people};
use crate::prelude::*;
use crate::studio::keygen;

/// Sends an HTTP request; prints the status, then the head, then lines of the body.
const CLIENT: &str = r#"
import http.client, sys, urllib.parse
address, path, *headers = sys.argv[1:]
at = urllib.parse.urlsplit(address)
to = http.client.HTTPConnection(at.hostname, at.port, timeout=20)
to.putrequest("GET", path, skip_host=any(h.lower().startswith("host:") for h in headers))
for header in headers:
    to.putheader(*header.split(": ", 1))
to.endheaders()
answer = to.getresponse()
print(answer.status, flush=True)
print(dict(answer.getheaders()), flush=True)
while line := answer.readline():
    sys.stdout.write(line.decode())
    sys.stdout.flush()
"#;

/// Serves the pages of a host; returns their address.
pub(crate) fn serve(host: &Host) -> Result<(Process, String)> {
    let pages = host.spawn("lcroute-web", &["web"])?;
    let mut address = String::new();
    eventually("the address of the pages", || {
        address = pages.stdout().trim().to_owned();
        holds!(address.contains("/#"), "{address:?}")
    })?;
    Ok((pages, address))
}

pub fn get(host: &Host, address: &str, path: &str, headers: &[&str]) -> Result<(u16, String)> {
    let args = [&["-c", CLIENT, address, path][..], headers].concat();
    let said = host.ask("python3", &args)?.success()?.stdout;
    let (status, rest) = said.split_once('\n').context("no status")?;
    Ok((status.parse()?, rest.to_owned()))
}

/// Returns the last line that a page got.
pub fn latest(page: &Process) -> Result<Value> {
    let shown = page.stdout();
    let last = shown
        .lines()
        .filter(|line| line.starts_with('{') && line.ends_with('}'));
    let last = last
        .filter_map(|line| serde_json::from_str(line).ok())
        .next_back();
    last.context("nothing yet")
}

pub fn open(host: &Host, address: &str) -> Result<Process> {
    let (_, key) = address.split_once('#').context("a key")?;
    let key = format!("Authorization: Bearer {key}");
    host.spawn("python3", &["-c", CLIENT, address, "/api/watch", &key])
}

/// Returns the flow of a group from one node to another, from a page's data.
fn flow(look: &Value, group: &str, from: &Member, to: &Member) -> Result<f64> {
    let names: Vec<_> = look["nodes"]
        .as_array()
        .context("nodes")?
        .iter()
        .map(|n| &n["name"])
        .collect();
    let place = |member: &Member| {
        names
            .iter()
            .position(|name| **name == member.host.name())
            .context("not on the map")
    };
    let (from, to) = (place(from)?, place(to)?);
    let flows = look["flows"].as_array().context("flows")?;
    let of_node = flows
        .iter()
        .find(|f| f["node"] == from && f["group"] == group);
    let edges = of_node.with_context(|| format!("no flow: {flows:?}"))?["edges"].as_array();
    let edge = edges.context("edges")?.iter().find(|e| e["to"] == to);
    edge.with_context(|| format!("no edge: {flows:?}"))?["packets_s"]
        .as_f64()
        .context("a rate")
}

#[test]
fn a_page_shows_the_network_and_what_flows_between_other_nodes() {
    world("web-flows", |lab| {
        let hosts = lab.hosts_in_a_row(&["a", "b", "c"])?;
        crate::configure(&hosts, "[web]\nreport = true\n")?;
        let mut network = lab.network(hosts)?;
        network.members.iter_mut().try_for_each(Member::start)?;
        let [a, b, c] = network.nodes()?;
        for (member, links) in [(a, 1), (b, 2), (c, 1)] {
            member.wait_links(links)?;
        }
        let receiver = c.host.receive("ff1e::42", &[])?;
        a.wait_wanted("ff1e::42", b)?;
        let sender = a.host.send_for_ever("ff1e::42")?;
        let (mut pages, address) = serve(&a.host)?;
        let page = open(&a.host, &address)?;
        eventually("the packets of both links", || {
            let look = latest(&page)?;
            ensure!(
                look["status"]["name"] == "a" && look["nodes"].as_array().map(Vec::len) == Some(3),
                "{look}"
            );
            ensure!(look["links"].as_array().map(Vec::len) == Some(2), "{look}");
            // b and c report it: a has no link to c
            for (from, to) in [(a, b), (b, c)] {
                let rate = flow(&look, "ff1e::42", from, to)?;
                ensure!(
                    (25.0..100.0).contains(&rate),
                    "{rate}/s from {} in {look}",
                    from.host.name()
                );
            }
            let flows = look["flows"].as_array().context("flows")?;
            let listens = |f: &&Value| f["group"] == "ff1e::42" && f["local"] == true;
            ensure!(flows.iter().filter(listens).count() == 1, "{flows:?}");
            let groups = look["groups"].as_array().context("groups")?;
            holds!(groups.len() == 1)
        })?;
        drop(receiver);
        eventually("silence where nobody listens", || {
            holds!(flow(&latest(&page)?, "ff1e::42", b, c).is_err(), "still")
        })?;
        // without permission a node stops reporting
        c.host.reconfigure("")?;
        eventually("c reports no more", || {
            let reports: Vec<_> = latest(&page)?["nodes"]
                .as_array()
                .context("nodes")?
                .iter()
                .filter(|n| n["reports"] == true)
                .map(|n| n["name"].clone())
                .collect();
            holds!(reports == ["a", "b"], "{reports:?}")
        })?;
        // without pages no node announces the group of reports, or sends to it
        drop(page);
        drop(sender);
        eventually("nobody sends any more", || {
            let sent =
                || -> Result<Value> { Ok(b.status()?["counters"]["link_tx_packets"].clone()) };
            let before = sent()?;
            sleep(Duration::from_millis(2_500));
            let after = sent()?;
            holds!(before == after, "{before} and {after}")
        })?;
        ensure!(pages.stop()? == 0, "{}", pages.stderr());
        holds!(!a.host.path("run/web.url").exists())
    });
}

#[test]
fn data_is_for_those_who_have_the_key_and_for_pages_of_this_host() {
    world("web-guard", |lab| {
        let network = lab.closed_network(["a"])?;
        let a = &network.members[0];
        let (mut pages, address) = serve(&a.host)?;
        let (_, key) = address.split_once('#').context("a key")?;
        let key = format!("Authorization: Bearer {key}");
        let (status, index) = get(&a.host, &address, "/", &[])?;
        ensure!(
            status == 200 && index.contains("default-src 'none'"),
            "{index}"
        );
        for (path, headers, expected) in [
            ("/api/watch", vec![], 401),
            ("/api/watch", vec!["Authorization: Bearer x"], 401),
            ("/api/doctor", vec![], 401),
            ("/", vec!["Host: evil.example:7180"], 421),
            ("/api/watch", vec![&key[..], "Host: evil.example:7180"], 421),
            (
                "/api/watch",
                vec![&key[..], "Origin: http://evil.example"],
                403,
            ),
            ("/api/watch", vec![&key[..], "Origin: null"], 403),
            ("/api/nothing", vec![&key[..]], 404),
            ("/api/invite", vec![], 401),
            ("/api/invite", vec![&key[..]], 405),
            ("/../../etc/passwd", vec![], 404),
        ] {
            let (status, said) = get(&a.host, &address, path, &headers)?;
            ensure!(status == expected, "{path} {headers:?}: {status} {said}");
        }
        let (status, said) = get(&a.host, &address, "/api/doctor", &[&key])?;
        let checks = said
            .lines()
            .find_map(|line| serde_json::from_str::<Value>(line).ok());
        ensure!(
            status == 200 && checks.is_some_and(|c| c["checks"].is_array()),
            "{said}"
        );
        let found = a.host.call("lcroute-web web --open")?;
        ensure!(found.stdout.trim() == address, "{}", found.stdout);
        // the daemon restarts: pages get a message, and continue
        let page = open(&a.host, &address)?;
        let mut network = network;
        let name = |look: &Value| look["status"]["name"] == "a";
        eventually("the state", || holds!(name(&latest(&page)?), "no"))?;
        network.members[0].daemon()?.kill()?;
        becomes(true, || Ok(latest(&page)?["error"].is_string()))?;
        network.members[0].start()?;
        eventually("the state again", || holds!(name(&latest(&page)?), "no"))?;
        pages.signal(nix::sys::signal::Signal::SIGINT)?;
        pages.expect_exit(DEADLINE, 0)?;
        let said = page.stdout();
        holds!(!said.contains(&json!(key).to_string()), "the key")
    });
}

#[test]
fn an_invitation_is_a_link_and_a_code_for_telephones() {
    world("web-invite", |lab| {
        let host = lab.host("a")?;
        host.call("lcroute init --name a")?;
        let invite = |more: &[&str]| {
            let args = ["invite", "--signal", "wss://meet.example", "--page"];
            host.run("lcroute", &[&args, more].concat())
        };
        let file = host.path("invitation.png").display().to_string();
        let said = invite(&["https://a.example:7180", "--qr", &file])?.success()?;
        let link = said.stdout.trim();
        ensure!(
            link.starts_with("https://a.example:7180/node/#lct1"),
            "{link}"
        );
        let mode = fs::metadata(&file)?.permissions().mode();
        ensure!(mode & 0o077 == 0, "others read the token: {mode:o}");
        let seen = host
            .ask("zbarimg", &["--quiet", "--raw", &file])?
            .success()?;
        ensure!(seen.stdout.trim() == link, "{}", seen.stdout);
        // for a lecture, whose text is in a file of the presenter's folder
        let (_, session, public) = keygen(&host, "talk.key")?;
        let kept = host.path("session").display().to_string();
        fs::write(&kept, format!("{session}\n"))?;
        for given in [&session, &kept] {
            let said = invite(&["https://a.example:7180", "--session", given])?.success()?;
            let parts = said.stdout.trim().split_once("/studio/#lct1");
            let (_, parts) = parts.context("no link")?;
            ensure!(parts.ends_with(&format!(",{session}")), "{parts}");
        }
        let damaged = &session[..session.len() - 1];
        for (given, why) in [
            (&*public, "neither a session"),
            ("lcr1abc", "this is a station (lcr1), not a session"),
            (damaged, "damaged"),
        ] {
            let refused = invite(&["https://a.example:7180", "--session", given])?;
            refused.fails(2, why)?;
        }
        let refused = invite(&["a.example"])?;
        refused.exits(2)
    });
}

/// Asks as the page of groups does; more headers as NAME=VALUE; the status, and what is answered.
const ASK: &str = r#"
import sys, urllib.error, urllib.parse, urllib.request
address, path, key, body, *more = sys.argv[1:]
headers = dict(header.split("=", 1) for header in more) | ({"Authorization": "Bearer " + key} if key else {})
request = urllib.request.Request(urllib.parse.urldefrag(address)[0] + "api/groups" + path, body.encode(), headers)
try:
    answer = urllib.request.urlopen(request)
    print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"#;

#[test]
fn conversations_are_for_who_has_the_key_where_the_host_shows_them() {
    world("web-groups", |lab| {
        let (_network, mut people) = people(lab, &["ann", "bob"])?;
        let [ann_group, bob_group] = &mut people[..] else {
            unreachable!("two were asked for")
        };
        let ann = &ann_group.host.clone();
        ann_group.ask(&["create", "team", "--as", "ann"])?;
        let list = |address: &str| {
            let key = address.split_once('#').map_or("", |(_, key)| key);
            let header = format!("Authorization: Bearer {key}");
            get(ann, address, "/api/groups", &[&header])
        };
        let (closed, address) = serve(ann)?;
        let (status, why) = list(&address)?;
        ensure!(
            status == 404 && why.contains("groups = true"),
            "{status} {why}"
        );
        drop(closed);
        ann.configure("[web]\ngroups = true\n")?;
        let (_pages, address) = serve(ann)?;
        let key = address.split_once('#').context("a key")?.1;
        let ask = |path: &str, key: &str, body: &str, more: &[&str]| -> Result<String> {
            let args = [&["-c", ASK, &address, path, key, body], more].concat();
            Ok(ann.run("python3", &args)?.success()?.stdout)
        };
        // nobody without the key, and no page of another site, says, makes, joins or invites
        bob_group.ask(&["create", "work", "--as", "bob"])?;
        let line = bob_group.ask(&["invite", "work"])?["invitation"].take();
        let joins = json!({ "join": { "invitation": line, "name": "ann" } }).to_string();
        let origin = format!("Origin={}", address.split("/#").next().unwrap_or_default());
        for (path, body) in [
            ("/team", "forged"),
            (
                "",
                "{\"create\":{\"group\":\"forged\",\"name\":\"ann\",\"topic\":\"\"}}",
            ),
            ("", &*joins),
            ("/team/invitation", "{\"uses\":1,\"expires_s\":60}"),
            ("/team/withdraw", "0"),
            ("/team/files", "forged"),
        ] {
            for (key, more, status) in [
                ("", &[][..], "401"),
                ("wrong", &[], "401"),
                ("wrong", &[&*origin], "401"),
                (key, &["Origin=http://evil.example"], "403"),
                (key, &["Origin=null"], "403"),
                (
                    key,
                    &["Sec-Fetch-Site=cross-site", "Sec-Fetch-Mode=no-cors"],
                    "403",
                ),
                (key, &["Host=evil.example"], "421"),
            ] {
                let said = ask(path, key, body, more)?;
                ensure!(said.starts_with(status), "{path} {body} {more:?}: {said}");
            }
        }
        let known = ann_group.ask(&["status"])?;
        let known = known["groups"].as_array().context("groups")?;
        ensure!(known.len() == 1 && known[0]["messages"] == 0, "{known:?}");
        // a refusal of lcgroup is shown, and hostile text is short there
        let long = "<b>\u{202e}x</b>".repeat(1_000);
        for (wanted, why) in [
            (
                json!({ "create": { "group": "x", "name": &long, "topic": "" } }),
                "the own name has",
            ),
            (
                json!({ "create": { "group": &long, "name": "a", "topic": "" } }),
                "the group has",
            ),
            (
                json!({ "create": { "group": "../x", "name": "a", "topic": "" } }),
                "a group is called by",
            ),
            (
                json!({ "create": { "group": "x", "name": "\u{202e}", "topic": "" } }),
                "nothing of this name is seen",
            ),
            (
                json!({ "create": { "group": "team", "name": "a", "topic": "" } }),
                "there already",
            ),
            (
                json!({ "join": { "invitation": &long, "name": "a" } }),
                "too long for an invitation",
            ),
            (
                json!({ "join": { "invitation": "lct1x", "name": "a" } }),
                "lcg1",
            ),
            (json!({ "remove": {} }), "unknown variant"),
        ] {
            let said = ask("", key, &wanted.to_string(), &[])?;
            ensure!(
                said.starts_with("400") && said.contains(why) && said.len() < 500,
                "{said}"
            );
        }
        let said = ask(
            "/team/invitation",
            key,
            "{\"uses\":1,\"expires_s\":604801}",
            &[],
        )?;
        ensure!(said.starts_with("400") && said.contains("a week"), "{said}");
        let said = ask(
            "/team/invitation",
            key,
            "{\"uses\":1,\"expires_s\":60}",
            &[&origin],
        )?;
        ensure!(said.starts_with("200") && said.contains("lcg1"), "{said}");
        let open = || -> Result<Value> {
            Ok(ann_group.ask(&["invitations", "team"])?["invitations"].take())
        };
        let id = open()?[0]["id"].take();
        let id = id.as_str().context("an id")?;
        ensure!(said.contains(id), "{said}");
        for (wrong, why) in [
            ("", "lcg1"),
            ("x", "lists them"),
            ("\u{202e}", "lists them"),
        ] {
            let said = ask("/team/withdraw", key, wrong, &[&origin])?;
            ensure!(said.starts_with("400") && said.contains(why), "{said}");
        }
        let said = ask("/team/withdraw", key, id, &[&origin])?;
        ensure!(said.starts_with("200") && open()? == json!([]), "{said}");
        let said = ask("", key, &joins, &[&origin])?;
        ensure!(said.starts_with("200"), "{said}");
        let said = ask(
            "/work/invitation",
            key,
            "{\"uses\":1,\"expires_s\":60}",
            &[],
        )?;
        ensure!(said.starts_with("400"), "who is no owner invites: {said}");
        let say = |key: &str, words: &str| ask("/team", key, words, &[]);
        let (_, groups) = list(&address)?;
        ensure!(groups.contains("\"name\":\"team\""), "{groups}");
        bob_group.join(&invitation(ann_group, "1")?)?;
        eventually("bob is a member", || bob_group.is("member"))?;
        let said = say(key, "by a page, \u{fc}ber <b>alles</b>")?;
        ensure!(said.starts_with("200"), "{said}");
        eventually("bob reads it", || {
            bob_group.has("by a page, \u{fc}ber <b>alles</b>")
        })?;
        // lcgroup stops: pages get an error, and all else continues
        ann_group.daemon()?.stop()?;
        let (status, why) = list(&address)?;
        holds!(
            status == 502 && why.contains("lcgroup run"),
            "{status} {why}"
        )
    });
}
