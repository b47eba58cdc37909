//! Nodes of different versions: no link, and a reason on both sides.

use std::time::Duration;

use super::net::{Net, Network, today};
use lcroute_overlay::{PeerState, Versions};
use librecast::id::SecretKey;

const LONG: Duration = Duration::from_secs(60);

const OLDER_CONTROL: &str = "speaks another version of lcroute (control 3 or earlier, here 4)";
const NEWER_CONTROL: &str = "speaks another version of lcroute (control 5 or later, here 4)";
const OLDER_SIGNAL: &str = "speaks another version of lcroute (signalling 1, here 2)";
const NEWER_SIGNAL: &str = "speaks another version of lcroute (signalling 3 or later, here 2)";

/// Makes a current node, and one with other versions; `wants`: each wants a link.
fn meet(signal: u8, control: u8, wants: [bool; 2]) -> Net {
    let mut net = Net::new();
    net.all_wanted = false;
    let network = Network::new(1);
    net.add(
        &network.identity(SecretKey::from_seed(&[1; 32]), "today"),
        today,
        None,
    );
    let other = network.identity(SecretKey::from_seed(&[2; 32]), "other");
    let other = other.speaking(Versions { signal, control });
    net.add(&other, today, None);
    for n in [0, 1] {
        let peer = net.nodes[1 - n].id;
        net.want(n, peer, wants[n]);
    }
    net.join_all();
    net.run(LONG);
    net
}

fn reasons(net: &Net) -> [Option<&'static str>; 2] {
    [0, 1].map(|n| {
        let row = net.row(n, 1 - n)?;
        assert_eq!(row.state, PeerState::Refused);
        row.reason
    })
}

#[test]
fn another_version_of_control_messages_makes_no_link_and_both_sides_say_so() {
    for wants in [[true; 2], [true, false], [false, true]] {
        for (control, here, there) in [
            (3, OLDER_CONTROL, NEWER_CONTROL),
            (5, NEWER_CONTROL, OLDER_CONTROL),
        ] {
            let net = meet(2, control, wants);
            assert_eq!(reasons(&net), [Some(here), Some(there)], "{wants:?}");
            assert!(net.nodes.iter().all(|n| n.sent == 0), "no ICE state");
            assert!(net.nodes[0].overlay.drops()["control_version"] > 0);
            assert!(net.carried.len() < 40, "{}", net.carried.len());
        }
    }
}

#[test]
fn another_version_of_signalling_makes_no_link_and_whoever_hears_of_it_says_so() {
    for (signal, here, there) in [
        (1, OLDER_SIGNAL, NEWER_SIGNAL),
        (3, NEWER_SIGNAL, OLDER_SIGNAL),
    ] {
        let net = meet(signal, 4, [true; 2]);
        assert_eq!(reasons(&net), [Some(here), Some(there)]);
        assert!(net.nodes[0].overlay.drops()["signal_version"] > 0);
    }
}

#[test]
fn a_control_channel_of_another_version_ends_the_link() {
    for (control, reason) in [(3, OLDER_CONTROL), (5, NEWER_CONTROL)] {
        let mut net = Net::mesh(2);
        // the offerer's channel does not match its signalling
        net.webrtc(0).speak(control);
        net.join_all();
        net.run(Duration::from_secs(5));
        assert_eq!(net.nodes[0].ups + net.nodes[1].ups, 0);
        let row = net.row(1, 0).unwrap();
        assert_eq!((row.state, row.reason), (PeerState::Refused, Some(reason)));
    }
}

#[test]
fn who_comes_back_with_our_version_gets_its_link() {
    let mut net = meet(2, 5, [true; 2]);
    let network = Network::new(1);
    net.restart(
        1,
        &network.identity(SecretKey::from_seed(&[2; 32]), "again"),
    );
    net.until(Duration::from_secs(5), "link", |net| net.linked(0, 1));
}
