//! The whole system in network namespaces. Every test builds its own world, waits for conditions
//! with generous deadlines, and shows all logs on failure.
//!
//! One binary, which bounds the worlds at a time by the machine's capacity; one file per theme.

/// Succeeds if a condition holds, else fails as `ensure!` does: the last expression of a body.
macro_rules! holds {
    ($($condition:tt)*) => {{
        anyhow::ensure!($($condition)*);
        Ok(())
    }};
}

mod asking;
mod bench;
mod browser;
mod chaos;
mod cli;
mod clocks;
mod codes;
mod containers;
mod daemon;
mod deaths;
mod demo;
mod doctor;
mod epochs;
mod foreign;
mod groups;
mod groups_boards;
mod groups_deputies;
mod groups_devices;
mod groups_files;
mod groups_outside;
mod groups_outside_all;
mod groups_people;
mod groups_shared;
mod groups_told;
mod groups_wake;
mod guest;
mod helpers;
mod hidden;
mod hostile_load;
mod interface;
mod ipv4;
mod joining;
mod journal;
mod lan;
mod lan_hosts;
mod lan_interfaces;
mod lan_ipv4;
mod lan_programs;
mod lan_recipe;
mod lcagent;
mod lcagent_ends;
mod lcagent_keys;
mod lcagent_orders;
mod lcsync_devices;
mod lcsync_failures;
mod lcsync_hostile;
mod lcsync_keys;
mod lcsync_lan;
mod lcsync_lc0;
mod lcsync_mld;
mod leaves;
mod library;
mod links;
mod many;
mod matrix;
mod membership;
mod metrics;
mod nat;
mod offload;
mod ordinary_programs;
mod outside;
mod outside_dht;
mod outside_mapped;
mod packets;
mod paths;
mod players;
mod ports;
mod prelude;
mod private;
mod radio;
mod radio_call;
mod radio_files;
mod radio_lan;
mod radio_step;
mod reach;
mod recipes;
mod relay;
mod repair;
mod routing;
mod secrets;
mod segment;
mod segment_programs;
mod signalling;
mod ssm;
mod stations;
mod streams;
mod streams_ends;
mod studio;
mod studio_camera;
mod studio_decks;
mod studio_notes;
mod studio_outside;
mod studio_pictures;
mod studio_screen;
mod the_lab;
mod tor;
mod troubleshooting;
mod uplink;
mod waits;
mod watch;
mod web;

use lcroute_demo::lab::{Host, Lab, Member, Network, Turn};

lcroute_demo::isolate_before_main!();

/// The multi-call binary.
const PROGRAM: &str = env!("CARGO_BIN_EXE_netns-tests");

/// Returns the words of a command line without quotes.
fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// Returns all of these, as many as the caller's pattern has names.
fn all<T, const N: usize>(all: Vec<T>) -> anyhow::Result<[T; N]> {
    <[T; N]>::try_from(all).map_err(|all| anyhow::anyhow!("{} for {N} names", all.len()))
}

/// Returns references to all of these, as many as the caller's pattern has names.
fn each<T, const N: usize>(each: &[T]) -> anyhow::Result<[&T; N]> {
    all(each.iter().collect())
}

/// Writes the same configuration for the daemons of these hosts.
fn configure(hosts: &[Host], content: &str) -> anyhow::Result<()> {
    hosts.iter().try_for_each(|host| host.configure(content))
}

/// Runs a test in its own world.
fn world(name: &str, test: impl FnOnce(&Lab) -> anyhow::Result<()>) {
    let _turn = Turn::wait();
    run(name, test);
}

/// The same, while no other test runs: for tests that need real-time rates.
fn world_alone(name: &str, test: impl FnOnce(&Lab) -> anyhow::Result<()>) {
    let _turn = Turn::alone();
    run(name, test);
}

/// Runs a test of linked members behind closed firewalls.
fn with_members<const N: usize>(
    name: &str,
    names: [&str; N],
    test: impl FnOnce(&Network, [&Member; N]) -> anyhow::Result<()>,
) {
    world(name, |lab| {
        let network = lab.closed_network(names)?;
        test(&network, network.nodes()?)
    });
}

/// Runs a test of hosts on one LAN.
fn on_a_lan<const N: usize>(
    name: &str,
    names: [&str; N],
    test: impl FnOnce([&Host; N]) -> anyhow::Result<()>,
) {
    world(name, |lab| test(each(&lab.lan(&names)?)?));
}

fn run(name: &str, test: impl FnOnce(&Lab) -> anyhow::Result<()>) {
    let programs = [lcroute_lab::programs(), netns_tests::PROGRAMS.to_vec()].concat();
    let names = lcroute_demo::multi_call::names(&programs);
    lcroute_demo::lab::world(name, PROGRAM, &names, test);
}
