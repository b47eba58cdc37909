//! Networks in which packets travel several hops: delivery, healing, admission.

use crate::lcsync_lan::share;
use crate::prelude::*;

const GROUP: &str = "ff1e::42";
const NOT_REACHABLE: i32 = 3;

// ---------------------------------------------------------------- healing

/// A network with few links in which `listeners` receive a sender over other nodes.
struct Meshwork {
    network: Network,
    /// Listeners' positions, and their programs.
    listeners: Vec<(usize, Receiver)>,
    _sender: Process,
}

/// The failure of a router.
#[derive(Clone, Copy)]
enum End {
    /// The daemon ends; its host sends errors.
    Killed,
    /// The cable is cut: no message at all.
    CutOff,
    /// The daemon gets no CPU time; the signalling server still shows it.
    Frozen,
}

/// The first sends, the next twelve listen, the last only route.
const NODES: usize = 16;
const LISTENERS: std::ops::RangeInclusive<usize> = 1..=12;
const ROUTERS: std::ops::Range<usize> = 13..NODES;

impl Meshwork {
    fn new(lab: &Lab) -> Result<Meshwork> {
        let names: Vec<String> = (0..NODES).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut network = lab.network(
            lab.configured_hosts(&names, "[topology]\npolicy = \"regular\"\ndegree = 3\n")?,
        )?;
        network.start_routed()?;
        let mut listeners = Vec::new();
        for at in LISTENERS {
            listeners.push((at, network.members[at].host.receive(GROUP, &[])?));
        }
        let host = &network.members[0].host;
        let forever = "1000000000";
        let args = [GROUP, "--count", forever, "--rate", "100", "--size", "200"];
        let sender = host.spawn("mc-send", &args)?;
        let meshwork = Meshwork {
            network,
            listeners,
            _sender: sender,
        };
        meshwork.all_hear("in the beginning", &[])?;
        Ok(meshwork)
    }

    fn all_hear(&self, when: &str, but: &[usize]) -> Result<()> {
        let mut listeners = self.listeners.iter().filter(|(at, _)| !but.contains(at));
        listeners.try_for_each(|(at, receiver)| {
            receiver.expect_more(&format!("n{at} hears the sender {when}"))
        })
    }

    /// Makes these fail; returns the longest pause of each listener after that, in milliseconds.
    fn lose(&mut self, victims: &[usize], end: End) -> Result<Vec<f64>> {
        let before: Vec<usize> = self
            .listeners
            .iter()
            .map(|(_, receiver)| Ok(receiver.pauses()?.len()))
            .collect::<Result<_>>()?;
        for victim in victims {
            let member = &mut self.network.members[*victim];
            match end {
                End::Killed => member.daemon()?.kill()?,
                End::CutOff => member.host.cut_uplink()?,
                End::Frozen => member.daemon()?.signal(Signal::SIGSTOP)?,
            }
        }
        let alive = self.network.members.iter().enumerate();
        let alive = alive.filter(|(at, _)| !victims.contains(at));
        wait_reach(&alive.map(|(_, member)| member).collect::<Vec<_>>())?;
        self.all_hear("after the deaths", victims)?;
        let mut gaps = Vec::new();
        for ((_, receiver), before) in self.listeners.iter().zip(before) {
            receiver.expect_no_duplicates()?;
            let pauses = receiver.pauses()?;
            gaps.push(pauses[before..].iter().copied().fold(0.0, f64::max));
        }
        Ok(gaps)
    }
}

