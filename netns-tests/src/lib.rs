//! What runs on hosts of the tests besides what the demo needs: the other programs, and some that lie, flood or look on.

mod programs;

use lcroute_lab::Applet;

/// The programs, found by hosts under these names.
pub const PROGRAMS: [Applet; 11] = [
    ("lcagent", lcagent::main),
    ("lcgroup", lcgroup::main),
    ("lcroute-reach", lcroute_reach::main),
    ("lcstudio", lcstudio::main),
    ("dht-swarm", programs::dht_swarm),
    ("lcgroup-forge", programs::log_forge),
    ("lcsync-forge", programs::forge),
    ("mc-flap", programs::flap),
    ("mld-flood", programs::mld_flood),
    ("mld-watch", programs::mld_watch),
    ("udp-flood", programs::flood),
];
