//! The node page: a tab that is a member of a network of daemons behind closed firewalls.

use librecast::id::PeerId;

use super::{Browser, Kind, Page, Theme, in_each_browser, some_row};
use crate::prelude::*;
use crate::radio::{cast, key_of, write_chirp};
use crate::web::serve;

const GROUP: &str = "ff1e::42";
/// A second group.
const MARK: &str = "ff1e::43";
/// Expression for the number of received datagrams of the shown group.
const COUNT: &str =
    "parseInt(document.querySelector('#joined small')?.textContent.replace(/,/g, '') ?? '-1')";

/// The same, once no more arrive for 2.5 s.
const REST: &str = "(async () => { for (let count = -2; ; ) { const now = COUNT; if (now === count) return now; count = now; \
    await new Promise((done) => setTimeout(done, 2500)); } })()";

/// Two linked daemons, and hosts for browsers that serve the page; all behind closed firewalls.
pub(super) struct Meeting {
    pub network: Network,
    pub visitors: Vec<Visitor>,
}

pub(super) struct Visitor {
    pub host: Host,
    pub origin: String,
    pages: Process,
}

pub(super) fn meeting(lab: &Lab, visitors: &[&str], has_relay: bool) -> Result<Meeting> {
    meeting_with(lab, visitors, has_relay, "")
}

/// Starts a meeting with more settings for the hosts.
fn meeting_with(lab: &Lab, visitors: &[&str], has_relay: bool, more: &str) -> Result<Meeting> {
    let mut network =
        lab.network(lab.configured_hosts(&["a", "b"], &format!("[web]\nreport = true\n{more}"))?)?;
    if has_relay {
        network.signalling.restart_with_relay()?;
    }
    network.start()?;
    let visitors = lab.closed_hosts(visitors)?.into_iter();
    Ok(Meeting {
        network,
        visitors: visitors.map(Visitor::new).collect::<Result<_>>()?,
    })
}

/// Runs a test of a visitor's pages in each browser: two daemons serve its network.
pub(super) fn visited(
    name: &str,
    test: impl Fn(Kind, &Meeting, [&Member; 2], &Visitor) -> Result<()>,
) {
    in_each_browser(name, |lab, kind| {
        let meeting = meeting(lab, &["visitor"], false)?;
        test(
            kind,
            &meeting,
            meeting.network.nodes()?,
            &meeting.visitors[0],
        )
    });
}

impl Visitor {
    /// Stops serving the pages to this host.
    pub fn stop_pages(&self) -> Result<()> {
        self.pages.signal(Signal::SIGTERM)
    }

    /// Serves the pages.
    pub fn new(host: Host) -> Result<Self> {
        let (pages, address) = serve(&host)?;
        let (origin, _) = address.split_once("/#").context("a key")?;
        let origin = origin.to_owned();
        Ok(Self {
            host,
            origin,
            pages,
        })
    }
}

impl Meeting {
    /// Checks that pages request only their own server and the signalling server.
    pub fn expect_clean(&self, browser: &Browser, visitor: &Visitor) -> Result<()> {
        let server = self.network.signalling.url()?;
        let as_http = server.replace("ws:", "http:");
        browser.expect_clean(&[&visitor.origin, &server, &as_http])
    }

    /// Opens a page that is a member, with links to all others.
    pub fn join<'a>(
        &self,
        browser: &'a Browser,
        visitor: &Visitor,
        links: usize,
    ) -> Result<Page<'a>> {
        let page = browser.open("node", &format!("{}/node/", visitor.origin))?;
        become_member(&page, &self.network.token)?;
        until_links(&page, links)?;
        // links, addresses and groups are folded
        page.eval("['#advanced', '#whereto'].forEach((at) => (document.querySelector(at).open = true)), null")?;
        Ok(page)
    }
}

fn become_member(page: &Page, token: &str) -> Result<()> {
    page.eval("document.querySelector('#token-details').open = true, null")?;
    page.fill("#token", token)?;
    page.click("#become button.primary")
}

/// Returns the time until this number of links is up.
fn until_links(page: &Page, count: usize) -> Result<Duration> {
    let begun = Instant::now();
    let s = if count == 1 { "" } else { "s" };
    page.until(&format!(
        "document.querySelector('#state').textContent === 'linked to {count} node{s}'"
    ))?;
    Ok(begun.elapsed())
}

pub(super) fn name(page: &Page) -> Result<String> {
    let name = page.eval("document.querySelector('#name').textContent")?;
    Ok(name.as_str().context("a name")?.to_owned())
}

