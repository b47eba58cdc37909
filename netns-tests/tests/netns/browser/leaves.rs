//! Tabs that are leaves: by a token of `lcroute invite --leaf`, they listen and send nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lcroute_lab::lab::{Host, Lab, Member, Network, eventually, within};
use serde_json::json;

use super::node::{Visitor, listen};
use super::radio::{TAP, loudspeakers};
use super::{Browser, Page, Theme, in_each_browser};
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
fn audience(lab: &Lab, routers: &[&str]) -> Result<(Network, Visitor)> {
    let hosts = lab.closed_hosts(routers)?;
    hosts[0].configure("[leaf]\nmax = 0\n")?;
    let mut network = lab.network(hosts)?;
    network.start()?;
    let host = lab.closed_hosts(&["visitor"])?.remove(0);
    Ok((network, Visitor::new(host)?))
}

fn token(network: &Network, groups: &str) -> Result<String> {
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
        page.expect_open_to_all()?;
        page.shot("playing")?;
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
                ensure!(
                    heard.as_str().is_some_and(|h| h.contains("from a host")),
                    "{heard}"
                );
                Ok(())
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
