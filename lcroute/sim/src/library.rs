//! Named scenarios.

use crate::scenario::{Certificates, Churn, Event, Links, Scenario, Span, Workload};

/// In seconds.
const DAY: u64 = 86_400;

fn zipf(groups: u32, rate: f64) -> Workload {
    Workload::Zipf {
        groups,
        exponent: 1.0,
        memberships: 3.0,
        lasts: Span::seconds(60),
        filtered: 0.2,
        senders: 2,
        rate,
    }
}

/// Returns all scenarios with their names.
pub fn all() -> Vec<(&'static str, Scenario)> {
    let base = Scenario::default();
    let with = |workloads: Vec<Workload>| Scenario {
        workloads,
        ..base.clone()
    };
    let chat = Workload::Chat {
        rooms: 4,
        members: 8,
        pause: Span::seconds(2),
    };
    let discovery = Workload::Discovery {
        interval: Span::seconds(30),
    };
    let lcsync = Workload::Lcsync {
        servers: 1,
        receivers: 8,
        blocks: 128,
        window: 16,
        block_time: Span::seconds(1),
    };
    let stream = Workload::Stream {
        groups: 1,
        listeners: 0.5,
        period: Span::ms(100),
        source_specific: false,
    };
    let churn = Churn {
        restarts_per_node_hour: 6.0,
        broken_links_per_node_hour: 6.0,
        ..Churn::default()
    };
    vec![
        ("zipf", with(vec![zipf(100, 50.0)])),
        ("lcsync", with(vec![lcsync.clone()])),
        ("chat", with(vec![chat.clone()])),
        ("discovery", with(vec![discovery.clone()])),
        (
            "churn",
            Scenario {
                churn: churn.clone(),
                ..with(vec![zipf(30, 50.0), chat.clone()])
            },
        ),
        (
            "partition",
            Scenario {
                events: vec![Event::Partition {
                    at: Span::seconds(5),
                    share: 0.5,
                    lasts: Span::seconds(30),
                }],
                duration: Span::seconds(70),
                ..with(vec![zipf(30, 50.0), stream.clone()])
            },
        ),
        (
            "mass-death",
            Scenario {
                events: vec![Event::Kill {
                    at: Span::seconds(20),
                    share: 0.2,
                }],
                ..with(vec![zipf(30, 50.0), stream.clone()])
            },
        ),
        (
            "bad-day",
            Scenario {
                churn: Churn {
                    restarts_per_node_hour: 30.0,
                    broken_links_per_node_hour: 30.0,
                    ..churn.clone()
                },
                links: Links {
                    loss: 0.05,
                    ..Links::default()
                },
                events: vec![Event::Partition {
                    at: Span::seconds(10),
                    share: 0.3,
                    lasts: Span::seconds(15),
                }],
                ..with(vec![
                    zipf(30, 50.0),
                    chat.clone(),
                    discovery.clone(),
                    lcsync.clone(),
                ])
            },
        ),
        // whole nodes: which links they make, and how
        (
            "bad-links",
            Scenario {
                whole: true,
                churn: Churn {
                    restarts_per_node_hour: 30.0,
                    broken_links_per_node_hour: 30.0,
                    ..churn.clone()
                },
                links: Links {
                    loss: 0.03,
                    jitter: Span::ms(5),
                    unidirectional: 0.1,
                    behind_nat: 0.5,
                    ..Links::default()
                },
                events: vec![
                    Event::Server {
                        at: Span::seconds(5),
                        lasts: Span::seconds(20),
                    },
                    Event::Partition {
                        at: Span::seconds(30),
                        share: 0.3,
                        lasts: Span::seconds(10),
                    },
                ],
                ..with(vec![chat.clone(), zipf(30, 20.0)])
            },
        ),
        (
            "certificates",
            Scenario {
                whole: true,
                nodes: 8,
                duration: Span::seconds(900),
                certificates: Certificates {
                    valid: Span::seconds(30 * DAY),
                    ..Certificates::default()
                },
                events: vec![
                    Event::Absence {
                        at: Span::seconds(10),
                        share: 0.2,
                        lasts: Span::seconds(840),
                    },
                    Event::Revoke {
                        at: Span::seconds(20),
                        share: 0.2,
                    },
                    // two thirds have passed: all renew within ten minutes; then the first ones end
                    Event::Clocks {
                        at: Span::seconds(30),
                        by: Span::seconds(21 * DAY),
                    },
                    Event::Clocks {
                        at: Span::seconds(800),
                        by: Span::seconds(11 * DAY),
                    },
                ],
                ..with(vec![stream.clone(), chat.clone()])
            },
        ),
        (
            "busy-hour",
            Scenario {
                nodes: 1_000,
                duration: Span::seconds(3_600),
                churn: Churn {
                    restarts_per_node_hour: 0.2,
                    ..Churn::default()
                },
                ..with(vec![zipf(500, 50.0), discovery, chat, lcsync])
            },
        ),
    ]
}

/// Returns the scenario of this name.
pub fn find(name: &str) -> Option<Scenario> {
    let found = all().into_iter().find(|(n, _)| *n == name);
    found.map(|(_, scenario)| scenario)
}