pub(super) fn listen(page: &Page, group: &str) -> Result<()> {
    page.eval("document.querySelector('#other').open = true, null")?;
    page.fill("#group", group)?;
    page.click("#listen button")
}

/// Runs a test of a page with links to two daemons, in each browser.
fn as_a_member(
    test_name: &str,
    more: &str,
    test: impl Fn(Kind, [&Member; 2], &Host, &Browser, &Page) -> Result<()>,
) {
    in_each_browser(test_name, |lab, kind| {
        let meeting = meeting_with(lab, &["visitor"], false, more)?;
        let visitor = &meeting.visitors[0];
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        let page = meeting.join(&browser, visitor, 2)?;
        let nodes = meeting.network.nodes()?;
        test(kind, nodes, &visitor.host, &browser, &page)?;
        meeting.expect_clean(&browser, visitor)
    });
}

/// Returns the number of datagrams lost to full sockets of this host.
fn full_sockets(host: &Host) -> Result<u64> {
    let v6 = host.namespace().read("/proc/thread-self/net/snmp6")?;
    let v4 = host.namespace().read("/proc/thread-self/net/snmp")?;
    let mut udp = v4.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (udp.next().context("Udp")?, udp.next().context("Udp")?);
    let of_v4 = names
        .split(' ')
        .zip(values.split(' '))
        .filter(|(name, _)| *name == "RcvbufErrors");
    let of_v6 = v6
        .lines()
        .filter_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    let all = of_v4.map(|(_, value)| value).chain(of_v6);
    all.map(|value| Ok(value.trim().parse::<u64>()?)).sum()
}

/// Returns the state of the link to a page, as `member` reports it.
fn link(member: &Member, page: &str) -> Result<Value> {
    let peers = member.peers()?;
    let found = peers.into_iter().find(|peer| peer["name"] == page);
    found.with_context(|| format!("{page} is no peer"))
}

/// Waits until the host knows another member's join of the group, or that none is left.
pub(super) fn until_wanted(member: &Member, group: &str, is_wanted: bool) -> Result<()> {
    eventually("others want the group, or do no longer", || {
        let groups = member.groups()?;
        let found = groups.iter().find(|found| found["group"] == group);
        let links = found
            .and_then(|found| found["links"].as_array())
            .map_or(0, Vec::len);
        holds!((links > 0) == is_wanted, "{links} links")
    })
}

fn say(member: &Member, group: &str, words: &str) -> Result<()> {
    let said = member.host.run("lcroute", &["say", group, words])?;
    said.success().map(drop)
}

/// Sends words until they arrive: packets before all joins are known may be lost.
fn say_until(page: &Page, words: &str, heard: impl Fn() -> Result<()>) -> Result<()> {
    eventually("the page is heard", || {
        page.enter("#words", words)?;
        within(Duration::from_secs(2), "it is heard", &heard)
    })
}

