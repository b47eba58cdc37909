//! The dashboard, of a network of three hosts in a row behind closed firewalls.

use super::node::{listen, meeting, name as member_name};
use super::{Browser, Page, Theme, in_each_browser, serve_folder, some_row};
use crate::groups::{invitation, people};
use crate::prelude::*;
use crate::radio::{RADIO, cast, key_of, write_chirp};
use crate::web::serve;

const GROUP: &str = "ff1e::42";
/// Expression for the number of nodes on the map.
const NODES: &str = "document.querySelectorAll('#map .node').length";

/// Starts a, b and c, each linked with the next; all report.
fn row(lab: &Lab) -> Result<Network> {
    let hosts = lab.hosts_in_a_row(&["a", "b", "c"])?;
    crate::configure(&hosts, "[web]\nreport = true\ninvite = true\n")?;
    let mut network = lab.network(hosts)?;
    network.members.iter_mut().try_for_each(Member::start)?;
    for (member, links) in network.members.iter().zip([1, 2, 1]) {
        member.wait_links(links)?;
    }
    Ok(network)
}

/// Returns an expression: whether a node's accessible label on the map has these words.
fn node(name: &str, words: &str) -> String {
    format!(
        "[...document.querySelectorAll('#map .node')].some((node) => {{ \
            const label = node.getAttribute('aria-label'); \
            return label.startsWith({}) && label.includes({}); }})",
        json!(format!("{name},")),
        json!(words)
    )
}

/// Checks state, peers, nodes and links.
fn expect_network(page: &Page) -> Result<()> {
    page.until("document.querySelector('#name').textContent === 'a'")?;
    page.until_says("#state", "connected, 1 peer")?;
    page.until(&some_row(
        "#peers",
        "first === 'b' && second.includes('connected')",
    ))?;
    page.until(&format!("{NODES} === 3"))?;
    page.until("[...document.querySelectorAll('#map path.link:not(.lit)')].map((p) => p.getAttribute('d') ?? '').join('').split('M').length === 3")?;
    for (name, words) in [("a", "this node"), ("b", "2 links"), ("c", "1 link")] {
        page.until(&node(name, words))?;
    }
    Ok(())
}

/// Checks the flow from a over b to c: on the map and in its table.
fn expect_flow(page: &Page) -> Result<()> {
    page.until("document.querySelectorAll('#map .flow:not(.idle)').length === 2")?;
    expect_carriers(page, &["b"])?;
    page.until("[...document.querySelectorAll('#map text.rate:not(.hidden)')].filter((t) => /^[1-9].*\\/s$/.test(t.textContent)).length === 2")?;
    page.click("#as-tables summary")?;
    for (from, to) in [("a", "b"), ("b", "c")] {
        let row = format!(
            "first === '{from}' && second === '{to}' && parseFloat(third) > 20 && parseFloat(third) < 100"
        );
        page.until(&some_row("#edges", &row))?;
    }
    page.click("#as-tables summary")
}

/// Shows the group's tree by keyboard.
fn choose_the_group(page: &Page) -> Result<()> {
    page.eval("document.activeElement.blur(), scrollTo(0, 0), null")?;
    page.press_until("Tab", "#choose input")?;
    page.press("ArrowDown")?;
    page.until_says("#map-title", GROUP)?;
    for (name, words) in [("a", "sends"), ("b", "passes packets on"), ("c", "listens")] {
        page.until(&node(name, words))?;
    }
    expect_carriers(page, &["b"])
}

/// Expression for the names of forwarding nodes.
const CARRIERS: &str = "[...document.querySelectorAll('#map .node')].map((node) => node.getAttribute('aria-label')) \
    .filter((label) => label.includes('passes packets on')).map((label) => label.split(',')[0])";

/// Checks the forwarding nodes, without those that only send or listen.
fn expect_carriers(page: &Page, wanted: &[&str]) -> Result<()> {
    page.until(&format!(
        "String({CARRIERS}) === {}",
        json!(wanted.join(","))
    ))
    .map(drop)
}

