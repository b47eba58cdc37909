//! Programs on the tests' hosts besides those of the demo; some forge, flood or observe.

mod programs;

use lcroute_demo::multi_call::Applet;

/// The programs, under their names on hosts.
pub const PROGRAMS: [Applet; 13] = [
    ("lcagent", lcagent::main),
    ("lcgroup", lcgroup::main),
    ("lcroute-outside", lcroute_outside::main),
    ("lcroute-reach", lcroute_reach::main),
    ("lcstudio", lcstudio::main),
    ("dht-swarm", programs::dht_swarm),
    ("lcgroup-forge", programs::log_forge),
    ("lcsync-forge", programs::forge),
    ("mc-flap", programs::flap),
    ("mld-flood", programs::mld_flood),
    ("mld-watch", programs::mld_watch),
    ("slow-wire", programs::slow_wire),
    ("udp-flood", programs::flood),
];
