//! An operator and up to a thousand agents under simulated time, over a network with loss and
//! delay: the state machines of real hosts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcagent::agent::core::{Agent, Ingress, Settings as Node, Store};
use lcagent::agent::output::{Kept, Output as AgentOutput, Start};
use lcagent::agent::policy::Allow;
use lcagent::agent::reasons::{Dropped, Refused};
use lcagent::agent::revoked::Revocations;
use lcagent::datagram::JobId;
use lcagent::envelope::Command;
use lcagent::operator::core::{Event, Fate, KnownNode, Operator, Output, Sender, Settings, pace};
use lcagent::pattern::Pattern;
use lcagent::record::{Ended, Ending, NodeInfo, Record};
use lcagent::replay::ReplayWindow;
use lcagent::request::{Request, Run, What};
use librecast::id::SecretKey;
use librecast::simulated::{Network, Path};
use librecast::time::UnixTime;

const CLOCK: u64 = 1_800_000_000;
const TIMEOUT: Duration = Duration::from_secs(60);

fn key(kind: u8, n: usize) -> SecretKey {
    let mut seed = [kind; 32];
    seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn operator_key() -> SecretKey {
    key(1, 0)
}

#[derive(Default)]
struct Streams(HashMap<JobId, Vec<u8>>);

impl Store for Streams {
    fn read(&mut self, job: JobId, offset: u32, length: u32) -> io::Result<Vec<u8>> {
        let (from, to) = (offset as usize, (offset + length) as usize);
        let stream = self.0.get(&job).and_then(|s| s.get(from..to));
        stream
            .map(<[u8]>::to_vec)
            .ok_or(io::ErrorKind::NotFound.into())
    }
}

struct Host {
    agent: Agent,
    /// The number from which its jobs' output follows: its own, even as a copy of another host.
    content_of: usize,
    ended: BTreeSet<JobId>,
    /// Reported agents with its key.
    shares_with: Vec<Ipv6Addr>,
    streams: Streams,
    up: bool,
    started: Vec<Start>,
    /// Datagrams of its own to the operator.
    answers: usize,
    wake: Option<Instant>,
}

/// The operator, among the hosts of the network.
const OPERATOR: usize = usize::MAX;

#[derive(Clone)]
enum Arrival {
    AtAgent(usize, Vec<u8>),
    /// From this host.
    AtOperator(usize, Vec<u8>),
    JobEnds(usize, JobId),
    ComesUp(usize),
}

/// Parameters of network and jobs.
#[derive(Clone, Copy)]
struct World {
    agents: usize,
    loss: u64,
    seed: u64,
    /// Bytes that a job writes.
    output: usize,
    /// Bytes of its standard input.
    input: usize,
    /// Number of agents that the operator knew before.
    known: usize,
}

struct Simulation {
    world: World,
    start: Instant,
    now: Instant,
    hosts: Vec<Host>,
    operator: Operator,
    network: Network<Instant, usize, Arrival>,
    said: BTreeMap<Sender, Vec<Record>>,
    /// Addresses of hosts with one key in the last report to the operator.
    sharing: Vec<Ipv6Addr>,
    /// The user saw records of one of them before that report.
    has_seen_one: bool,
    operator_bytes: usize,
    over: Option<Instant>,
    /// Timeouts of the agents.
    wakes: BTreeSet<(Instant, usize)>,
}

fn address(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n as u16)
}

fn content(host: usize, length: usize) -> Vec<u8> {
    (0..length).map(|n| ((n * 7 + host) % 251) as u8).collect()
}

fn command(world: &World, sequence: u64, what: What) -> Command {
    let (spread, window) = pace(world.known);
    let request = Request {
        spread_ms: spread.as_millis() as u16,
        window,
        only: Vec::new(),
        what,
    };
    Command {
        selector: "role=web".parse().unwrap(),
        issued: CLOCK,
        not_after: CLOCK + 60,
        sequence,
        nonce: [4; 16],
        payload: request.encode().unwrap(),
    }
}

fn run(input: usize) -> What {
    What::Run(Run {
        arguments: vec!["cat".into()],
        script: None,
        stdin: vec![7; input],
        time: TIMEOUT,
        memory: None,
        user: None,
        folder: None,
        variables: Vec::new(),
    })
}

impl Simulation {
    fn new(world: World) -> Self {
        Self::with(world, &command(&world, 1, run(world.input)))
    }

