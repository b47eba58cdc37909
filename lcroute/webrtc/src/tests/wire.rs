//! Differences that an observer sees between our links and a browser's. `chromium.txt` and
//! `firefox.txt` describe captures of Chromium 156.0.8078.108 and Firefox 153.7.0esr (data channel
//! between two connections of one page, IPv4, Debian 12), printed by `examples/wire.rs`. Chromium
//! permutes the extensions of each ClientHello.

mod describe;

use std::collections::BTreeSet;
use std::time::Duration;

use super::net::Net;
use describe::Observer;

const CHROMIUM: &str = include_str!("wire/chromium.txt");
const FIREFOX: &str = include_str!("wire/firefox.txt");
const OURS: &str = include_str!("wire/ours.txt");

/// Beginnings of lines that equal Chromium's. All other lines differ; docs/wire.md lists them.
const AS_CHROMIUM: [&str; 7] = [
    "STUN request",
    "STUN response",
    "ClientHello version fefd, session 0, cookie 0",
    "ClientHello versions",
    "ClientHello compression",
    "ServerHello suite",
    "ServerHello versions",
];

/// Until the link is up, at rest, and while suspecting a dead peer.
const EACH: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(2)];

/// Drops the lengths of USERNAME and message, and nominations, in which Chromium differs.
fn without_what_differs(line: &str) -> String {
    let from = line.find(" NETWORK-INFO").unwrap_or_default();
    line[from..].replace(" USE-CANDIDATE 0", "")
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

/// Returns the lines for the datagrams of a link between two nodes.
fn observed() -> BTreeSet<String> {
    let mut net = Net::mesh(2);
    net.copied = Some(Vec::new());
    net.join_all();
    net.run(EACH[0]);
    assert!(net.linked(0, 1));
    net.kill(1);
    net.run(EACH[1]);
    let mut observer = Observer::default();
    for (node, datagram) in net.copied.take().unwrap() {
        observer.see(node, &datagram);
    }
    observer.lines().iter().cloned().collect()
}

#[test]
fn a_link_shows_what_is_written_of_it_and_nothing_else() {
    let observed = observed();
    let observed: BTreeSet<_> = observed.iter().map(String::as_str).collect();
    let written = lines(OURS);
    let new: Vec<_> = observed.difference(&written).collect();
    let gone: Vec<_> = written.difference(&observed).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}, gone: {gone:#?}"
    );
}

#[test]
fn what_is_as_a_browsers_stays_so() {
    let observed = observed();
    let chromium: BTreeSet<_> = CHROMIUM.lines().map(without_what_differs).collect();
    for beginning in AS_CHROMIUM {
        let mut ours = observed.iter().filter(|line| line.starts_with(beginning));
        let first = ours.next().expect(beginning);
        for line in ours.chain([first]) {
            assert!(
                chromium.contains(&without_what_differs(line)),
                "Chromium shows no {line:?}"
            );
        }
    }
}

#[test]
fn no_certificate_is_seen() {
    assert!(!observed().iter().any(|line| line.contains("in clear")));
}

#[test]
fn the_descriptions_of_browsers_are_whole() {
    for browser in [CHROMIUM, FIREFOX] {
        let lines = lines(browser);
        for beginning in [
            "STUN request",
            "STUN response",
            "ClientHello versions fefc fefd",
            "ServerHello suite 1301",
        ] {
            assert!(
                lines.iter().any(|line| line.starts_with(beginning)),
                "{beginning}"
            );
        }
        assert!(!browser.contains("in clear"), "DTLS 1.3 seals certificates");
    }
}
