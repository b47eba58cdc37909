//! Hosts with different clocks, in a DHT and a Matrix room: they link, or both report the clock.

use std::os::unix::fs::FileExt;

use crate::epochs::set_clock;
use crate::matrix::members_of_a_room;
use crate::prelude::*;
use crate::reach::{by_a_dht, members_without_server, met_by, swarm};

const HOUR: i64 = 3_600;
/// Noon, in seconds from the next midnight: clocks within half a day show one date.
const NOON: i64 = -12 * HOUR;

/// Starts a program on this host with its daemon's clock.
fn spawn_skewed(host: &Host, program: &str) -> Result<Process> {
    let link = host.path(program);
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lcroute-skewed"), &link)?;
    }
    host.spawn(link.to_str().context("path")?, &[])
}

/// Starts a program with all that it starts in turn, with a clock off by these seconds.
pub(crate) fn spawn_skewed_with(
    host: &Host,
    seconds: i64,
    program: &str,
    args: &[&str],
) -> Result<Process> {
    host.write("clock-offset", seconds.to_string())?;
    let folder = host.path("skewed");
    fs::create_dir_all(&folder)?;
    let skewed = env!("CARGO_BIN_EXE_lcroute-skewed");
    // the programs look for each other beside themselves
    for name in ["lcroute-streams", "lcroute-outside"] {
        fs::copy(skewed, folder.join(name))?;
    }
    host.spawn(folder.join(program).to_str().context("path")?, args)
}

/// Starts two hosts in a room, with clocks at these seconds from the next midnight.
fn in_a_room(lab: &Lab, clocks: [i64; 2]) -> Result<(Vec<Process>, Vec<Member>)> {
    let (serving, members) = members_of_a_room(lab, &["a", "b"])?;
    start(clocks, vec![serving], members)
}

/// The same, in a DHT.
fn in_a_dht(lab: &Lab, clocks: [i64; 2]) -> Result<(Vec<Process>, Vec<Member>)> {
    let (swarm, enters) = swarm(lab)?;
    let hosts = lab.configured_hosts(&["a", "b"], &by_a_dht(&enters))?;
    start(clocks, vec![swarm], members_without_server(hosts)?)
}

fn start(
    clocks: [i64; 2],
    mut programs: Vec<Process>,
    mut members: Vec<Member>,
) -> Result<(Vec<Process>, Vec<Member>)> {
    for (member, seconds) in members.iter_mut().zip(clocks) {
        set_clock(member, seconds)?;
        member.host.write("clock-set", 0_i64.to_ne_bytes())?;
        member.start()?;
        programs.push(spawn_skewed(&member.host, "lcroute-reach")?);
    }
    Ok((programs, members))
}

fn they_link(members: &[Member], door: &str) -> Result<()> {
    for member in members {
        member.wait_links(1)?;
        let by = met_by(member)?;
        ensure!(by == [door] || by == ["straight"], "{by:?}");
    }
    Ok(())
}

/// Waits until a carrier or a refusal reports the clock; checks log and `lcroute doctor`.
fn names_the_clock(member: &mut Member) -> Result<()> {
    const REFUSED: &str = "clock differs by more than a day";
    let name = member.host.name().to_owned();
    within(
        3 * DEADLINE,
        &format!("{name} says that it is the clock"),
        || {
            let peers = format!("{:?}", member.peers()?);
            let doors = member.status()?["doors"].to_string();
            let log = member.daemon()?.stderr();
            ensure!(peers.contains(REFUSED), "{peers} {doors}");
            ensure!(log.contains(REFUSED), "{log}");
            let doctor = member.host.ask("lcroute", &["doctor"])?.stdout;
            holds!(doctor.contains(REFUSED), "{doctor}")
        },
    )
}

/// Corrects a clock without a restart.
fn set_right(member: &Member, behind: i64) -> Result<()> {
    let file = fs::File::options()
        .write(true)
        .open(member.host.path("clock-set"))?;
    // in place, because the file is mapped
    Ok(file.write_all_at(&behind.to_ne_bytes(), 0)?)
}

/// Checks that they have no link while clocks are 26 hours apart, and one after a correction.
fn link_once_it_is_set(members: &[Member], door: &str) -> Result<()> {
    for member in members {
        member.wait_links(0)?;
    }
    set_right(&members[1], -26 * HOUR)?;
    within(4 * DEADLINE, "they link", || {
        for member in members {
            let linked = member.linked_with()?.len();
            ensure!(linked == 1, "{:?}", member.peers()?);
        }
        Ok(())
    })?;
    they_link(members, door)
}

#[test]
fn clocks_90_seconds_apart_around_midnight_link_in_a_room() {
    world("clocks-matrix-90", |lab| {
        let (_programs, members) = in_a_room(lab, [-45, 45])?;
        they_link(&members, "matrix")
    });
}

#[test]
fn clocks_10_minutes_apart_around_midnight_link_in_a_room() {
    world("clocks-matrix-600", |lab| {
        let (_programs, members) = in_a_room(lab, [300, -300])?;
        they_link(&members, "matrix")
    });
}

#[test]
#[ignore = "`make test-all`: half a minute"]
fn in_a_room_clocks_26_hours_apart_are_named_by_both_until_they_are_set() {
    world("clocks-matrix-26", |lab| {
        let (_programs, mut members) = in_a_room(lab, [NOON, NOON + 26 * HOUR])?;
        members.iter_mut().try_for_each(names_the_clock)?;
        let note = members[1].status()?["doors"].to_string();
        ensure!(note.contains("ahead of the homeserver's"), "{note}");
        link_once_it_is_set(&members, "matrix")
    });
}

#[test]
#[ignore = "`make test-all`: newcomers take turns at a mailbox"]
fn clocks_90_seconds_apart_around_midnight_link_by_a_dht() {
    world("clocks-dht-90", |lab| {
        let (_programs, members) = in_a_dht(lab, [-45, 45])?;
        they_link(&members, "dht")
    });
}

#[test]
#[ignore = "`make test-all`: newcomers take turns at a mailbox"]
fn clocks_10_minutes_apart_around_midnight_link_by_a_dht() {
    world("clocks-dht-600", |lab| {
        let (_programs, members) = in_a_dht(lab, [300, -300])?;
        they_link(&members, "dht")
    });
}

#[test]
#[ignore = "`make test-all`: minutes"]
fn in_a_dht_a_clock_26_hours_off_is_named_by_the_newcomer_until_it_is_set() {
    world("clocks-dht-26", |lab| {
        let (_programs, mut members) = in_a_dht(lab, [NOON, NOON + 26 * HOUR])?;
        // its issuer does not find the new member's mailbox of another day
        names_the_clock(&mut members[1])?;
        link_once_it_is_set(&members, "dht")
    });
}