    fn with(world: World, command: &Command) -> Self {
        let start = Instant::now() + Duration::from_secs(1_000);
        let known = |n| KnownNode {
            id: key(2, n).peer_id(),
            name: format!("node-{n}"),
        };
        let (spread, window) = pace(world.known);
        let settings = Settings {
            expected: (0..world.known).map(known).collect(),
            others: Vec::new(),
            strict: false,
            closed: false,
            meeting: world.known < world.agents,
            seals: BTreeMap::new(),
            timeout: TIMEOUT,
            spread,
            window,
        };
        let path = Path {
            delay: Duration::from_micros(200),
            jitter: Duration::from_millis(5),
            loss: world.loss as f64 / 100.0,
            ..Path::default()
        };
        let signed = command.sign(&operator_key()).unwrap();
        let operator = Operator::new(operator_key(), signed, settings, start);
        let mut simulation = Self {
            world,
            start,
            now: start,
            hosts: (0..world.agents)
                .map(|n| settled(n, world.seed, start))
                .collect(),
            operator,
            network: Network::new(path, world.seed),
            said: BTreeMap::new(),
            sharing: Vec::new(),
            has_seen_one: false,
            operator_bytes: 0,
            over: None,
            wakes: BTreeSet::new(),
        };
        for n in 0..world.agents {
            simulation.note_wake(n);
        }
        simulation.drain_operator();
        simulation
    }

    fn queue(&mut self, after: Duration, arrival: Arrival) {
        self.network.post(arrival, self.now + after);
    }

    fn broadcast(&mut self, from: usize, datagram: &[u8]) {
        for (n, _) in self.hosts.iter().enumerate().filter(|(_, host)| host.up) {
            let arrival = Arrival::AtAgent(n, datagram.to_vec());
            self.network.send(from, n, arrival, self.now);
        }
    }

    fn drain_operator(&mut self) {
        while let Some(output) = self.operator.poll_output() {
            match output {
                Output::Channel(datagram) => {
                    assert!(datagram.len() <= 1_200);
                    self.operator_bytes += datagram.len();
                    self.broadcast(OPERATOR, &datagram);
                }
                Output::Event(Event::Said { id, record }) => {
                    self.said.entry(id).or_default().push(record);
                }
                Output::Event(Event::Appeared { .. } | Event::Progress(_)) => {}
                Output::Event(Event::Rejected { id, why }) => panic!("{}: {why}", id.key),
                Output::Event(Event::SharedKey { key, addresses, .. }) => {
                    let is_first = self.sharing.is_empty();
                    self.has_seen_one |= is_first && self.said.keys().any(|id| id.key == key);
                    self.sharing = addresses;
                }
            }
        }
    }

    fn note_wake(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        if let Some(at) = host.wake.take() {
            self.wakes.remove(&(at, n));
        }
        if host.up {
            host.wake = host.agent.next_timeout();
            self.wakes.extend(host.wake.map(|at| (at, n)));
        }
    }

    fn take_down(&mut self, n: usize) {
        self.hosts[n].up = false;
        self.note_wake(n);
    }

    fn drain_agent(&mut self, n: usize) {
        self.perform_outputs_of(n);
        self.note_wake(n);
    }

    fn perform_outputs_of(&mut self, n: usize) {
        let now = self.now;
        loop {
            let host = &mut self.hosts[n];
            let Some(output) = host.agent.poll_output(&mut host.streams, now) else {
                break;
            };
            match output {
                AgentOutput::Answers { datagram, .. } => {
                    assert!(datagram.len() <= 1_200);
                    host.answers += 1;
                    let arrival = Arrival::AtOperator(n, datagram);
                    self.network.send(n, OPERATOR, arrival, now);
                }
                AgentOutput::Channel { datagram, .. } => self.broadcast(n, &datagram),
                AgentOutput::SharedKey(other) => host.shares_with.push(other),
                AgentOutput::Start(start) => {
                    let mut stream = start.preamble.clone();
                    Record::Started(0).encode(&mut stream).unwrap();
                    host.agent
                        .handle_stream(start.job, stream.len() as u64, false, now);
                    host.streams.0.insert(start.job, stream);
                    let (job, takes) = (start.job, self.network.random.below(40));
                    self.hosts[n].started.push(*start);
                    self.queue(Duration::from_millis(takes), Arrival::JobEnds(n, job));
                }
                _ => {}
            }
        }
    }

