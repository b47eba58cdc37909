//! Nodes' reports of flows: datagrams of a node on the map, and the output for a page.
#![no_main]

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcroute_fuzz::pieces;
use lcroute_node::report::{Report, Said};
use lcroute_node::view::View;
use lcroute_node::{Look, Router};
use libfuzzer_sys::fuzz_target;

fn address(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
}

fuzz_target!(init: lcroute_fuzz::seeds::write("reports"), |data: &[u8]| {
    let router = |n: u16| Router {
        origin: n.into(),
        peer_id: None,
        name: None,
        address: Some(address(n)),
        stub: false,
    };
    let look = Look {
        routers: [1, 2, 3].map(router).into(),
        links: vec![(0, 1, 10), (1, 2, 10)],
        flows: Vec::new(),
        left_out: 0,
    };
    let (mut view, mut now) = (View::default(), Instant::now());
    view.show(&look, now);
    for bytes in pieces(data) {
        let said = Said::decode(bytes);
        now += Duration::from_millis(125);
        assert_eq!(view.take_report(address(2), bytes, now), said.is_ok());
        let Ok(Said::Report(report)) = said else { continue };
        for part in report.encode() {
            assert!(part.len() <= 1_150);
            Report::decode(&part).unwrap();
        }
        for flow in report.rates() {
            assert!(flow.edges.iter().all(|e| e.packets_s.is_finite() && e.bytes_s.is_finite()));
        }
    }
    let shown = view.show(&look, now);
    let edges: usize = shown.flows.iter().map(|flow| flow.edges.len()).sum();
    assert!(shown.flows.len() <= 512 && edges <= 460);
    for flow in &shown.flows {
        assert!(flow.node == 1 && flow.edges.iter().all(|edge| edge.to < 3));
    }
});
