//! Tabs that are leaves: by a token of `lcroute invite --leaf`, they listen and send nothing.

use super::node::{Visitor, listen};
use super::radio::{TAP, loudspeakers};
use super::studio::until_slide;
use super::{Browser, Kind, Page, Theme, in_each_browser};
use crate::asking::Lecture;
use crate::prelude::*;
use crate::radio::{cast, key_of, write_chirp};

const GROUP: &str = "ff1e:5::42";
/// Records when messages of data channels come, in milliseconds.
const ARRIVALS: &str = r#"(() => {
    window.came = [];
    const { addEventListener } = EventTarget.prototype;
    RTCDataChannel.prototype.addEventListener = function (type, ...rest) {
        if (type === "message") {
            addEventListener.call(this, type, () => came.push(performance.now()));
        }
        return addEventListener.call(this, type, ...rest);
    };
})()"#;

/// Routers behind closed firewalls, the first of which takes no leaves; a host with pages.
pub(super) fn audience(lab: &Lab, routers: &[&str]) -> Result<(Network, Visitor)> {
    let hosts = lab.closed_hosts(routers)?;
    hosts[0].configure("[leaf]\nmax = 0\n")?;
    let mut network = lab.network(hosts)?;
    network.start()?;
    let host = lab.closed_hosts(&["visitor"])?.remove(0);
    Ok((network, Visitor::new(host)?))
}

pub(super) fn token(network: &Network, groups: &str) -> Result<String> {
    let url = network.signalling.url()?;
    let args = ["invite", "--leaf", "--groups", groups, "--signal", &url];
    let token = network.members[0].host.run("lcroute", &args)?.success()?;
    Ok(token.stdout.trim().to_owned())
}

fn expect_clean(network: &Network, browser: &Browser, visitor: &Visitor) -> Result<()> {
    let server = network.signalling.url()?;
    let as_http = server.replace("ws:", "http:");
    browser.expect_clean(&[&visitor.origin, &server, &as_http])
}

fn linked(member: &Member) -> Result<u64> {
    let linked = &member.status()?["leaves"]["linked"];
    linked.as_u64().context("leaves")
}

/// Returns whether leaves of this router have joined a group.
fn is_active(member: &Member) -> Result<bool> {
    let groups = member.groups()?;
    Ok(groups
        .iter()
        .any(|group| group["leaves"].as_u64() > Some(0)))
}

fn say(host: &Host, words: &str) -> Result<()> {
    host.run("lcroute", &["say", GROUP, words])?.success()?;
    Ok(())
}