    fn job_ends(&mut self, n: usize, job: JobId) {
        let host = &mut self.hosts[n];
        host.ended.insert(job);
        let stream = host.streams.0.get_mut(&job).unwrap();
        for piece in content(host.content_of, self.world.output).chunks(700) {
            Record::Stdout(piece.to_vec()).encode(stream).unwrap();
        }
        let ended = Ended {
            how: Ending::Exited(0),
            duration_us: 1,
            user_us: 1,
            system_us: 1,
            memory_kib: 1,
            cut: 0,
        };
        Record::Ended(ended).encode(stream).unwrap();
        host.agent
            .handle_stream(job, stream.len() as u64, true, self.now);
    }

    /// Handles one event; false if none is left before `until`.
    fn step(&mut self, until: Instant) -> bool {
        let next = self.network.next_timeout();
        let timers = self.wakes.first().map(|(at, _)| *at);
        let operator = self.over.is_none().then(|| self.operator.next_timeout());
        let Some(at) = [timers, next, operator].into_iter().flatten().min() else {
            return false;
        };
        if at > until {
            return false;
        }
        self.now = self.now.max(at);
        if next == Some(at) {
            let arrival = self.network.poll(at).unwrap();
            self.arrive(arrival);
        } else {
            self.timers();
        }
        true
    }

    fn clock(&self) -> u64 {
        CLOCK + (self.now - self.start).as_secs()
    }

    fn arrive(&mut self, arrival: Arrival) {
        let clock = self.clock();
        match arrival {
            Arrival::AtAgent(n, datagram) if self.hosts[n].up => {
                let ingress = Ingress {
                    via: 3,
                    source: "fe80::1".parse().unwrap(),
                };
                self.hosts[n].agent.handle_datagram(
                    &datagram,
                    ingress,
                    self.now,
                    UnixTime::from_secs(clock),
                );
                self.drain_agent(n);
            }
            Arrival::AtOperator(n, datagram) if self.over.is_none() => {
                self.operator
                    .handle_datagram(&datagram, address(n), self.now);
                self.drain_operator();
            }
            Arrival::AtAgent(..) | Arrival::AtOperator(..) => {}
            Arrival::JobEnds(n, job) => {
                self.job_ends(n, job);
                self.drain_agent(n);
            }
            Arrival::ComesUp(n) => {
                let before = self.hosts[n].wake;
                self.hosts[n] = host(n, self.world.seed, self.now);
                self.hosts[n].wake = before;
                self.drain_agent(n);
            }
        }
    }

    fn timers(&mut self) {
        let clock = self.clock();
        while let Some((at, n)) = self.wakes.first().copied()
            && at <= self.now
        {
            self.hosts[n]
                .agent
                .handle_timeout(self.now, UnixTime::from_secs(clock));
            self.drain_agent(n);
        }
        if self.over.is_none() && self.operator.next_timeout() <= self.now {
            if self.operator.is_over(self.now) {
                self.operator.finish();
                self.over = Some(self.now);
            } else {
                self.operator.handle_timeout(self.now);
            }
            self.drain_operator();
        }
    }

    /// Runs until the operator's command is over; returns the time that it took.
    fn run(&mut self) -> Duration {
        let until = self.start + Duration::from_secs(120);
        while self.over.is_none() {
            assert!(self.step(until), "it does not end");
        }
        self.over.unwrap() - self.start
    }