/// Finds a node by its name, and a neighbour from there.
fn find_nodes(page: &Page) -> Result<()> {
    page.enter("#find", "c")?;
    page.until("document.querySelector('#node-name').textContent === 'c'")?;
    page.until_says("#near .link-to", "b")?;
    page.click("#near .link-to")?;
    page.until("document.querySelector('#node-name').textContent === 'b'")?;
    page.until_says("#node .facts", "ms")?;
    // its report, every few seconds, has it
    let version = format!("Version{}", env!("CARGO_PKG_VERSION"));
    page.until_says("#node .facts", &version)?;
    page.click("#close").map(drop)
}

/// Makes an invitation link: the page's key alone does not suffice.
fn invite(page: &Page, a: &Member) -> Result<()> {
    page.click("#invite summary")?;
    let code = a.host.call("lcroute-web web --code")?.stdout;
    page.fill("#invite-code", code.trim())?;
    page.click("#invite .primary")?;
    page.until("document.querySelector('#invited svg.qr') !== null")?;
    let link = page.eval("document.querySelector('#invited .copy').value")?;
    let link = link.as_str().context("a link")?;
    let (node_page, token) = link.split_once('#').context("a token")?;
    ensure!(node_page.ends_with("/node/"), "{link}");
    let token: librecast::cert::Token = token.parse()?;
    ensure!(token.network().to_string() == a.status()?["network"]);
    page.shot("invite")?;
    page.click("#invite summary")
}

#[test]
#[ignore = "`make test-all`: browsers, and what `make web` makes"]
fn the_dashboard_shows_the_network_what_flows_and_who_has_gone() {
    in_each_browser("dashboard", |lab, kind| {
        let mut network = row(lab)?;
        let [a, b, c] = network.nodes()?;
        let receiver = c.host.receive(GROUP, &[])?;
        a.wait_wanted(GROUP, b)?;
        let _sender = a.host.send_for_ever(GROUP)?;
        let (_pages, address) = serve(&a.host)?;
        let (origin, _) = address.split_once("/#").context("a key")?;

        let browser = Browser::start(&a.host, kind, Theme::Light)?;
        let page = browser.open("dashboard", &address)?;
        expect_network(&page)?;
        expect_flow(&page)?;
        find_nodes(&page)?;
        invite(&page, a)?;
        choose_the_group(&page)?;
        page.inspect("tree")?;
        page.expect_fits_a_phone()?;

        drop(receiver);
        network.members[2].daemon()?.kill()?;
        let begun = Instant::now();
        page.until(&format!("{NODES} === 2"))?;
        println!(
            "{kind}: a killed node is gone from the map after {:?}",
            begun.elapsed()
        );
        page.until_says("#notice:not([hidden])", "c has gone")?;
        network.members[2].start()?;
        page.until(&format!("{NODES} === 3"))?;
        page.until_says("#events li", "c has come")?;
        page.until("document.querySelector('#notice').hidden")?;
        // a page that is opened later shows it as well
        page.reload()?;
        page.until_says("#events .bad", "c has gone")?;
        page.until(
            "(document.querySelector('.curve .line').getAttribute('d') ?? '').split('L').length > 2",
        )?;
        page.until(&format!("{NODES} === 3"))?;

        network.members[0].daemon()?.kill()?;
        page.until("!document.querySelector('#problem').hidden && document.querySelector('#problem').textContent !== ''")?;
        page.until("document.body.matches('.stale')")?;
        page.inspect("no-daemon")?;
        network.members[0].start()?;
        page.until(
            "document.querySelector('#problem').hidden && !document.body.matches('.stale')",
        )?;
        page.until_says("#state", "connected, 1 peer")?;
        browser.expect_clean(&[origin])?;

        // the same in the dark theme
        drop(browser);
        let browser = Browser::start(&network.members[0].host, kind, Theme::Dark)?;
        let page = browser.open("dashboard", &address)?;
        expect_network(&page)?;
        page.click("#doctor summary")?;
        page.click("#check")?;
        page.until("document.querySelectorAll('#findings li').length > 3")?;
        page.inspect("dark")?;
        browser.expect_clean(&[origin])
    });
}