/// Says words on the page until this listener prints them.
fn say_until_heard(page: &Page, words: &str, listener: &Process) -> Result<()> {
    say_until(page, words, || {
        holds!(listener.stdout().contains(words), "not yet")
    })
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_is_a_member_by_either_role_of_negotiation() {
    visited("node-member", |kind, meeting, [a, b], visitor| {
        let browser = Browser::start(&visitor.host, kind, Theme::Dark)?;
        let page = browser.open("node", &format!("{}/node/", visitor.origin))?;
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        page.shot("door")?;
        // each visit has a new key; the smaller PeerId offers
        let mut roles = [0, 0];
        while roles.contains(&0) || roles.iter().sum::<usize>() < 6 {
            become_member(&page, &meeting.network.token)?;
            let took = until_links(&page, 2)?;
            // its name changes with the first renewal: the network remembers who was called so
            // before
            let own = eventually("a host knows the page", || link(a, &name(&page)?))?;
            let own = own["peer_id"].as_str().context("a PeerId")?;
            let own = own.parse::<PeerId>()?;
            let offers = [a, b]
                .into_iter()
                .map(|m| Ok(own < m.peer_id()?.parse::<PeerId>()?));
            let offers = offers.collect::<Result<Vec<bool>>>()?;
            offers
                .iter()
                .for_each(|offers| roles[usize::from(*offers)] += 1);
            println!("{kind}: two links after {took:?}, the page offered {offers:?}");
            ensure!(roles.iter().sum::<usize>() < 40, "{roles:?}");
            page.click("#leave")?;
            page.until_says("#notice", "You have left")?;
            ensure!(page.eval("document.querySelector('#problem').hidden")? == true);
            eventually("the daemons know that it has gone", || {
                let links = [a.linked_with()?.len(), b.linked_with()?.len()];
                holds!(links == [1, 1], "{links:?}")
            })?;
        }
        page.expect_open_to_all()?;
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_hears_hosts_and_is_heard_until_it_leaves_the_group() {
    as_a_member("node-words", "", |_, [a, b], _, _, page| {
        let own = name(page)?;
        page.until("document.querySelectorAll('#map .node').length === 3")?;
        listen(page, MARK)?;
        listen(page, GROUP)?;
        for group in [MARK, GROUP] {
            until_wanted(a, group, true)?;
        }
        say(a, GROUP, "from a host")?;
        page.until_says("#heard li", "from a host")?;
        page.until_says("#heard li", "a to ff1e::42")?;

        let listener = b.host.spawn("lcroute", &["listen", GROUP])?;
        say_until(page, "from a page", || {
            let heard = listener.stdout();
            let is_heard = heard
                .lines()
                .any(|line| line.contains("from a page") && line.contains(&own));
            holds!(is_heard, "{heard}")
        })?;
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        page.shot("words")?;

        page.click(&format!("#joined [aria-label=\"Leave {GROUP}\"]"))?;
        drop(listener);
        until_wanted(a, GROUP, false)?;
        say(a, GROUP, "too late")?;
        // takes the same path, behind it
        say(a, MARK, "after that")?;
        page.until_says("#heard li", "after that")?;
        let heard = page.eval("document.querySelector('#heard').textContent")?;
        holds!(
            heard
                .as_str()
                .is_some_and(|heard| !heard.contains("too late")),
            "{heard}"
        )
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_hears_groups_of_ipv4_and_says_that_it_cannot_send_to_them() {
    const STREAM: &str = "239.1.2.3";
    let ipv4 = "[tun]\nipv4 = true\n";
    as_a_member("node-ipv4", ipv4, |_, [a, _], _, _, page| {
        let from = crate::ipv4::address(a)?;
        listen(page, STREAM)?;
        until_wanted(a, STREAM, true)?;
        eventually("the page hears", || {
            say(a, STREAM, "by IPv4")?;
            within(Duration::from_secs(2), "it is heard", || {
                let heard = texts(page, "#heard li")?.join(" ");
                let is_heard = heard.contains("by IPv4") && heard.contains(STREAM);
                holds!(is_heard && heard.contains(&from), "{heard}")
            })
        })?;
        page.fill("#to", STREAM)?;
        page.enter("#words", "and back?")?;
        page.until_says("#problem", "cannot send")?;
        page.shot("ipv4")?;
        page.click(&format!("#joined [aria-label=\"Leave {STREAM}\"]"))?;
        until_wanted(a, STREAM, false)
    });
}

/// Sends words from a host until the page shows them; other listeners hide the page's join.
fn hear_until(page: &Page, from: &Member, words: &str) -> Result<()> {
    eventually("the page hears", || {
        say(from, GROUP, words)?;
        within(Duration::from_secs(2), "it is heard", || {
            let heard = texts(page, "#heard .words > p:last-child")?;
            holds!(heard.iter().any(|said| said.contains(words)), "{heard:?}")
        })
    })
}

/// Returns the texts of these elements.
fn texts(page: &Page, at: &str) -> Result<Vec<String>> {
    let js = format!(
        "[...document.querySelectorAll({})].map((e) => e.textContent)",
        json!(at)
    );
    Ok(serde_json::from_value(page.eval(&js)?)?)
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_says_what_becomes_of_words_and_keeps_them_over_a_reload() {
    as_a_member("node-talk", "", |_, [a, b], host, browser, page| {
        page.fill("#to", GROUP)?;
        page.enter("#words", "is anybody there?")?;
        page.until_says("#heard .own", "nobody listens")?;
        let listener = b.host.spawn("lcroute", &["listen", GROUP])?;
        // a group with any listener is shown for joining
        page.until_says("#carried li", "1 node listens")?;
        page.click(&format!("#carried [aria-label=\"Join {GROUP}\"]"))?;
        until_wanted(a, GROUP, true)?;
        say_until_heard(page, "now somebody is", &listener)?;
        page.until_says("#heard .own", "now somebody is")?;

        // the longest datagram
        let longest = format!("{}!", "long ".repeat(246) + "x");
        ensure!(longest.len() == 1_232, "{}", longest.len());
        hear_until(page, a, &longest)?;
        ensure!(
            page.eval("document.querySelectorAll('#map :is([role=button], [tabindex])').length")?
                == 0,
            "nodes that do nothing are no buttons"
        );

        // datagrams on a hidden page are counted
        let _front = browser.open("front", "about:blank")?;
        page.until("document.visibilityState === 'hidden'")?;
        say(a, GROUP, "unread")?;
        page.until("document.title.startsWith('(1) ')")?;
        page.click("#words")?;
        page.until("!document.title.startsWith('(')")?;

        let own = texts(page, "#heard .own")?;
        ensure!(
            own.last().is_some_and(|last| !last.contains("nobody")),
            "{own:?}"
        );

        host.cut_uplink()?;
        page.until("document.querySelector('#state').textContent === 'making links'")?;
        page.until_says("#notice:not([hidden])", "The links are lost.")?;
        page.enter("#words", "into the void")?;
        page.until_says("#problem", "Not sent: this page has no link.")?;
        ensure!(page.eval("document.querySelector('#words').value")? == "into the void");
        host.heal_uplink()?;
        until_links(page, 2)?;
        // outdated text disappears
        for at in ["#problem", "#notice"] {
            page.until(&format!("document.querySelector('{at}').hidden"))?;
        }

        let heard = texts(page, "#heard li > p:last-child")?;
        page.reload()?;
        until_links(page, 2)?;
        ensure!(texts(page, "#heard li > p:last-child")? == heard);
        let joined = texts(page, "#joined b")?;
        ensure!(joined == [GROUP], "{joined:?}");
        hear_until(page, a, "welcome back")?;
        page.inspect("talk")?;
        page.expect_fits_a_phone()?;

        page.eval("URL.createObjectURL = (file) => { file.text().then((text) => (window.kept = text)); return 'data:,'; }, null")?;
        page.click("#keep")?;
        page.until("window.kept?.includes('  a  ff1e::42  welcome back\\n')")
            .map(drop)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_with_links_to_both_sides_passes_nothing_on() {
    world("node-leaf", |lab| {
        let mut hosts = lab.hosts_in_a_row(&["a", "visitor", "b"])?;
        let visitor = Visitor::new(hosts.remove(1))?;
        let mut network = lab.network(hosts)?;
        network.start_each()?;
        let meeting = Meeting {
            network,
            visitors: vec![visitor],
        };
        let ([a, b], visitor) = (meeting.network.nodes()?, &meeting.visitors[0]);
        let browser = Browser::start(&visitor.host, Kind::Chromium, Theme::Dark)?;
        let page = meeting.join(&browser, visitor, 2)?;
        let sees = |member: &Member| {
            let names = member
                .routes()?
                .into_iter()
                .map(|route| route["name"].clone());
            Ok::<_, anyhow::Error>(Vec::from_iter(names))
        };
        let own = json!(name(&page)?);
        for member in [a, b] {
            eventually("a host sees the tab, and nobody behind it", || {
                let seen = sees(member)?;
                holds!(seen == [own.clone()], "{seen:?}")
            })?;
        }
        listen(&page, GROUP)?;
        let listener = b.host.spawn("lcroute", &["listen", GROUP])?;
        until_wanted(a, GROUP, true)?;
        say(a, GROUP, "from one side")?;
        page.until_says("#heard li", "from one side")?;
        // takes the path that a's words would have taken, behind them
        say_until_heard(&page, "from the middle", &listener)?;
        let heard = listener.stdout();
        ensure!(!heard.contains("from one side"), "{heard}");
        page.shot("leaf")?;
        // the firewall is removed: they link
        for member in [a, b] {
            member.host.heal_uplink()?;
        }
        becomes(Some(1), || a.hops(b))?;
        eventually("b hears a", || {
            say(a, GROUP, "from a neighbour")?;
            let heard = listener.stdout();
            holds!(heard.contains("from a neighbour"), "{heard}")
        })?;
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn pages_of_two_browsers_hear_each_other() {
    world("node-pages", |lab| {
        let meeting = meeting(lab, &["left", "right"], false)?;
        let [left, right] = crate::each(&meeting.visitors)?;
        let chromium = Browser::start(&left.host, Kind::Chromium, Theme::Light)?;
        let firefox = Browser::start(&right.host, Kind::Firefox, Theme::Light)?;
        let one = meeting.join(&chromium, left, 2)?;
        let other = meeting.join(&firefox, right, 3)?;
        until_links(&one, 3)?;
        for (from, to) in [(&one, &other), (&other, &one)] {
            listen(to, GROUP)?;
            let words = format!("from {}", name(from)?);
            from.fill("#to", GROUP)?;
            let heard = format!(
                "document.querySelector('#heard').textContent.includes({})",
                json!(words)
            );
            say_until(from, &words, || holds!(to.eval(&heard)? == true, "not yet"))?;
            let link = some_row(
                "#peers",
                &format!(
                    "first === {} && second.includes('connected') && third.startsWith('direct')",
                    json!(name(to)?)
                ),
            );
            from.until(&link)?;
        }
        meeting.expect_clean(&chromium, left)?;
        meeting.expect_clean(&firefox, right)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_takes_two_thousand_packets_a_second() {
    as_a_member("node-rate", "", |kind, [a, _], host, _, page| {
        listen(page, GROUP)?;
        until_wanted(a, GROUP, true)?;
        // packets may be lost until all agree about the tree
        a.host.send(GROUP, 500, &["--rate", "500"])?;
        page.until(&format!("{COUNT} > 0"))?;
        let rest = REST.replace("COUNT", COUNT);
        let before = page.eval(&rest)?.as_u64().context("a number")?;
        // losses of a busy machine: its host's queue was too old, or the browser's socket full
        let lost =
            || Ok::<_, anyhow::Error>([a.counter("drops/queue_delay")?, full_sockets(host)?]);
        let earlier = lost()?;
        a.host
            .send(GROUP, 20_000, &["--rate", "2000", "--size", "1150"])?;
        page.until(&format!("{COUNT} >= {before} + 19000"))?;
        let heard = page.eval(&rest)?.as_u64().context("a number")? - before;
        let [late, full] = [0, 1].map(|n| lost().map(|now| now[n] - earlier[n]));
        let (late, full) = (late?, full?);
        println!(
            "{kind}: {heard} of 20,000 packets; too late for their host {late}, sockets full {full}"
        );
        // a packet may be two datagrams
        ensure!(
            heard <= 20_000 && heard + late + full >= 20_000,
            "{heard} came; the host's drops: {}",
            a.status()?["counters"]["drops"]
        );
        page.shot("after-20000-packets")?;
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_in_the_background_or_busy_with_itself_keeps_its_links_and_loses_nothing() {
    as_a_member("node-busy", "", |kind, [a, _], _, browser, page| {
        listen(page, GROUP)?;
        until_wanted(a, GROUP, true)?;
        let begun = Instant::now();

        let args = ["--count", "200", "--rate", "50"];
        let mut sender = a.host.spawn("mc-send", &[&[GROUP][..], &args].concat())?;
        page.eval(
            "(() => { const end = performance.now() + 3000; while (performance.now() < end); })()",
        )?;
        sender.expect_exit(DEADLINE, 0)?;
        page.until(&format!("{COUNT} === 200"))?;

        let _front = browser.open("front", "about:blank")?;
        page.until("document.visibilityState === 'hidden'")?;
        a.host.send(GROUP, 1_000, &["--rate", "50"])?;
        page.until(&format!("{COUNT} === 1200"))?;
        ensure!(page.eval("document.visibilityState")? == "hidden");
        let (since, passed) = (link(a, &name(page)?)?, begun.elapsed().as_secs());
        ensure!(
            since["state"] == "connected" && since["since_s"].as_u64() >= Some(passed),
            "a new link since {passed} s: {since}"
        );
        println!("{kind}: 200 packets while 3 s busy, 1,000 in 20 s behind another tab: all came");
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_keeps_its_links_where_a_twentieth_gets_lost_and_makes_them_anew_after_a_cut() {
    as_a_member("node-loss", "", |kind, [a, b], host, _, page| {
        let own = name(page)?;
        listen(page, GROUP)?;
        until_wanted(a, GROUP, true)?;
        for host in [&a.host, &b.host, host] {
            host.lose_incoming(5)?;
        }
        a.host.send(GROUP, 500, &["--rate", "50"])?;
        for member in [a, b] {
            let link = link(member, &own)?;
            ensure!(link["since_s"].as_u64() >= Some(10), "{link}");
        }
        let count = page.eval(&REST.replace("COUNT", COUNT))?;
        println!("{kind}: {count} of 500 packets where a twentieth gets lost");
        ensure!(count.as_u64() >= Some(400), "{count}");
        host.cut_uplink()?;
        page.until("document.querySelector('#state').textContent === 'making links'")?;
        host.heal_uplink()?;
        let took = until_links(page, 2)?;
        println!("{kind}: two links {took:?} after the cut");
        Ok(())
    });
}

/// Drops and counts this percentage of the datagrams to a host from now on.
pub(super) fn lose(host: &Host, percent: u8) -> Result<()> {
    // in one transaction: no datagram passes in between
    host.nft(&format!(
        "table inet lost {{ }}
         delete table inet lost
         table inet lost {{
           counter dropped {{ }}
           counter passed {{ }}
           chain incoming {{
             type filter hook input priority -300;
             iifname eth0 meta l4proto udp numgen random mod 100 < {percent} counter name dropped drop
             iifname eth0 meta l4proto udp counter name passed
           }}
         }}"
    ))
}

/// Returns the dropped number, and the total.
pub(super) fn dropped(host: &Host) -> Result<String> {
    let [dropped, passed] = ["dropped", "passed"].map(|name| host.counter("lost", name));
    let (dropped, passed) = (dropped?.packets, passed?.packets);
    Ok(format!("{dropped} of {}", dropped + passed))
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn what_a_page_hears_and_says_comes_where_a_fifth_gets_lost() {
    as_a_member("node-fifth", "", |kind, [a, b], host, _, page| {
        listen(page, GROUP)?;
        until_wanted(a, GROUP, true)?;
        let heard = || {
            let count = page.eval(&REST.replace("COUNT", COUNT))?;
            count.as_u64().context("a number")
        };
        let mut before = 0;
        for (to_page, to_hosts) in [(0, 0), (20, 0), (0, 20), (20, 20)] {
            lose(host, to_page)?;
            for member in [a, b] {
                lose(&member.host, to_hosts)?;
            }
            let args = ["--rate", "50", "--size", "200"];
            a.host.send(GROUP, 500, &args)?;
            let count = heard()?;
            let came = count - before;
            before = count;
            println!(
                "{kind}: {came} of 500 packets heard; dropped to the page {}, to a {}",
                dropped(host)?,
                dropped(&a.host)?
            );
            ensure!(came >= 300, "{came}");
        }
        let listener = b.host.spawn("lcroute", &["listen", MARK])?;
        page.fill("#to", MARK)?;
        say_until_heard(page, "at first", &listener)?;
        for (to_page, to_hosts) in [(20, 0), (0, 20), (20, 20)] {
            lose(host, to_page)?;
            for member in [a, b] {
                lose(&member.host, to_hosts)?;
            }
            let mark = format!("to-page-{to_page}-to-hosts-{to_hosts}-");
            page.eval(&format!(
                    "(async () => {{ for (let n = 0; n < 500; n += 1) {{ \
                       document.querySelector('#words').value = '{mark}' + String(n).padEnd(170, '.'); \
                       document.querySelector('#say').requestSubmit(); \
                       await new Promise((done) => setTimeout(done, 20)); }} return true; }})()"
                ))?;
            let came = listener.stdout().matches(&mark).count();
            println!(
                "{kind}: {came} of 500 packets said; dropped to the page {}, to b {}",
                dropped(host)?,
                dropped(&b.host)?
            );
            ensure!(came >= 300, "{came}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_notices_a_frozen_daemon_and_comes_back_after_a_reload() {
    in_each_browser("node-frozen", |lab, kind| {
        let mut meeting = meeting(lab, &["visitor"], false)?;
        let visitor = &meeting.visitors[0];
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        let page = meeting.join(&browser, visitor, 2)?;
        let frozen = meeting.network.members[1].daemon()?;
        page.until(&some_row(
            "#peers",
            "first === 'b' && second.includes('connected')",
        ))?;
        frozen.signal(Signal::SIGSTOP)?;
        let begun = Instant::now();
        page.until(&format!(
            "!({})",
            some_row("#peers", "first === 'b' && second.includes('connected')")
        ))?;
        println!("{kind}: a frozen daemon shows after {:?}", begun.elapsed());
        frozen.signal(Signal::SIGCONT)?;
        until_links(&page, 2)?;

        let own = name(&page)?;
        let id = |member: &Member| Ok::<_, anyhow::Error>(link(member, &own)?["peer_id"].clone());
        let before = id(&meeting.network.members[0])?;
        page.reload()?;
        println!(
            "{kind}: two links {:?} after a reload",
            until_links(&page, 2)?
        );
        ensure!(name(&page)? == own, "{} is {own} no longer", name(&page)?);
        ensure!(id(&meeting.network.members[0])? == before, "another PeerId");
        let stored = page.eval(
            "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])",
        )?;
        ensure!(!stored.to_string().contains(&meeting.network.token));
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn what_is_wrong_with_a_token_is_said_in_plain_words() {
    in_each_browser("node-tokens", |lab, kind| {
        let meeting = meeting(lab, &["visitor"], false)?;
        let [a, _] = meeting.network.nodes()?;
        let token = &meeting.network.token;
        let visitor = &meeting.visitors[0];
        let server = meeting.network.signalling.url()?;
        let invite = |more: &[&str]| {
            let args = [&["invite", "--signal", &server], more].concat();
            let invited = a.host.run("lcroute", &args)?.success()?.stdout;
            Ok::<_, anyhow::Error>(invited.trim().to_owned())
        };
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        let page = browser.open("node", &format!("{}/node/#{token}", visitor.origin))?;
        page.until("location.href.endsWith('/node/')")?;
        ensure!(page.eval("document.querySelector('#token').value")? == json!(token));

        let short = invite(&["--ttl", "1s"])?;
        let refused = |bad: &str, words: &str| {
            page.eval("document.querySelector('#token-details').open = true, null")?;
            page.fill("#token", bad)?;
            page.until_says("#offer.refused", words)?;
            page.until("document.querySelector('#enter').disabled")
        };
        refused("hello", "none of our links")?;
        refused(&token[..token.len() - 3], "copied whole")?;
        let later = UnixTime::now() + Duration::from_secs(3);
        at_least(later, || Ok(UnixTime::now()))?;
        refused(&short, "This token has expired")?;

        let other = invite(&[])?;
        become_member(&page, &other)?;
        until_links(&page, 2)?;
        page.shot("member")?;
        // a copied tab has the same storage
        let kept = page.eval("sessionStorage.getItem('lcroute visit')")?;
        let copy = browser.open("copy", &format!("{}/node/", visitor.origin))?;
        copy.eval(&format!("sessionStorage.setItem('lcroute visit', {kept})"))?;
        copy.reload()?;
        copy.until_says("#problem", "Another tab is this member already")?;
        copy.inspect("second-tab")?;
        ensure!(page.eval("document.querySelector('#state').textContent")? == "linked to 2 nodes");

        a.host.call(&format!("lcroute revoke --token {other}"))?;
        page.until_says("#problem", "expelled from the network")?;
        // and a later member by that token
        become_member(&copy, &other)?;
        copy.until_says("#problem, #state", "expelled")?;
        become_member(&page, token)?;
        until_links(&page, 2)?;
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_page_whose_udp_is_dropped_is_linked_by_the_relay() {
    in_each_browser("node-relay", |lab, kind| {
        let meeting = meeting(lab, &["visitor"], true)?;
        let [a, _] = meeting.network.nodes()?;
        let visitor = &meeting.visitors[0];
        visitor.host.drop_udp()?;
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        let begun = Instant::now();
        let page = meeting.join(&browser, visitor, 2)?;
        println!(
            "{kind}: two links by the relay {:?} after the page was opened",
            begun.elapsed()
        );
        for peer in ["a", "b"] {
            let row = format!(
                "first === '{peer}' && second.includes('connected') && third.startsWith('by a relay')"
            );
            page.until(&some_row("#peers", &row))?;
        }
        listen(&page, GROUP)?;
        until_wanted(a, GROUP, true)?;
        a.host.send(GROUP, 300, &["--size", "1150"])?;
        page.until(&format!("{COUNT} === 300"))?;
        page.shot("by-the-relay")?;
        meeting.expect_clean(&browser, visitor)
    });
}

/// The text of a door for pasted text.
fn pasted(page: &Page, field: &str, text: &str, words: &str) -> Result<()> {
    page.fill(field, text)?;
    page.until_says("#offer, #link-words", words).map(drop)
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_member_begins_with_what_there_is_for_people() {
    visited("node-start", |kind, meeting, [a, b], visitor| {
        let file = write_chirp(&b.host, 300)?;
        let (key, private, _) = key_of(&b.host, "station.key")?;
        let public = format!("--key {key} --public --name 'Radio <i>Nord</i>' -i lc0");
        let _casts = cast(&b.host, &file, &public)?;
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;

        let page = browser.open("door", &format!("{}/node/", visitor.origin))?;
        page.until("document.activeElement.id === 'token'")?;
        let station = private.encode().to_string();
        for (text, words) in [
            (station.as_str(), "without an invitation to its network"),
            (
                "see http://host.example/node/#lcs1abcdefghij",
                "This is a lecture, without",
            ),
            ("lcg1abcdefghij", "invitation to a conversation"),
            ("lck1abcdefghij", "a shared key"),
            (
                "abandon abandon abandon zoo@a-b.example",
                "somebody sends: files",
            ),
            ("hello", "none of our links"),
        ] {
            pasted(&page, "#token", text, words)?;
        }
        page.shot("refused")?;
        // the inviter, before the user clicks
        let server = meeting.network.signalling.url()?;
        let labels = ["--label", "network=home", "--label", "inviter=ann"];
        let args = [&["invite", "--uses", "1", "--signal", &server][..], &labels].concat();
        let token = a.host.run("lcroute", &args)?.success()?.stdout;
        let link = format!("{}/node/#{}", visitor.origin, token.trim());
        let page = browser.open("invited", &link)?;
        page.until_says("#offer", "ann invites you to the network “home”")?;
        page.until_says("#offer", "for one node")?;
        page.until("document.activeElement.id === 'enter'")?;
        ensure!(page.eval("document.querySelector('#token').checkVisibility()")? == false);
        page.inspect("invited")?;
        page.press("Enter")?;

        until_links(&page, 2)?;
        page.until("document.activeElement.id === 'link'")?;
        page.until_says("#stations b", "Radio <i>Nord</i>")?;
        for name in ["a", "b"] {
            page.until(&format!(
                "[...document.querySelectorAll('#people b')].some((b) => b.textContent === '{name}')"
            ))?;
        }
        page.until_says("#membership", "as long as it is open, and until")?;
        for at in ["#facts", "#map", "#peers", "#carried"] {
            let shows = format!("document.querySelector('{at}').checkVisibility()");
            ensure!(page.eval(&shows)? == false, "{at} is technical");
        }
        ensure!(page.eval("document.body.innerText.includes('12D3KooW')")? == false);
        page.inspect("start")?;
        page.expect_fits_a_phone()?;
        pasted(&page, "#link", token.trim(), "is a member already")?;
        pasted(&page, "#link", "lcg1abcdefghij", "A tab cannot join one")?;

        // one door: the same member listens there, and finds it again here
        pasted(&page, "#link", &station, "This is a radio station.")?;
        page.press("Enter")?;
        page.until("location.pathname === '/radio/'")?;
        page.until_says("#station", "the station of your link")?;
        page.until_says("#state", "linked to 2 nodes")?;
        let page = browser.open("invited", &format!("{}/node/", visitor.origin))?;
        page.until_says("#stations b", "Radio <i>Nord</i>")?;
        page.click("#stations a")?;
        page.until("location.pathname === '/radio/'")?;
        page.until_says("#station", "Radio <i>Nord</i>")?;

        let page = browser.open("invited", &format!("{}/node/", visitor.origin))?;
        until_links(&page, 2)?;
        page.click("#leave")?;
        page.until_says("#notice", "has forgotten its keys")?;
        ensure!(page.eval("sessionStorage.length")? == 0);
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn two_tabs_of_a_browser_are_no_network() {
    in_each_browser("node-alone", |lab, kind| {
        let mut meeting = meeting(lab, &["visitor"], false)?;
        let visitor = &meeting.visitors[0];
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        let page = meeting.join(&browser, visitor, 2)?;
        let link = format!("{}/radio/#{}", visitor.origin, meeting.network.token);
        let radio = browser.open("radio", &link)?;
        radio.click("#enter")?;
        radio.until_says("#state", "linked to 3 nodes")?;
        for member in &mut meeting.network.members {
            member.daemon()?.kill()?;
        }
        for tab in [&page, &radio] {
            tab.until_says("#state", "only this computer: linked to 1 tab")?;
        }
        page.shot("alone")?;
        meeting.network.start_each()?;
        for tab in [&page, &radio] {
            tab.until_says("#state", "linked to 3 nodes")?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn the_entrance_of_the_pages_takes_any_link() {
    visited("node-entrance", |kind, meeting, _, visitor| {
        let token = &meeting.network.token;
        let browser = Browser::start(&visitor.host, kind, Theme::Dark)?;
        let page = browser.open("entrance", &format!("{}/", visitor.origin))?;
        page.until("document.activeElement.id === 'link'")?;
        page.expect_open_to_all()?;
        pasted(&page, "#link", "lcr1abcdefghij", "without an invitation")?;
        page.press("Enter")?;
        ensure!(page.eval("location.pathname")? == "/", "it leads nowhere");
        pasted(
            &page,
            "#link",
            &format!("http://host.example/#{token}"),
            "an invitation",
        )?;
        page.shot("entrance")?;
        page.press("Enter")?;
        page.until("location.pathname === '/node/'")?;
        page.until_says("#offer", "You are invited to a network that meets at")?;
        // the same without a field
        for (hash, path) in [
            (format!("{token},lcs1abcdefghij"), "/studio/"),
            ("lcr1abcdefghij".into(), "/radio/"),
        ] {
            let page = browser.open("other", "about:blank")?;
            page.eval(&format!(
                "location.href = '{}/#{hash}', null",
                visitor.origin
            ))?;
            page.until(&format!("location.pathname === '{path}'"))?;
        }
        let page = browser.open(
            "other",
            &format!("{}/radio/#lcr1abcdefghij", visitor.origin),
        )?;
        page.until_says("#offer.refused", "without an invitation to its network")?;
        page.until("document.activeElement.id === 'token'")?;
        page.inspect("station-alone")?;
        meeting.expect_clean(&browser, visitor)
    });
}