    fn run_on(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    fn expect_all_of(&self, n: usize) {
        let senders: Vec<Sender> = self.senders_of(n);
        assert_eq!(senders.len(), 1, "streams of {n}");
        self.expect_all_in(&senders[0], n);
    }

    /// Returns the streams under the key of a host.
    fn senders_of(&self, n: usize) -> Vec<Sender> {
        let key = key(2, n).peer_id();
        self.said
            .keys()
            .filter(|id| id.key == key)
            .copied()
            .collect()
    }

    fn output_of(&self, sender: &Sender) -> Vec<u8> {
        let records = self.said.get(sender).into_iter().flatten();
        let output = records.filter_map(|record| match record {
            Record::Stdout(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        output.collect::<Vec<_>>().concat()
    }

    /// Asserts that this stream is the whole one of host `n`.
    fn expect_all_in(&self, sender: &Sender, n: usize) {
        let records = &self.said[sender];
        let output = self.output_of(sender);
        assert!(output == content(n, self.world.output), "output of {n}");
        assert!(
            matches!(records.last(), Some(Record::Ended(_))),
            "end of {n}"
        );
        let ends = records.iter().filter(|r| r.is_last()).count();
        assert_eq!(ends, 1, "of {n}");
    }

    /// Replaces a host by a copy of another: its state folder, its name.
    fn copy_host(&mut self, from: usize, to: usize) {
        let mut copy = settled(from, self.world.seed + 1_000, self.now);
        copy.content_of = to;
        self.hosts[to] = copy;
        self.note_wake(to);
    }

    /// Restarts the agent of a host with its disk.
    fn restart(&mut self, n: usize) {
        let seed = self.world.seed + 2_000;
        let mut new = host(n, seed, self.now);
        let old = &mut self.hosts[n];
        new.wake = old.wake;
        new.streams = std::mem::take(&mut old.streams);
        new.started = std::mem::take(&mut old.started);
        for start in &new.started {
            let stream = &new.streams.0[&start.job];
            let kept = Kept {
                principal: start.principal,
                seal: start.seal.clone(),
                stream: start.stream,
                delivered: false,
            };
            new.agent.restore(start.job, kept, self.now);
            let ended = new.ended.contains(&start.job);
            new.agent
                .handle_stream(start.job, stream.len() as u64, ended, self.now);
        }
        self.hosts[n] = new;
        self.note_wake(n);
    }

    fn expect_everything(&self) {
        for (n, host) in self.hosts.iter().enumerate() {
            assert_eq!(host.started.len(), 1, "jobs on {n}");
            assert_eq!(
                host.started[0].run.stdin.len(),
                self.world.input,
                "standard input of {n}"
            );
            self.expect_all_of(n);
        }
        assert_eq!(self.operator.fates().len(), self.hosts.len());
    }
}

/// Returns the policy that allows the operator these commands.
fn allow(commands: Vec<Pattern>) -> Vec<Allow> {
    vec![Allow {
        key: operator_key().peer_id(),
        name: None,
        commands,
        user: None,
        time: None,
        output: None,
        memory: None,
        labels: BTreeMap::new(),
    }]
}

fn settings(n: usize, policy: Vec<Allow>) -> Node {
    Node {
        node: NodeInfo {
            name: format!("node-{n}"),
            labels: BTreeMap::from([("role".into(), "web".into())]),
            version: "1".into(),
        },
        policy,
    }
}

fn host(n: usize, seed: u64, now: Instant) -> Host {
    let policy = allow(vec![Pattern::parse("*").unwrap()]);
    Host {
        agent: Agent::new(
            key(2, n),
            settings(n, policy),
            (ReplayWindow::new(), Revocations::default()),
            seed.wrapping_add(n as u64),
            now,
        ),
        content_of: n,
        ended: BTreeSet::new(),
        shares_with: Vec::new(),
        streams: Streams::default(),
        up: true,
        started: Vec::new(),
        answers: 0,
        wake: None,
    }
}

/// Returns a host that has long been up and has sent its hellos.
fn settled(n: usize, seed: u64, now: Instant) -> Host {
    let mut host = host(n, seed, now - Duration::from_secs(60));
    host.agent.handle_timeout(now, UnixTime::from_secs(CLOCK));
    while host.agent.poll_output(&mut host.streams, now).is_some() {}
    host
}

fn world(agents: usize, loss: u64, seed: u64) -> World {
    World {
        agents,
        loss,
        seed,
        output: 20,
        input: 0,
        known: agents,
    }
}

#[test]
fn a_thousand_agents_answer_within_two_seconds() {
    let mut simulation = Simulation::new(world(1_000, 0, 1));
    let took = simulation.run();
    simulation.expect_everything();
    assert!(took <= Duration::from_secs(2), "{took:?} of simulated time");
    let answers: usize = simulation.hosts.iter().map(|h| h.answers).sum();
    assert!(
        answers < 2_200,
        "{answers} datagrams for 1,000 short answers"
    );
}

#[test]
fn a_thousand_agents_lose_nothing_at_ten_percent_loss() {
    let mut simulation = Simulation::new(world(1_000, 10, 7));
    simulation.run();
    simulation.expect_everything();
}

#[test]
fn output_of_many_segments_arrives_whole_and_in_order_whatever_is_lost() {
    for seed in 0..6 {
        for loss in [0, 10, 30] {
            let world = World {
                output: 90_000,
                input: 9_000,
                ..world(5, loss, seed)
            };
            let mut simulation = Simulation::new(world);
            simulation.run();
            simulation.expect_everything();
        }
    }
}

#[test]
fn nodes_that_nobody_knows_yet_are_met() {
    for (seed, loss, at_least) in [(1, 0, 50), (2, 5, 45), (3, 5, 45)] {
        let mut simulation = Simulation::new(World {
            known: 0,
            ..world(50, loss, seed)
        });
        simulation.run();
        let met: Vec<usize> = (0..50)
            .filter(|n| !simulation.senders_of(*n).is_empty())
            .collect();
        assert!(met.len() >= at_least, "{} of 50", met.len());
        for n in met {
            simulation.expect_all_of(n);
        }
    }
}

#[test]
fn sixteen_agents_cost_the_operator_little_more_than_one() {
    let bytes = |agents| {
        let mut simulation = Simulation::new(world(agents, 0, 3));
        simulation.run();
        simulation.expect_everything();
        simulation.operator_bytes
    };
    // headers of IPv6 and UDP are left out on both sides, so the share is lower on the wire
    let (one, sixteen) = (bytes(1), bytes(16));
    assert!(sixteen <= one + 15 * 2, "{sixteen} bytes, {one} for one");
}

#[test]
fn answers_of_two_hosts_with_one_key_are_never_put_together() {
    for seed in 0..12 {
        for (loss, output) in [(0, 20), (0, 40_000), (20, 40_000)] {
            let mut simulation = Simulation::new(World {
                output,
                known: 2,
                ..world(3, loss, seed)
            });
            simulation.copy_host(1, 2);
            simulation.run();
            simulation.expect_all_of(0);
            let senders = simulation.senders_of(1);
            if loss > 0 && senders.len() == 1 {
                // the other's first segments were lost: then nothing of it is accepted
                let of = |n| content(n, output);
                let said = simulation.output_of(&senders[0]);
                assert!(said == of(1) || said == of(2), "seed {seed}");
                continue;
            }
            assert_eq!(senders.len(), 2, "seed {seed}");
            let own = usize::from(simulation.output_of(&senders[0]) != content(1, output));
            simulation.expect_all_in(&senders[own], 1);
            simulation.expect_all_in(&senders[1 - own], 2);
            let mut addresses = simulation.sharing.clone();
            addresses.sort();
            assert_eq!(addresses, [address(1), address(2)]);
            assert!(loss > 0 || !simulation.has_seen_one, "seed {seed}");
            // both agents get the report, unless all its packets were lost
            simulation.run_on(Duration::from_secs(1));
            if loss == 0 {
                assert_eq!(simulation.hosts[1].shares_with, [address(2)]);
                assert_eq!(simulation.hosts[2].shares_with, [address(1)]);
            }
            assert!(simulation.hosts[0].shares_with.is_empty());
        }
    }
}

#[test]
fn an_agent_that_is_started_anew_in_the_middle_of_a_job_is_no_other() {
    for seed in 0..12 {
        for loss in [0, 20] {
            let mut simulation = Simulation::new(World {
                output: 60_000,
                ..world(3, loss, seed)
            });
            let until = simulation.start + Duration::from_secs(50);
            for answers in [1, 20, 20] {
                // part of the output has gone out
                while simulation.hosts[1].answers < answers && simulation.step(until) {}
                simulation.restart(1);
            }
            simulation.run();
            simulation.expect_everything();
            assert!(simulation.sharing.is_empty());
        }
    }
}

#[test]
fn silent_node_is_waited_for_and_named() {
    let mut simulation = Simulation::new(world(3, 0, 1));
    simulation.take_down(1);
    let took = simulation.run();
    assert_eq!(took, TIMEOUT);
    let fates = simulation.operator.fates();
    assert_eq!(fates[1].fate, Fate::Silent);
    assert!(fates[1].name == "node-1" && fates.len() == 3);
    // the other nodes received a repeat of the command, and ran it once
    assert_eq!(simulation.hosts[0].started.len(), 1);
    simulation.expect_all_of(2);
}

#[test]
fn node_that_comes_up_gets_the_command_from_the_others_when_the_operator_has_gone() {
    let mut simulation = Simulation::new(world(4, 0, 1));
    simulation.take_down(3);
    simulation.over = Some(simulation.now);
    simulation.run_on(Duration::from_secs(10));
    simulation.queue(Duration::ZERO, Arrival::ComesUp(3));
    simulation.run_on(Duration::from_secs(10));
    assert_eq!(simulation.hosts[3].started.len(), 1);
    assert_eq!(
        simulation.hosts[0].started.len(),
        1,
        "and nobody runs it twice"
    );
}

#[test]
fn expired_command_is_not_handed_on() {
    let mut simulation = Simulation::new(world(4, 0, 1));
    simulation.take_down(3);
    simulation.over = Some(simulation.now);
    simulation.run_on(Duration::from_secs(61));
    simulation.queue(Duration::ZERO, Arrival::ComesUp(3));
    simulation.run_on(Duration::from_secs(20));
    assert!(simulation.hosts[3].started.is_empty());
}

#[test]
fn known_node_that_is_no_longer_selected_says_so_when_asked() {
    let mut simulation = Simulation::new(world(3, 0, 1));
    let mut settings = settings(2, allow(Vec::new()));
    settings.node.labels.clear();
    simulation.hosts[2].agent.configure(settings);
    let took = simulation.run();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(simulation.operator.fates().len(), 2);
    assert!(simulation.hosts[2].started.is_empty());
}

/// Makes a node refuse the operator everything.
fn forbid(simulation: &mut Simulation, n: usize) {
    let settings = settings(n, allow(Vec::new()));
    simulation.hosts[n].agent.configure(settings);
}

fn refusals(simulation: &Simulation) -> usize {
    let fates = simulation.operator.fates().into_iter();
    let refused = |fate: &Fate| matches!(fate, Fate::Answered(Record::Refused(_)));
    fates.filter(|node| refused(&node.fate)).count()
}

#[test]
fn a_refusal_comes_whatever_is_lost() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(world(6, 30, seed));
        for n in [1, 4] {
            forbid(&mut simulation, n);
        }
        simulation.run();
        assert_eq!(refusals(&simulation), 2, "seed {seed}");
        for n in [0, 2, 3, 5] {
            simulation.expect_all_of(n);
        }
    }
}

#[test]
fn a_refusal_of_a_node_that_is_not_known_comes_although_packets_are_lost() {
    let mut heard = 0;
    for seed in 0..40 {
        // as after `nodes --forget` of the second one
        let mut simulation = Simulation::new(World {
            known: 1,
            ..world(2, 10, seed)
        });
        forbid(&mut simulation, 1);
        simulation.run();
        simulation.expect_all_of(0);
        heard += refusals(&simulation);
    }
    assert!(heard >= 39, "{heard} of 40");
}

#[test]
fn an_operator_whose_key_nobody_knows_is_not_left_waiting() {
    let mut simulation = Simulation::new(world(3, 0, 1));
    for n in 0..3 {
        simulation.hosts[n].agent.configure(settings(n, Vec::new()));
    }
    let took = simulation.run();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(refusals(&simulation), 3);
}

#[test]
fn answers_that_nobody_acknowledges_are_not_repeated_for_ever() {
    let mut simulation = Simulation::new(world(3, 0, 1));
    simulation.over = Some(simulation.now);
    simulation.run_on(Duration::from_secs(300));
    let answers = simulation.hosts[0].answers;
    assert!((2..20).contains(&answers), "{answers}");
    simulation.run_on(Duration::from_secs(300));
    assert_eq!(simulation.hosts[0].answers, answers);
}

#[test]
fn what_strangers_say_changes_nothing() {
    let mut simulation = Simulation::new(world(3, 0, 1));
    let stranger = key(9, 9);
    let foreign = command(&simulation.world, 5, run(0))
        .sign(&stranger)
        .unwrap();
    simulation.broadcast(OPERATOR, &foreign.envelope);
    for length in [0, 1, 2, 40, 111, 1_200, 9_000] {
        simulation.broadcast(OPERATOR, &vec![1; length]);
        simulation.queue(
            Duration::from_millis(1),
            Arrival::AtOperator(0, vec![1; length]),
        );
    }
    let own = command(&simulation.world, 1, run(0))
        .sign(&operator_key())
        .unwrap();
    // the operator's own command again, and an answer without a valid signature
    simulation.broadcast(OPERATOR, &own.envelope);
    let mut forged = lcagent::answer::seal(&key(2, 0), own.job, None, 0, b"x");
    forged[50] ^= 1;
    simulation.queue(Duration::from_micros(10), Arrival::AtOperator(0, forged));
    simulation.run();
    simulation.expect_everything();
    let counters = simulation.hosts[0].agent.counters();
    assert_eq!(counters[&Refused::UnknownKey.into()], 1);
    assert!(counters[&Dropped::Malformed.into()] > 0);
    assert_eq!(
        simulation.operator.counters()[&lcagent::operator::core::Dropped::Forged],
        1
    );
}