/// Returns the seconds of decoded sound.
fn decoded(page: &Page) -> Result<f64> {
    let js = "decoded.reduce((sum, plane) => sum + plane.length, 0) / 48000";
    page.eval(js)?.as_f64().context("seconds")
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_station_is_heard_by_a_public_link_though_its_router_is_killed() {
    in_each_browser("leaf-radio", |lab, kind| {
        let (mut network, visitor) = audience(lab, &["a", "b", "c", "d"])?;
        let token = token(&network, "ff1e::/16")?;
        let caster = &network.members[0].host;
        let file = write_chirp(caster, 300)?;
        let (key, station, _) = key_of(caster, "station.key")?;
        let text = station.encode();
        let _casts = cast(caster, &file, &format!("--key {key} --name Ann -i lc0"))?;
        let (_server, output) = loudspeakers(&visitor.host)?;
        let browser = Browser::start_with(&visitor.host, kind, Theme::Light, None, Some(&output))?;
        let link = format!("{}/node/#{token},{}", visitor.origin, *text);
        let page = browser.open_prepared("radio", ARRIVALS, &link)?;
        page.until("location.pathname === '/radio/' && document.querySelector('#enter')?.textContent === 'Listen'")?;
        page.until_says("#offer", "only listen")?;
        page.eval(TAP)?;
        page.expect_open_to_all()?;
        page.click("#enter")?;
        page.until("document.querySelector('#live').dataset.state === 'live'")?;
        page.until_says("#state", "listening by 2 routers")?;
        page.inspect("playing")?;
        // it casts nothing, and holders of its link can listen
        page.until("!document.querySelector('#cast').checkVisibility()")?;
        page.until_says(".of-leaves", "only listens")?;
        let shared = page.eval("document.querySelector('#share button').value")?;
        let shared = shared.as_str().context("a link")?;
        ensure!(
            shared.contains(&token) && shared.contains(&**text),
            "{shared}"
        );
        // no member knows it
        for member in &network.members {
            ensure!(member.routes()?.len() == 3, "{:?}", member.routes());
        }
        ensure!(linked(&network.members[0])? == 0);
        let before = decoded(&page)?;
        page.until(&format!(
            "decoded.reduce((sum, plane) => sum + plane.length, 0) / 48000 > {before} + 5"
        ))?;
        let mut active = None;
        for (n, member) in network.members.iter().enumerate() {
            active = active.or(is_active(member)?.then_some(n));
        }
        let active = active.context("no router has the join")?;
        page.eval("came.length = 0, null")?;
        network.members[active].daemon()?.kill()?;
        let before = decoded(&page)?;
        page.until(&format!(
            "decoded.reduce((sum, plane) => sum + plane.length, 0) / 48000 > {before} + 5"
        ))?;
        page.until_says("#state", "listening by 2 routers")?;
        let gap = page.eval("Math.max(...came.slice(1).map((at, n) => at - came[n]))")?;
        println!("{kind}: longest time without a message over the kill: {gap} ms");
        // a reload is another leaf, and plays again
        page.reload()?;
        page.until_says("#station", "Ann")?;
        page.until_says("#state", "listening by 2 routers")?;
        page.click("#play")?;
        page.until("document.querySelector('#live').dataset.state === 'live'")?;
        page.expect_fits_a_phone()?;
        expect_clean(&network, &browser, &visitor)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_node_page_by_a_token_for_leaves_listens_and_says_what_it_cannot_do() {
    in_each_browser("leaf-node", |lab, kind| {
        let (network, visitor) = audience(lab, &["a", "b", "c"])?;
        let token = token(&network, "ff1e:5::/32")?;
        let browser = Browser::start(&visitor.host, kind, Theme::Dark)?;
        let link = format!("{}/node/#{token}", visitor.origin);
        let page = browser.open("node", &link)?;
        page.until_says("#enter", "Listen")?;
        page.click("#enter")?;
        page.until_says("#state", "listening by 2 routers")?;
        for hidden in ["#say", "#people", "#map", "#as-tables"] {
            page.until(&format!(
                "!document.querySelector('{hidden}').checkVisibility()"
            ))?;
        }
        page.until_says(".talk", "cannot send or ask")?;
        page.until_says("#facts", "ff1e:5::/32")?;
        listen(&page, "ff1e:6::1")?;
        page.until_says("#problem", "does not let this page listen to ff1e:6::1")?;
        listen(&page, GROUP)?;
        eventually("it hears", || {
            say(&network.members[0].host, "from a host")?;
            within(Duration::from_secs(2), "it is there", || {
                let heard = page.eval("document.querySelector('#heard').textContent")?;
                holds!(
                    heard.as_str().is_some_and(|h| h.contains("from a host")),
                    "{heard}"
                )
            })
        })?;
        page.until_says("#joined", GROUP)?;
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        page.shot("listening")?;
        let again = page.eval("document.querySelector('#link-again').value")?;
        ensure!(again == json!(link), "{again}");
        // another leaf, which joins the groups of this one
        let id = "document.querySelector('#facts').textContent";
        page.reload()?;
        page.until_says("#state", "listening by 2 routers")?;
        page.until_says("#joined", GROUP)?;
        ensure!(!page.eval(id)?.to_string().contains("PeerId"));
        let revoke = ["revoke", "--token", &token];
        network.members[0].host.run("lcroute", &revoke)?.success()?;
        page.until_says("#problem", "expelled")?;
        expect_clean(&network, &browser, &visitor)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_says_that_no_router_has_room() {
    in_each_browser("leaf-full", |lab, kind| {
        let (network, visitor) = audience(lab, &["a"])?;
        let token = token(&network, "ff1e:5::/32")?;
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        let page = browser.open("node", &format!("{}/node/#{token}", visitor.origin))?;
        page.until_says("#enter", "Listen")?;
        page.click("#enter")?;
        page.until_says("#state", "no router has room")?;
        page.expect_open_to_all()?;
        expect_clean(&network, &browser, &visitor)
    });
}

/// Leaves of one process. Its one thread has no time for hellos of many more, in a test build.
const OF_PROCESS: u64 = 100;

/// Returns the largest number that a page has heard.
fn last_heard(page: &Page) -> Result<u64> {
    let js = "Math.max(0, ...[...document.querySelector('#heard').textContent.matchAll(/n([0-9]+)\\./g)].map(([, n]) => Number(n)))";
    page.eval(js)?.as_u64().context("a number")
}

/// Two routers take leaves, and one of them is killed while a program sends ten numbers a second.
/// `NETNS_LEAVES` sets the number of leaves without a page.
#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn hundreds_of_leaves_and_two_tabs_outlive_a_killed_router() {
    let count = std::env::var("NETNS_LEAVES").ok();
    let count = count
        .and_then(|count| count.parse().ok())
        .unwrap_or(200_u64);
    world("leaf-tabs", |lab| {
        let hosts = lab.closed_hosts(&["a", "b", "c"])?;
        hosts[0].configure("[leaf]\nmax = 0\n")?;
        for host in &hosts[1..] {
            // at most half for one address
            host.configure("[leaf]\nmax = 2048\n")?;
        }
        let mut network = lab.network(hosts)?;
        network.signalling.kill()?;
        let more = ["--per-address", "4096"].map(str::to_owned);
        network.signalling.args.extend(more);
        network.signalling.start()?;
        network.start()?;
        let token = token(&network, "ff1e:5::/32")?;
        let mut others = lab.closed_hosts(&["audience", "one", "two"])?;
        let visitors = others.split_off(1).into_iter().map(Visitor::new);
        let visitors = visitors.collect::<Result<Vec<_>>>()?;
        let routers = |network: &Network| {
            Ok::<_, anyhow::Error>([linked(&network.members[1])?, linked(&network.members[2])?])
        };
        let mut processes = Vec::new();
        let mut started = 0;
        while started < count {
            let some = (count - started).min(OF_PROCESS);
            started += some;
            let some = some.to_string();
            let args = ["--log", "error", "leaf", GROUP, "--count", &some];
            let args = [&args[..], &["--summary", "--json", "--token", &token]].concat();
            processes.push(others[0].spawn("lcroute", &args)?);
            within(Duration::from_secs(120), "all have two links", || {
                let linked = routers(&network)?;
                holds!(linked == [started; 2], "{linked:?} of {started}")
            })?;
        }
        let kinds = [Kind::Chromium, Kind::Firefox];
        let browsers = visitors.iter().zip(kinds);
        let browsers =
            browsers.map(|(visitor, kind)| Browser::start(&visitor.host, kind, Theme::Light));
        let browsers = browsers.collect::<Result<Vec<_>>>()?;
        let mut pages = Vec::new();
        for (visitor, browser) in visitors.iter().zip(&browsers) {
            let link = format!("{}/node/#{token}", visitor.origin);
            let page = browser.open_prepared("node", ARRIVALS, &link)?;
            page.until_says("#enter", "Listen")?;
            page.click("#enter")?;
            page.until_says("#state", "listening by 2 routers")?;
            listen(&page, GROUP)?;
            page.until_says("#joined", GROUP)?;
            pages.push(page);
        }
        let all = count + 2;
        becomes([all; 2], || routers(&network))?;
        let numbers = format!(
            "n=0; while sleep 0.1 && kill -0 $$ && echo n$n.; do n=$((n+1)); done | lcroute say {GROUP}"
        );
        let speaker = network.members[0].host.spawn("sh", &["-c", &numbers])?;
        let hear = |from: u64| {
            for page in &pages {
                within(Duration::from_secs(60), "a tab hears on", || {
                    let last = last_heard(page)?;
                    holds!(last > from, "{last}")
                })?;
            }
            Ok::<_, anyhow::Error>(())
        };
        hear(30)?;
        let last = pages.iter().map(last_heard).collect::<Result<Vec<_>>>()?;
        for page in &pages {
            page.eval("came.length = 0, null")?;
        }
        network.members[2].daemon()?.kill()?;
        // three times as long as before
        hear(last.into_iter().max().unwrap_or(0) + 100)?;
        within(Duration::from_secs(120), "all have a link", || {
            let linked = linked(&network.members[1])?;
            holds!(linked == all, "{linked}")
        })?;
        for (page, kind) in pages.iter().zip(kinds) {
            let gap = page.eval("Math.max(...came.slice(1).map((at, n) => at - came[n]))")?;
            println!("{kind}: longest time without a message over the kill: {gap} ms");
            ensure!(gap.as_f64() < Some(2_000.0), "{gap}");
        }
        drop(speaker);
        let mut heard = Vec::new();
        for leaves in &mut processes {
            leaves.stop()?;
            let said = leaves.stdout();
            let lines = said.lines().map(serde_json::from_str::<Value>);
            heard.extend(
                lines.filter_map(|line| line.ok().filter(|line| line["longest_gap_ms"].is_u64())),
            );
        }
        ensure!(heard.len() as u64 == count, "{} have heard", heard.len());
        let of = |key: &str| {
            let mut all: Vec<_> = heard.iter().filter_map(|line| line[key].as_u64()).collect();
            all.sort_unstable();
            all
        };
        let (packets, gaps, repeated) = (of("packets"), of("longest_gap_ms"), of("repeated"));
        let [half, most] = [gaps.len() / 2, gaps.len() * 99 / 100].map(|at| gaps[at]);
        println!(
            "{count} leaves: {} to {} packets, gap p50 {half} ms, p99 {most} ms",
            packets[0],
            packets[packets.len() - 1]
        );
        ensure!(repeated.iter().all(|n| *n == 0), "something twice");
        // who is deaf since the kill has a quarter
        ensure!(2 * packets[0] > packets[packets.len() - 1], "{packets:?}");
        holds!(most < 2_000, "{gaps:?}")
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_lecture_is_attended_late_by_its_link_and_a_tab_asks() {
    in_each_browser("leaf-studio", |lab, kind| {
        let (mut lecture, hosts) = Lecture::begin(lab)?;
        lecture.presenter.types("")?;
        let host = hosts.into_iter().next().context("a host")?;
        let visitor = Visitor::new(host)?;
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        let link = format!("{}/node/#{}", visitor.origin, lecture.link);
        let page = browser.open("studio", &link)?;
        page.until("location.pathname === '/studio/' && document.querySelector('#enter')?.checkVisibility()")?;
        page.expect_open_to_all()?;
        page.click("#enter")?;
        // all that was sent before
        until_slide(&page, "Why")?;
        page.until_says("#log", "line 0")?;
        page.until_says("#log", "line 19")?;
        page.click("[data-panel=asking]")?;
        page.fill("#asker", "Bob")?;
        page.fill("#question", "how far do they fly?")?;
        page.click("#ask .primary")?;
        lecture.presenter.process.prints("how far do they fly?")?;
        lecture.presenter.types("a 1")?;
        page.until_says("#asked", "how far do they fly?")?;
        page.click("[data-close=asking]")?;
        // notes are for members
        ensure!(page.eval("document.querySelector('[data-panel=notes]').hidden")? == true);
        for member in &lecture.network.members {
            ensure!(member.routes()?.len() == 1, "{:?}", member.routes());
        }
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        expect_clean(&lecture.network, &browser, &visitor)
    });
}