#[test]
#[ignore = "`make test-all`: browsers"]
fn a_page_of_another_site_reads_nothing_of_the_dashboard() {
    in_each_browser("dashboard-origin", |lab, kind| {
        let network = lab.closed_network(["a"])?;
        let host = &network.members[0].host;
        let (_pages, address) = serve(host)?;
        let (origin, key) = address.split_once("/#").context("a key")?;
        let (_server, other) = serve_folder(host, &host.path("cache"), 8000)?;
        let browser = Browser::start(host, kind, Theme::Light)?;

        // with the key, this page may read it
        let read = |mode: &str, headers: &str| {
            format!(
                "fetch({}, {{ mode: '{mode}', headers: {headers} }}).then(async (answer) => {{ \
                    const first = await answer.body?.getReader().read(); \
                    return answer.type + ' ' + answer.status + ' ' + (first?.value?.length ?? 0); \
                 }}, (error) => error.name)",
                json!(format!("{origin}/api/watch"))
            )
        };
        let with_key = format!("{{ Authorization: 'Bearer {key}' }}");
        let page = browser.open("own", &address)?;
        let own = page.eval(&read("cors", &with_key))?;
        ensure!(
            own.as_str()
                .is_some_and(|own| own.starts_with("basic 200 ")),
            "{own}"
        );

        // another key gets no data
        let stranger = browser.open("stranger", &format!("{origin}/#another"))?;
        stranger.until_says("#state", "no access")?;
        stranger.until_says("#problem", "lcroute web --open")?;

        // the page's key permits no invitation
        let asks = json!({ "code": key, "ttl_s": 60, "uses": 1, "page": origin }).to_string();
        let refused = page.eval(&format!(
            "fetch('/api/invite', {{ method: 'POST', headers: {with_key}, body: {} }}).then(async (answer) => answer.status + ' ' + await answer.text())",
            json!(asks)
        ))?;
        ensure!(
            refused
                .as_str()
                .is_some_and(|said| said.starts_with("403 ") && said.contains("[web] invite")),
            "{refused}"
        );

        // a page of another site
        let foreign = browser.open("foreign", &other)?;
        ensure!(foreign.eval(&read("cors", &with_key))? == "TypeError");
        ensure!(foreign.eval(&read("cors", "{}"))? == "TypeError");
        let blind = foreign.eval(&read("no-cors", "{}"))?;
        ensure!(blind == "TypeError" || blind == "opaque 0 0", "{blind}");

        // in a frame of another site
        foreign.eval(&format!(
            "new Promise((done) => {{ const frame = document.createElement('iframe'); frame.onload = () => done(true); \
                frame.src = {}; document.body.append(frame); }})",
            json!(address)
        ))?;
        let inside = foreign.eval("(() => { try { return document.querySelector('iframe').contentDocument?.title ?? 'nothing'; } catch { return 'nothing'; } })()")?;
        ensure!(inside == "nothing", "{inside}");

        // a foreign name that resolves to this server
        let port = origin.rsplit(':').next().context("a port")?;
        let rebound = browser.open("rebound", &format!("http://evil.localhost:{port}/"))?;
        let says = rebound.eval("document.body.innerText")?;
        ensure!(says.as_str().is_some_and(|s| s.contains("name")), "{says}");
        let data = rebound.eval(&read("cors", &with_key).replace(origin, ""))?;
        holds!(
            data.as_str().is_some_and(|s| s.starts_with("basic 421 ")),
            "{data}"
        )
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_tab_is_drawn_in_the_tree_of_a_group_once_it_has_joined_that() {
    in_each_browser("dashboard-tab", |lab, kind| {
        let meeting = meeting(lab, &["visitor"], false)?;
        let [a, b] = meeting.network.nodes()?;
        let _receiver = a.known_receiver(b, GROUP, &[])?;
        let _sender = a.host.send_for_ever(GROUP)?;
        let (_pages, address) = serve(&a.host)?;
        let browser = Browser::start(&a.host, kind, Theme::Light)?;
        let page = browser.open("dashboard", &address)?;
        let flows_to = |name: &str| some_row("#edges", &format!("second === '{name}'"));
        page.click("#as-tables summary")?;
        page.until(&flows_to("b"))?;
        // records the receivers of drawn flows, and the number of drawings
        page.eval("{ window.drawn = new Set(); window.draws = 0; \
            new MutationObserver(() => { draws += 1; document.querySelectorAll('#edges td:nth-child(2)').forEach((td) => drawn.add(td.textContent)); }) \
                .observe(document.querySelector('#facts'), { childList: true, subtree: true, characterData: true }); } null")?;

        let visitor = &meeting.visitors[0];
        let guest = Browser::start(&visitor.host, kind, Theme::Light)?;
        let tab = meeting.join(&guest, visitor, 2)?;
        let name = member_name(&tab)?;
        page.until(&node(&name, "a browser tab"))?;
        page.eval("draws = 0")?;
        page.until("draws > 8")?;
        ensure!(
            page.eval(&format!("drawn.has({})", json!(name)))? == false,
            "{name} has joined nothing"
        );
        listen(&tab, GROUP)?;
        page.until(&flows_to(&name))?;
        // the path to it may lead over b while that is shorter; no path leads over it
        let senders = "[...new Set([...document.querySelectorAll('#edges tbody tr')].map((row) => row.cells[0].textContent))]";
        page.until(&format!(
            "String({CARRIERS}) === String({senders}.filter((name) => name !== 'a'))"
        ))?;
        holds!(
            page.eval(&format!("{CARRIERS}.includes({})", json!(name)))? == false,
            "{name} passes packets on"
        )
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and what `make web` makes"]
fn groups_and_nodes_have_the_names_that_this_host_knows() {
    in_each_browser("dashboard-names", |lab, kind| {
        let (network, people) = people(lab, &["ann", "bob"])?;
        let [a, b] = network.nodes()?;
        a.host.configure("[web]\ngroups = true\n")?;
        let (_pages, address) = serve(&a.host)?;
        let browser = Browser::start(&a.host, kind, Theme::Light)?;
        let page = browser.open("dashboard", &address)?;
        page.until_says("#state", "connected, 1 peer")?;
        // a page listens for reports and announcements: neither is anybody's group
        page.until("performance.now() > 6000")?;
        page.until("!document.querySelector('#no-groups').hidden")?;
        page.shot("nothing")?;

        people[0].ask(&["create", "team", "--as", "ann"])?;
        people[1].join(&invitation(&people[0], "1")?)?;
        let file = write_chirp(&b.host, 300)?;
        let (key, private, _) = key_of(&b.host, "station.key")?;
        let (other, of_mum, _) = key_of(&b.host, "mum.key")?;
        let play = |key: &str, name: &str| {
            cast(
                &b.host,
                &file,
                &format!("--key {key} --public --name '{name}' -i lc0"),
            )
        };
        let _casts = [play(&key, "Radio <b>Berlin</b>")?, play(&other, "kitchen")?];
        let _hear = [&private, &of_mum].map(|station| {
            let public = lcradio_core::Station::decode(&librecast::text::encode(
                librecast::text::TextKind::Station,
                station.key().public_key(),
            ));
            let text = public.expect("a key").encode().to_string();
            a.host.spawn(RADIO, &["listen", &text, "-", "-i", "lc0"])
        });
        let mum = of_mum.key().to_string();
        a.host.call(&format!("lcroute book add mum {mum}"))?;
        let robert = b.peer_id()?;
        a.host.call(&format!("lcroute book add robert {robert}"))?;
        let choices = "#choose label";
        for name in ["team", "Radio <b>Berlin</b>", "mum"] {
            page.until_says(choices, name)?;
        }
        // what an address is called here counts more than how it calls itself
        ensure!(page.eval("document.body.innerText.includes('kitchen')")? == false);
        page.until_says(choices, "radio station")?;
        page.until_says(choices, "conversation")?;
        page.until(&some_row("#peers", "first === 'robert (bob)'"))?;
        page.until(&node("robert (bob)", "1 link"))?;
        page.until(&some_row("#groups", "first.startsWith('team: ff1e:')"))?;
        page.click("#as-tables summary")?;
        page.eval("[...document.querySelectorAll('#choose label')].find((label) => label.textContent.includes('Berlin')).click()")?;
        page.until_says("#map-title", "The tree of Radio <b>Berlin</b>")?;
        page.until_says("#edges caption, #edges .caption", "Radio <b>Berlin</b>")?;
        let listed = page.eval("document.querySelector('#choose').textContent + document.querySelector('#groups').textContent")?;
        ensure!(
            listed.as_str().is_some_and(|all| !all.contains("2:7ffe")),
            "{listed}"
        );
        page.inspect("names")?;
        page.expect_fits_a_phone()?;
        browser.expect_clean(&[address.split('#').next().unwrap_or_default()])
    });
}
