//! Expulsions, by each carrier: members find each other again, the expelled node finds none.

use crate::matrix::members_of_a_room;
use crate::prelude::*;
use crate::reach::{by_a_dht, closed_lan, members_without_server, met_by, swarm};

/// Three linked members, the first of which may expel, with the programs beside them.
struct Door {
    /// The only carrier by which they find each other.
    kind: &'static str,
    members: Vec<Member>,
    programs: Vec<Process>,
}

impl Door {
    fn open(kind: &'static str, mut members: Vec<Member>) -> Result<Self> {
        members.iter_mut().try_for_each(Member::start)?;
        let mut door = Self {
            kind,
            members,
            programs: Vec::new(),
        };
        door.start_programs()?;
        for member in &door.members {
            member.wait_links(2)?;
        }
        Ok(door)
    }

    fn start_programs(&mut self) -> Result<()> {
        if self.kind != "lan" {
            let started = self
                .members
                .iter()
                .map(|m| m.host.spawn("lcroute-reach", &[]));
            self.programs = started.collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// The first expels the last; then all hosts lose power.
    fn expel_and_end(&mut self) -> Result<()> {
        let (a, expelled) = (&self.members[0], self.members[2].host.name());
        a.host.run("lcroute", &["revoke", expelled])?.success()?;
        for member in &self.members[..2] {
            wait_epoch(member)?;
        }
        self.programs.clear();
        for member in &mut self.members {
            member.daemon()?.kill()?;
        }
        Ok(())
    }
}

fn wait_epoch(member: &Member) -> Result<()> {
    becomes(1, || Ok(member.status()?["epoch"].clone()))
}

/// Counts packets of another host to the UDP port of this member's links.
fn count_from(member: &mut Member, other: &Host) -> Result<()> {
    let sockets = open_sockets(member.daemon()?.pid())?;
    let mdns = format!(":{:04X}", 5_353);
    let udp = sockets.iter().filter(|s| s.protocol.starts_with("udp"));
    let ports = udp.filter_map(|s| s.local.rsplit_once(':'));
    let ports = ports.filter(|(_, port)| !mdns.ends_with(port));
    let ports: BTreeSet<_> = ports
        .map(|(_, port)| u16::from_str_radix(port, 16))
        .collect::<Result<_, _>>()?;
    ensure!(!ports.is_empty(), "no port for links");
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let (ports, addresses) = (ports.join(", "), other.run("ip", &["-j", "address"])?);
    let addresses: Value = serde_json::from_str(&addresses.success()?.stdout)?;
    let all = addresses.as_array().into_iter().flatten();
    let all = all.flat_map(|interface| interface["addr_info"].as_array().into_iter().flatten());
    let rules = all.filter_map(|info| {
        let family = if info["family"] == "inet" {
            "ip"
        } else {
            "ip6"
        };
        let local = info["local"].as_str()?;
        Some(format!(
            "{family} saddr {local} udp dport {{ {ports} }} counter name expelled\n"
        ))
    });
    let rules: String = rules.collect();
    member.host.nft(&format!(
        "table inet watched {{
          counter expelled {{ }}
          chain input {{ type filter hook input priority -10; policy accept;\n{rules}}}
        }}"
    ))
}

/// Checks the outcome for a carrier; `looked` waits until the expelled node has read everything.
fn the_others_meet_again_and_the_expelled_does_not(
    door: &mut Door,
    looked: impl Fn(&Member) -> Result<()>,
) -> Result<()> {
    let began = Instant::now();
    door.expel_and_end()?;
    // it forgets its expulsion, and restarts with its old state
    let expelled = door.members[2].host.state_dir();
    for name in ["revocations", "epochs"] {
        let removed = fs::remove_file(expelled.join(name));
        removed.or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        })?;
    }
    let (others, last) = door.members.split_at_mut(2);
    let last = last.first_mut().context("who is expelled")?;
    for member in &mut *others {
        // another port, as the expelled node knows the old address
        let file = member.host.path("lcroute.toml");
        let config = fs::read_to_string(&file).unwrap_or_default();
        fs::write(&file, config + "[ice]\nport = 7000\n")?;
        member.start()?;
        count_from(member, &last.host)?;
    }
    last.start()?;
    door.start_programs()?;
    let (others, last) = door.members.split_at(2);
    for member in others {
        member.wait_links(1)?;
        // a request from a known address may be answered before the carrier's
        let by = met_by(member)?;
        ensure!(by == [door.kind] || by == ["straight"], "{by:?}");
    }
    println!("linked again {} ms after", began.elapsed().as_millis());
    looked(&last[0])?;
    for member in others {
        let sent = member.host.counter("watched", "expelled")?;
        ensure!(sent.packets == 0, "it found {}", member.host.name());
    }
    let epoch = &last[0].status()?["epoch"];
    ensure!(*epoch == 0, "{epoch}");
    ensure!(last[0].linked_with()?.is_empty(), "{:?}", last[0].peers()?);
    holds!(!expelled.join("epochs").exists(), "it has a secret")
}