#[test]
fn listeners_hear_on_when_three_routers_are_killed() {
    world("healing", |lab| {
        let mut meshwork = Meshwork::new(lab)?;
        for member in &meshwork.network.members {
            let links = member.linked_with()?.len();
            ensure!(links < NODES - 1, "{links} links: a full mesh");
        }
        let victims: Vec<usize> = ROUTERS.collect();
        let mut gaps = meshwork.lose(&victims, End::Killed)?;
        println!("healing: {}", summary(&mut gaps));
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn listeners_hear_on_when_the_cables_of_three_routers_are_cut_and_mended() {
    world("cables", |lab| {
        let mut meshwork = Meshwork::new(lab)?;
        let victims: Vec<usize> = ROUTERS.collect();
        let mut gaps = meshwork.lose(&victims, End::CutOff)?;
        println!("healing: {}", summary(&mut gaps));
        // they return with their old state
        for victim in victims {
            meshwork.network.members[victim].host.heal_uplink()?;
        }
        wait_reach(&meshwork.network.members.iter().collect::<Vec<_>>())?;
        meshwork.all_hear("when all are back", &[])?;
        let mut listeners = meshwork.listeners.iter();
        listeners.try_for_each(|(_, receiver)| receiver.expect_no_duplicates())
    });
}

/// All neighbours of the sender freeze, while other nodes and the signalling server stay reachable.
/// A link attempt fails after ten seconds; the sender does not wait for that.
#[test]
fn who_loses_all_neighbours_at_once_finds_others() {
    world("all-neighbours", |lab| {
        let mut meshwork = Meshwork::new(lab)?;
        let neighbors = meshwork.network.members[0].linked_with()?;
        let mut victims = Vec::new();
        for (at, member) in meshwork.network.members.iter().enumerate() {
            if neighbors.contains(&member.peer_id()?) {
                victims.push(at);
            }
        }
        ensure!((3..12).contains(&victims.len()), "{victims:?}");
        let mut gaps = meshwork.lose(&victims, End::Frozen)?;
        println!("all neighbours lost: {}", summary(&mut gaps));
        // of remaining listeners; the frozen ones receive nothing more
        let longest = gaps.iter().copied().fold(0.0, f64::max);
        holds!(longest < 8_000.0, "{longest} ms of silence")
    });
}

/// Figures for docs/routing-measured.md, on a release build: three of the routers and listeners are
/// killed, `ROUNDS` times. With `CUT=1` their cables are cut instead.
#[test]
#[ignore = "a measurement"]
fn healing_measured() {
    world("healing-measured", |lab| {
        let rounds = std::env::var("ROUNDS").unwrap_or_default();
        let rounds = rounds.parse().unwrap_or(10);
        let cut = std::env::var("CUT").is_ok_and(|cut| cut == "1");
        let end = if cut { End::CutOff } else { End::Killed };
        let mut meshwork = Meshwork::new(lab)?;
        let mut all = Vec::new();
        for round in 0..rounds {
            // a killed node's listener runs all the time: its own gap is meaningless
            let victims = [1 + round % 15, 1 + (round + 5) % 15, 1 + (round + 10) % 15];
            let gaps = meshwork.lose(&victims, end)?;
            let others = meshwork.listeners.iter().zip(gaps);
            let others = others.filter(|((at, _), _)| !victims.contains(at));
            let mut gaps: Vec<f64> = others.map(|(_, gap)| gap).collect();
            println!("lost {victims:?}: {}", summary(&mut gaps));
            all.extend(gaps);
            for victim in victims {
                let member = &mut meshwork.network.members[victim];
                match end {
                    End::Killed => member.start()?,
                    End::CutOff => member.host.heal_uplink()?,
                    End::Frozen => member.daemon()?.signal(Signal::SIGCONT)?,
                }
            }
            wait_reach(&meshwork.network.members.iter().collect::<Vec<_>>())?;
            meshwork.all_hear("after they came back", &[])?;
        }
        println!("all rounds: {}", summary(&mut all));
        Ok(())
    });
}

/// Returns median, p99 and longest of the affected listeners, with pauses of at least 100 ms.
pub(crate) fn summary(gaps: &mut [f64]) -> String {
    gaps.sort_by(f64::total_cmp);
    let hit: Vec<f64> = gaps.iter().copied().filter(|gap| *gap > 0.0).collect();
    let quantile = |part: f64| {
        let at = (hit.len() as f64 * part).ceil() as usize;
        hit.get(at.saturating_sub(1)).copied().unwrap_or_default()
    };
    let (hit, of) = (hit.len(), gaps.len());
    let [median, p99, longest] = [0.5, 0.99, 1.0].map(quantile);
    format!("{hit} of {of} hit: median {median:.0} ms, p99 {p99:.0} ms, longest {longest:.0} ms")
}

/// Nodes of a mesh, of a network beyond a mesh, and most links of each node in the latter: its own
/// four, and those that neighbours request.
const SMALL: usize = 8;
const GROWN: usize = 11;
const MOST_LINKS: usize = 6;

#[test]
#[ignore = "long: `make test-all`"]
fn a_mesh_that_grows_gives_up_links_and_loses_no_packet() {
    world("growth", |lab| {
        let names: Vec<String> = (0..GROWN).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut network = lab.network(lab.configured_hosts(&names, "[topology]\ndegree = 4\n")?)?;
        let start = |members: &mut [Member]| members.iter_mut().try_for_each(Member::start);
        start(&mut network.members[..SMALL])?;
        let members = &network.members[..SMALL];
        let wait = |member: &Member| member.wait_links(SMALL - 1);
        members.iter().try_for_each(wait)?;
        wait_reach(&members.iter().collect::<Vec<_>>())?;

        // a program on the sender's host receives everything that was sent
        let truth = members[0].host.receive(GROUP, &[])?;
        let listening = |n: usize| members[n].host.receive(GROUP, &[]);
        let listeners = [2, 4, 7].map(listening);
        let listeners = listeners.into_iter().collect::<Result<Vec<_>>>()?;
        for n in [2, 4, 7] {
            members[0].wait_wanted(GROUP, &members[n])?;
        }
        let mut sender = members[0].host.send_for_ever(GROUP)?;
        start(&mut network.members[SMALL..])?;
        wait_reach(&network.members.iter().collect::<Vec<_>>())?;
        // an unneeded link is unused after 20 s, and closed after 30
        within(DEADLINE * 2, "nobody has more links than needed", || {
            for member in &network.members {
                let links = member.linked_with()?.len();
                let name = member.host.name();
                ensure!((2..=MOST_LINKS).contains(&links), "{name} has {links}");
            }
            Ok(())
        })?;
        wait_reach(&network.members.iter().collect::<Vec<_>>())?;
        truth.expect_more("the sender goes on")?;
        sender.kill()?;
        eventually("all listeners have all that was sent", || {
            let sent = truth.packets()?;
            listeners.iter().try_for_each(|l| {
                let state = l.state()?;
                ensure!(state["unique"] == sent, "{sent} were sent: {state}");
                l.expect_no_duplicates()
            })
        })
    });
}

#[test]
fn two_halves_part_and_meet_again() {
    world("halves", |lab| {
        let mut network =
            lab.network(lab.hosts_in_a_row(&["a1", "a2", "a3", "b1", "b2", "b3"])?)?;
        network.start_routed()?;
        let [a1, a2, a3, b1, b2, b3] = network.nodes()?;
        let at_a2 = a2.host.receive(GROUP, &[])?;
        let at_b2 = b2.host.receive(GROUP, &[])?;
        let _sender = a1.host.send_for_ever(GROUP)?;
        at_a2.expect_more("a2 hears a1")?;
        at_b2.expect_more("b2 hears a1")?;

        // the second half is alone, without the signalling server
        let signalling = &network.signalling.host;
        for b in [b1, b2, b3] {
            b.host
                .part_from([&a1.host, &a2.host, &a3.host, signalling])?;
        }
        wait_reach(&[a1, a2, a3])?;
        wait_reach(&[b1, b2, b3])?;
        at_a2.expect_more("a2 goes on hearing a1")?;
        let cut_off = at_b2.packets()?;

        // each half continues: new listeners, new senders, a listener that leaves
        let at_a3 = a3.host.receive(GROUP, &[])?;
        let at_b3 = b3.host.receive(GROUP, &[])?;
        let other_at_b1 = b1.host.receive("ff1e::43", &[])?;
        let other_at_a2 = a2.host.receive("ff1e::43", &[])?;
        let _sender_b = b1.host.send_for_ever(GROUP)?;
        at_b3.expect_more("b3 hears b1")?;
        at_b2.expect_more("b2 hears b1")?;
        at_a3.expect_more("a3 hears a1")?;
        let from_a1 = |receiver: &Receiver| {
            let address = a1.address()?.to_string();
            Ok::<u64, anyhow::Error>(receiver.state()?["senders"][address].as_u64().unwrap_or(0))
        };
        ensure!(from_a1(&at_b3)? == 0, "b3 hears a1 through the cut");
        ensure!(from_a1(&at_b2)? <= cut_off, "b2 hears a1 through the cut");

        for b in [b1, b2, b3] {
            b.host.rejoin()?;
        }
        wait_reach(&[a1, a2, a3, b1, b2, b3])?;
        for receiver in [&at_b2, &at_b3] {
            let before = from_a1(receiver)?;
            exceeds(before, || from_a1(receiver))?;
        }
        let from_b1 = b1.address()?.to_string();
        for (name, receiver) in [("a2", &at_a2), ("a3", &at_a3)] {
            eventually(&format!("{name} hears b1"), || {
                let state = receiver.state()?;
                holds!(state["senders"][&from_b1].as_u64() > Some(0), "{state}")
            })?;
        }
        // a group with listeners joined in both halves during the partition
        a3.host.send("ff1e::43", 200, &[])?;
        other_at_a2.expect_exactly(200)?;
        other_at_b1.expect_exactly(200)?;
        for receiver in [&at_a2, &at_a3, &at_b2, &at_b3] {
            receiver.expect_no_duplicates()?;
        }
        Ok(())
    });
}

#[test]
fn a_router_that_is_killed_and_comes_back_goes_on_routing_and_sending() {
    world("router-back", |lab| {
        let mut network = lab.network(lab.hosts_in_a_row(&["a", "r", "b"])?)?;
        network.start_routed()?;
        let at_b = network.members[2].host.receive(GROUP, &[])?;
        let own_at_b = network.members[2].host.receive("ff1e::43", &[])?;
        let _through = network.members[0].host.send_for_ever(GROUP)?;
        let _from = network.members[1].host.send_for_ever("ff1e::43")?;
        at_b.expect_more("b hears a over r")?;
        own_at_b.expect_more("b hears r")?;
        for _ in 0..2 {
            network.members[1].daemon()?.kill()?;
            network.members[1].start()?;
            at_b.expect_more("b hears a over r again")?;
            own_at_b.expect_more("b hears r again")?;
        }
        at_b.expect_no_duplicates()?;
        own_at_b.expect_no_duplicates()?;
        let [a, _, b] = network.nodes()?;
        becomes(Some(2), || a.hops(b))
    });
}

#[test]
fn a_network_outlives_its_signalling_server_and_makes_new_links_over_itself() {
    world("over-itself", |lab| {
        let mut network = lab.network(lab.configured_hosts(
            &["a", "b", "c", "d", "e", "f"],
            "[topology]\npolicy = \"regular\"\ndegree = 3\n",
        )?)?;
        network.start_routed()?;
        let receiver = network.members[1].host.receive(GROUP, &[])?;
        let _sender = network.members[0].host.send_for_ever(GROUP)?;
        receiver.expect_more("b hears a")?;
        network.signalling.kill()?;
        // After each failure the neighbours make new links. With three links each, or all that are
        // possible, no graph of this size is partitioned by the next failure.
        for left in (3..=6).rev() {
            let alive: Vec<&Member> = network.members[..left].iter().collect();
            wait_reach(&alive)?;
            eventually("all have three links", || {
                for member in &alive {
                    let links = member.linked_with()?.len();
                    let name = member.host.name();
                    ensure!(links >= 3.min(left - 1), "{name} of {left}: {links}");
                }
                Ok(())
            })?;
            receiver.expect_more("b hears a")?;
            network.members[left - 1].daemon()?.kill()?;
        }
        receiver.expect_no_duplicates()
    });
}

// ---------------------------------------------------------------- bad days

#[test]
fn clocks_that_differ_by_hours_do_not_matter() {
    world("clocks", |lab| {
        let mut network = lab.network(lab.hosts_in_a_row(&["a", "r", "b"])?)?;
        for (member, hours) in network.members.iter_mut().zip([0, 7, -9]) {
            let offset = (hours * 3_600).to_string();
            member.host.write("clock-offset", &offset)?;
            member.program = env!("CARGO_BIN_EXE_lcroute-skewed");
        }
        network.start_routed()?;
        let [a, r, b] = network.nodes()?;
        let at_b = b.host.receive(GROUP, &[])?;
        let at_a = a.host.receive("ff1e::43", &[])?;
        a.wait_wanted(GROUP, r)?;
        b.wait_wanted("ff1e::43", r)?;
        a.host.send(GROUP, 200, &[])?;
        b.host.send("ff1e::43", 200, &[])?;
        at_b.expect_exactly(200)?;
        at_a.expect_exactly(200)?;
        // the clocks were really wrong: each logged in another hour
        let hours = network.members.iter_mut().map(|member| {
            let log = member.daemon()?.stderr();
            let hour = log.get(.."2026-01-01T00".len()).map(str::to_owned);
            hour.context("an empty log")
        });
        let hours = hours.collect::<Result<BTreeSet<_>>>()?;
        holds!(hours.len() == 3, "{hours:?}")
    });
}

#[test]
fn a_link_that_loses_a_fifth_each_way_stays_up() {
    world("fifth", |lab| {
        let network = lab.network(lab.hosts_in_a_row(&["a", "r", "b"])?);
        let mut network = network?;
        network.start_routed()?;
        let [a, r, b] = network.nodes()?;
        let receiver = b.host.receive(GROUP, &[])?;
        a.wait_wanted(GROUP, r)?;
        b.host.set_loss(UPLINK, 20)?;
        // 0.9 s of silence occurred once in seven runs, cause unknown; simulation is stricter
        let mut expected = 0;
        let mut stayed = false;
        for _ in 0..3 {
            let [before_a, before_b] = [since(a)?, since(b)?];
            let sent = 400;
            a.host.send(GROUP, sent, &["--rate", "50"])?;
            expected += sent * 7 / 10;
            wait_reach(&[a, r, b])?;
            stayed = since(a)? >= before_a + 7 && since(b)? >= before_b + 7;
            if stayed {
                break;
            }
        }
        ensure!(stayed, "a link went down");
        let got = receiver.packets()?;
        ensure!(got > expected, "{got} of at least {expected}");
        receiver.expect_no_duplicates()?;
        Ok(())
    });
}

/// Returns the age of a member's only link, in seconds.
fn since(member: &Member) -> Result<u64> {
    let peers = member.peers()?;
    let mut up = peers.iter().filter(|peer| peer["state"] == "connected");
    let link = up.next().with_context(|| format!("no link: {peers:?}"))?;
    let since = link["since_s"].as_u64();
    since.with_context(|| format!("no since_s: {link}"))
}

#[test]
fn a_neighbour_that_joins_thousands_of_groups_harms_nobody() {
    world("crowd", |lab| {
        let mut network = lab.network(lab.hosts_in_a_row(&["a", "b", "mallory"])?)?;
        network.start_routed()?;
        let [a, b, mallory] = network.nodes()?;
        let receiver = a.known_receiver(b, GROUP, &[])?;
        let stream = ["--rate", "500", "--size", "200"];
        let mut crowd = Vec::new();
        for n in 0..9 {
            // 18,000 groups exceed the limit of a node
            let first = format!("ff1e:bad:{n}::1:0");
            let args = [&first, "--groups", "2000"];
            crowd.push(mallory.host.spawn("mc-recv", &args)?);
            if n == 2 {
                // during the joins
                a.host.send(GROUP, 1_000, &stream)?;
            }
        }
        exceeds(0, || mallory.counter("drops/group_limit"))?;
        a.host.send(GROUP, 1_000, &stream)?;
        // where all processors are busy with joins, packets wait too long in a queue (50 ms are 25)
        receiver.expect(1_940)?;
        // joins of other nodes pass
        b.reaches(a, "ff1e::43", 100)?;
        // after its end none of its groups remain
        crowd.iter_mut().try_for_each(|process| process.kill())?;
        eventually("the crowd's groups are gone", || {
            for member in [a, b] {
                let groups = member.groups()?;
                ensure!(groups.len() < 10, "{} groups", groups.len());
            }
            Ok(())
        })
    });
}

#[test]
fn a_hundred_joins_and_leaves_a_second_harm_nobody() {
    world("flapping", |lab| {
        let mut network = lab.network(lab.hosts_in_a_row(&["a", "r", "b"])?)?;
        network.start_routed()?;
        let [a, r, b] = network.nodes()?;
        let at_r = a.known_receiver(r, GROUP, &[])?;
        let mut flapping = b.host.spawn("mc-flap", &[GROUP, "--seconds", "3"])?;
        a.host
            .send(GROUP, 1_500, &["--rate", "500", "--size", "200"])?;
        at_r.expect_exactly(1_500)?;
        let code = flapping.wait(Duration::from_secs(20))?;
        let said = flapping.stdout();
        ensure!(code == 0 && said.contains("joins"), "{said}");
        // the last message counts
        eventually("b has left", || {
            let groups = b.groups()?;
            holds!(groups.iter().all(|g| g["local"] == false), "{groups:?}")
        })?;
        let at_b = r.known_receiver(b, GROUP, &[])?;
        a.host.send(GROUP, 100, &[])?;
        at_b.expect_exactly(100)?;
        at_r.expect_exactly(1_600)
    });
}

#[test]
fn an_announcement_outside_the_certificate_is_named_and_not_made() {
    world("presumption", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
        let host = lab.closed_hosts(&["c"])?.remove(0);
        let url = network.signalling.url()?;
        let invite = ["invite", "--prefix", "ff1e:1::/32", "--signal", &url];
        let token = network.members[0].host.run("lcroute", &invite)?.success()?;
        let join = ["join", token.stdout.trim(), "--name", "c"];
        host.run("lcroute", &join)?.success()?;
        host.configure("[network]\nannounce = [\"ff1e:1::/32\", \"ff1e:2::/32\"]\n")?;
        network.members.push(Member::new(host));
        network.start()?;
        let log = network.members[2].daemon()?.stderr();
        let warning = "certificate does not permit ff1e:2::/32";
        ensure!(log.contains(warning), "no warning: {log}");
        let [a, b, _] = network.nodes()?;
        // the groups are carried as before
        for group in ["ff1e:1::1", "ff1e:2::1"] {
            let receiver = b.host.receive(group, &[])?;
            wait_listener(a, group)?;
            a.host.send(group, 100, &[])?;
            receiver.expect_exactly(100)?;
        }
        // a missing root does no harm
        network.members[2].stop()?;
        let [a, b, _] = network.nodes()?;
        wait_reach(&[a, b])?;
        a.reaches(b, "ff1e:2::2", 100)
    });
}

#[test]
fn the_expelled_do_not_come_back() {
    world("expelled", |lab| {
        let mut network = lab.closed_network(["a", "b", "c"])?;
        {
            let [a, b, c] = network.nodes()?;
            let at_c = c.host.receive(GROUP, &[])?;
            let _sender = a.host.send_for_ever(GROUP)?;
            at_c.expect_more("c hears a")?;
            let id = c.peer_id()?;
            a.host.call("lcroute revoke c")?;
            wait_out(&[a, b], &id)?;
            c.wait_links(0)?;
            let at_b = b.host.receive(GROUP, &[])?;
            at_b.expect_more("b hears a")?;
            let heard = at_c.packets()?;
            at_b.expect_more("b hears a")?;
            ensure!(at_c.packets()? == heard, "c hears a still");
        }
        // it restarts with its old state; then the other nodes do
        network.members[2].daemon()?.kill()?;
        network.members[2].start()?;
        let id = network.members[2].peer_id()?;
        for number in [1, 0] {
            network.members[number].daemon()?.kill()?;
            network.members[number].start()?;
        }
        let [a, b, c] = network.nodes()?;
        let receiver = b.host.receive("ff1e::43", &[])?;
        let at_c = c.host.receive("ff1e::43", &[])?;
        a.wait_wanted("ff1e::43", b)?;
        // c had time to try while these two found each other
        eventually("c has tried and was refused", || {
            let name = "drops/certificate_revoked";
            let counted = a.counter(name)? + b.counter(name)?;
            holds!(counted > 0, "{}", a.status()?)
        })?;
        a.host.send("ff1e::43", 200, &[])?;
        receiver.expect_exactly(200)?;
        wait_out(&[a, b], &id)?;
        ensure!(c.linked_with()?.is_empty(), "c has links");
        holds!(at_c.packets()? == 0, "c has heard something")
    });
}

/// Waits until `member` knows a listener of `group`, over any link.
fn wait_listener(member: &Member, group: &str) -> Result<()> {
    let what = format!("{} knows a listener of {group}", member.host.name());
    eventually(&what, || {
        let groups = member.groups()?;
        let mut wanted = groups.iter().filter(|g| g["group"] == *group);
        let links = wanted.next().and_then(|g| g["links"].as_array());
        holds!(links.is_some_and(|l| !l.is_empty()), "{groups:?}")
    })
}

/// Waits until none of `members` has a link with, or a route to, `peer`.
fn wait_out(members: &[&Member], peer: &str) -> Result<()> {
    for member in members {
        eventually(&format!("{} has dropped it", member.host.name()), || {
            ensure!(!member.linked_with()?.contains(&peer.to_owned()), "a link");
            let routes = member.routes()?;
            holds!(routes.iter().all(|r| r["peer_id"] != *peer), "{routes:?}")
        })?;
    }
    Ok(())
}

// ---------------------------------------------------------------- several hops

#[test]
fn unicast_ping_and_a_share_reach_a_node_three_hops_away() {
    world("three-hops", |lab| {
        let hosts = lab.hosts_in_a_row(&["a", "r", "s", "b"])?;
        crate::configure(&hosts, "[network]\nunicast = true\n")?;
        let mut network = lab.network(hosts)?;
        network.start_routed()?;
        let [a, r, s, b] = network.nodes()?;
        let hops = |to| a.hops(to);
        ensure!((hops(r)?, hops(s)?, hops(b)?) == (Some(1), Some(2), Some(3)));

        // ordinary programs, in both directions
        for (from, to) in [(a, b), (b, a), (r, b)] {
            ping(&from.host, &to.address()?.to_string(), &[])?.success()?;
        }
        let large = ping(&a.host, &b.address()?.to_string(), &["-s", "1232"])?;
        large.success().context("1,280 bytes")?;
        let nobody = nobody(&a.address()?.to_string())?;
        let unreachable = ping(&a.host, &nobody, &[])?;
        let said = unreachable.stdout + &unreachable.stderr;
        ensure!(
            unreachable.code != 0 && said.contains("nreachable"),
            "{said}"
        );

        // lcroute's own ping
        let pinged = a
            .host
            .run("lcroute", &["ping", "b", "-c", "2", "-i", "50ms"])?;
        let said = pinged.success()?.stdout;
        ensure!(said.contains("2 received"), "{said}");
        a.host
            .run("lcroute", &["ping", "nobody"])?
            .exits(NOT_REACHABLE)?;

        // a share announces its groups: the root of their tree is the server
        make_folder(&a.host.path("folder"), 300_000)?;
        let (_share, _) = share(&a.host, &["folder"])?;
        let mut fetch = b.host.spawn("lcsync", &["lc:folder", "copy"])?;
        fetch.expect_exit(Duration::from_secs(60), 0)?;
        same_content(&a.host.path("folder"), &b.host.path("copy"))
    });
}

#[test]
fn two_who_cannot_reach_each_other_talk_over_a_third() {
    world("third", |lab| {
        let mut network = lab.network(lab.hosts_in_a_row(&["a", "r", "b"])?)?;
        network.start_routed()?;
        let [a, r, b] = network.nodes()?;
        ensure!(a.hops(b)? == Some(2), "{:?}", a.routes()?);
        let (at_a, at_b) = (
            a.host.receive("ff1e::a", &[])?,
            b.host.receive("ff1e::b", &[])?,
        );
        a.wait_wanted("ff1e::b", r)?;
        b.wait_wanted("ff1e::a", r)?;
        a.host.send("ff1e::b", 300, &[])?;
        b.host.send("ff1e::a", 300, &[])?;
        at_a.expect_exactly(300)?;
        at_b.expect_exactly(300)?;
        // without unicast = true no other unicast is carried
        let unicast = ping(&a.host, &b.address()?.to_string(), &[])?;
        ensure!(unicast.code != 0, "{}", unicast.stdout);
        // lcroute's own ping is: it concerns no port of a host
        a.host.call("lcroute ping b")?;
        // the firewall is removed: they link
        for host in [&a.host, &b.host] {
            host.heal_uplink()?;
        }
        becomes(Some(1), || a.hops(b))?;
        a.wait_wanted("ff1e::b", b)?;
        a.host.send("ff1e::b", 100, &[])?;
        at_b.expect_exactly(400)
    });
}

fn ping(from: &Host, to: &str, args: &[&str]) -> Result<lcroute_demo::lab::Output> {
    let options = ["-6", "-n", "-c1", "-w3", "-M", "do"];
    from.run("ping", &[&options[..], args, &[to]].concat())
}

/// Returns an address of the same network without a node.
fn nobody(address: &str) -> Result<String> {
    let mut segments = address.parse::<std::net::Ipv6Addr>()?.segments();
    segments[7] ^= 0x1;
    Ok(std::net::Ipv6Addr::from(segments).to_string())
}