/// Waits until it has failed to open this number of records.
fn opens_not(member: &Member, records: u64) -> Result<()> {
    at_least(records, || member.counter("drops/presence_not_opened"))
}

/// Sets this member's clock to these seconds from the next midnight.
pub(crate) fn set_clock(member: &mut Member, seconds: i64) -> Result<()> {
    const DAY: i64 = 86_400;
    let now = UnixTime::now().as_secs() as i64;
    let offset = DAY - now % DAY + seconds;
    member.host.write("clock-offset", offset.to_string())?;
    member.program = env!("CARGO_BIN_EXE_lcroute-skewed");
    Ok(())
}

/// Names of records change at midnight, at different moments for each.
fn on_a_lan_with_clocks_apart(seconds: i64) {
    world(&format!("epochs-lan-{seconds}"), |lab| {
        let mut members = members_without_server(closed_lan(lab, &["a", "b", "c"])?)?;
        for (member, sign) in members.iter_mut().zip([-1, 1, 1]) {
            set_clock(member, sign * seconds / 2)?;
        }
        let mut door = Door::open("lan", members)?;
        the_others_meet_again_and_the_expelled_does_not(&mut door, |c| opens_not(c, 2))
    });
}

#[test]
fn on_a_lan_with_clocks_90_seconds_apart() {
    on_a_lan_with_clocks_apart(90);
}

#[test]
fn on_a_lan_with_clocks_an_hour_apart() {
    on_a_lan_with_clocks_apart(3_600);
}

#[test]
#[ignore = "`make test-all`: newcomers take turns at a mailbox"]
fn in_a_dht() {
    world("epochs-dht", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let hosts = lab.configured_hosts(&["a", "b", "c"], &by_a_dht(&enters))?;
        let mut door = Door::open("dht", members_without_server(hosts)?)?;
        the_others_meet_again_and_the_expelled_does_not(&mut door, |c| {
            exceeds(0, || Ok(c.peers()?.len()))
        })
    });
}

#[test]
fn in_a_matrix_room() {
    world("epochs-matrix", |lab| {
        let (_serving, members) = members_of_a_room(lab, &["a", "b", "c"])?;
        let mut door = Door::open("matrix", members)?;
        the_others_meet_again_and_the_expelled_does_not(&mut door, |c| opens_not(c, 2))
    });
}

/// Copies a member's state folder to a host, and starts it.
fn copy(member: &Member, to: Host) -> Result<Member> {
    let to_state = to.state_dir();
    fs::create_dir_all(&to_state)?;
    for file in fs::read_dir(member.host.state_dir())? {
        let file = file?;
        fs::copy(file.path(), to_state.join(file.file_name()))?;
    }
    let mut copy = Member::new(to);
    copy.start()?;
    Ok(copy)
}

/// Checks that both report the other and the duplicate key.
fn both_are_told(one: &Member, other: &Member) -> Result<()> {
    for member in [one, other] {
        eventually(&format!("{} is told", member.host.name()), || {
            let conflict = &member.status()?["key_conflict"];
            holds!(
                conflict["addresses"].is_array(),
                "{conflict}, {:?}",
                member.peers()?
            )
        })?;
    }
    Ok(())
}

#[test]
fn a_state_folder_on_two_hosts_of_a_lan_is_told_both() {
    world("copied-lan", |lab| {
        // a closed host refuses another address of a linked peer
        let mut hosts = lab.lan(&["a", "b", "twin"])?;
        let twin = hosts.pop().context("twin")?;
        let mut members = members_without_server(hosts)?;
        members.iter_mut().try_for_each(Member::start)?;
        members[0].wait_links(1)?;
        let twin = copy(&members[1], twin)?;
        both_are_told(&members[1], &twin)?;
        members[0].wait_links(1)
    });
}
