//! Gateways of LANs under virtual time, with links between them. A test adds hosts to the LANs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_engine::{Config, Engine, LanFrame, LanSettings, LocalInterfaceId, Neighbor, Output};
use librecast::ethernet::MacAddress;
use librecast::id::LinkId;
use librecast::simulated::Queue;

use crate::common::services::{Rights, TestServices};
use crate::common::{restricted, start};

/// Time of a packet over a link, and over a LAN.
const LINK: Duration = Duration::from_millis(5);
pub const WIRE: Duration = Duration::from_micros(100);
/// Time until a lost link is noticed.
const LIVENESS: Duration = Duration::from_millis(700);
/// The first LAN of each gateway.
pub const LAN: LocalInterfaceId = LocalInterfaceId(1);

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The LANs of a world, and the hosts on them.
pub trait Wires: Sized {
    /// An event on a LAN.
    type Event;

    fn mac(gateway: usize, lan: usize) -> MacAddress;

    /// Handles a frame of a gateway for a LAN, except PROBEs.
    fn from_gateway(world: &mut World<Self>, gateway: usize, lan: usize, frame: LanFrame);

    fn happen(world: &mut World<Self>, event: Self::Event);

    fn count(&mut self, _gateway: usize, _packet: &[u8]) {}
}

#[derive(Debug)]
pub enum Event<E> {
    Control(usize, usize, LinkId, Bytes),
    Data(usize, LinkId, Bytes),
    /// A PROBE on a LAN, from this Ethernet address.
    Probe(usize, MacAddress, Bytes),
    LinkDown(usize, usize),
    LinkUp(usize, usize),
    OnLan(E),
}

pub struct Gateway {
    pub engine: Option<Engine>,
    pub services: Arc<TestServices>,
    pub config: Config,
    /// Its LANs, by interface.
    pub lans: Vec<usize>,
    /// It is inactive until this time.
    pub paused: Instant,
    pub has_uplink: bool,
    pub on_lan: bool,
    next_link: u32,
    pub links: BTreeMap<usize, LinkId>,
    runs: u32,
}

pub struct World<W: Wires> {
    pub now: Instant,
    queue: Queue<Instant, Event<W::Event>>,
    pub gateways: Vec<Gateway>,
    pub lans: W,
    /// Pairs of LANs that a wire joins.
    pub wired: BTreeSet<(usize, usize)>,
    /// Data messages that left over links.
    pub sent: u64,
    /// Frames of hosts and gateways on all LANs.
    pub frames: u64,
    /// The last number that a host sent.
    pub next: u64,
}

impl<W: Wires> World<W> {
    /// Makes a world of gateways on these LANs, with these rights. None of them runs.
    pub fn of(gateways: Vec<Vec<usize>>, rights: &dyn Fn(usize) -> Rights, lans: W) -> Self {
        let now = start();
        let mut world = Self {
            now,
            queue: Queue::default(),
            gateways: Vec::new(),
            lans,
            wired: BTreeSet::new(),
            sent: 0,
            frames: 0,
            next: 0,
        };
        for (n, lans) in gateways.into_iter().enumerate() {
            let (services, config) = restricted(n as u16 + 1, &rights(n));
            world.gateways.push(Gateway {
                engine: None,
                services,
                config,
                lans,
                paused: now,
                has_uplink: true,
                on_lan: true,
                next_link: 1,
                links: BTreeMap::new(),
                runs: 0,
            });
        }
        world
    }

    pub fn push(&mut self, at: Instant, event: W::Event) {
        self.queue.push(at, Event::OnLan(event));
    }

    pub fn start(&mut self, n: usize, lans: Vec<LanSettings>) {
        let gateway = &mut self.gateways[n];
        gateway.runs += 1;
        let config = Config {
            incarnation: gateway.runs,
            seed: (n as u64 + 1) << 32 | u64::from(gateway.runs),
            ..gateway.config.clone()
        };
        let mut engine = Engine::new(config, gateway.services.clone(), self.now);
        engine.handle_start(self.now);
        for (interface, settings) in (1..).map(LocalInterfaceId).zip(lans) {
            engine.set_lan(interface, settings, self.now);
        }
        gateway.engine = Some(engine);
    }

    /// Links a gateway with some others in a moment.
    pub fn connect(&mut self, n: usize, linked: &dyn Fn(usize, usize) -> bool) {
        for other in (0..self.gateways.len()).filter(|other| *other != n && linked(n, *other)) {
            self.queue.push(self.now + ms(50), Event::LinkUp(n, other));
        }
    }

    /// Stops a gateway. The others do not notice it yet.
    pub fn stop(&mut self, n: usize) {
        self.gateways[n].engine = None;
        self.gateways[n].links.clear();
    }

    /// A gateway notices that its link to another one is lost.
    pub fn lose(&mut self, n: usize, other: usize) {
        let at = self.now + LIVENESS;
        self.queue.push(at, Event::LinkDown(n, other));
    }

    pub fn engine(&mut self, n: usize) -> &mut Engine {
        self.gateways[n].engine.as_mut().unwrap()
    }

    /// Gives a running gateway an input, and handles its outputs.
    pub fn does(&mut self, n: usize, what: impl FnOnce(&mut Engine, Instant)) {
        let now = self.now;
        what(self.engine(n), now);
        self.settle(n);
    }

    fn link_up(&mut self, a: usize, b: usize) {
        let ready = |g: &Gateway| g.engine.is_some() && g.has_uplink;
        if !ready(&self.gateways[a]) || !ready(&self.gateways[b]) {
            return;
        }
        for (n, other) in [(a, b), (b, a)] {
            self.link_down(n, other);
            let member = self.gateways[other].config.member.clone();
            let gateway = &mut self.gateways[n];
            let link = LinkId(gateway.next_link);
            gateway.next_link += 1;
            gateway.links.insert(other, link);
            let engine = gateway.engine.as_mut().unwrap();
            engine.handle_link_up(link, Neighbor { member }, self.now);
            engine.handle_link_rtt(link, LINK * 2, self.now);
        }
        self.settle(a);
        self.settle(b);
    }

    fn link_down(&mut self, n: usize, other: usize) {
        if let Some(link) = self.gateways[n].links.remove(&other)
            && let Some(engine) = &mut self.gateways[n].engine
        {
            engine.handle_link_down(link, self.now);
        }
        self.settle(n);
    }

    pub fn settle(&mut self, n: usize) {
        if self.gateways[n].paused > self.now {
            return;
        }
        while let Some(output) = self.poll(n) {
            self.handle_output(n, output);
        }
    }

    pub fn poll(&mut self, n: usize) -> Option<Output> {
        self.gateways[n].engine.as_mut()?.poll_output()
    }

    pub fn handle_output(&mut self, n: usize, output: Output) {
        let gateway = &self.gateways[n];
        let peer = |link: LinkId| {
            let (other, _) = gateway.links.iter().find(|(_, l)| **l == link)?;
            gateway.has_uplink.then_some(*other)
        };
        let at = self.now + LINK;
        match output {
            Output::Data {
                links,
                header,
                packet,
            } => {
                for other in links.iter().filter_map(|link| peer(*link)) {
                    self.sent += 1;
                    let message = Bytes::from([&header[..], &packet].concat());
                    if let Some(link) = self.gateways[other].links.get(&n) {
                        self.lans.count(n, &packet);
                        self.queue.push(at, Event::Data(other, *link, message));
                    }
                }
            }
            Output::Control { link, message } | Output::RoutedControl { link, message } => {
                if let Some(other) = peer(link)
                    && let Some(theirs) = self.gateways[other].links.get(&n)
                {
                    let event = Event::Control(n, other, *theirs, message);
                    self.queue.push(at, event);
                }
            }
            Output::Lan { interface, frame } if gateway.on_lan => {
                // an interface that a test added is on the first LAN
                let lan = gateway.lans.get(usize::from(interface.0) - 1);
                let lan = *lan.unwrap_or(&gateway.lans[0]);
                match frame {
                    LanFrame::Probe(probe) => {
                        let event = Event::Probe(lan, W::mac(n, lan), probe);
                        self.queue.push(self.now + WIRE, event);
                    }
                    frame => W::from_gateway(self, n, lan, frame),
                }
            }
            _ => {}
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let ready = |g: &Gateway| {
                let (at, _) = g.engine.as_ref()?.next_timeout()?;
                Some(at.max(g.paused))
            };
            let timer = self.gateways.iter().filter_map(ready).min();
            let next = timer.into_iter().chain(self.queue.next_at()).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            while let Some((_, event)) = self.queue.pop(self.now) {
                self.handle(event);
            }
            for n in 0..self.gateways.len() {
                let now = self.now;
                let gateway = &mut self.gateways[n];
                if let Some(engine) = gateway.engine.as_mut().filter(|_| gateway.paused <= now)
                    && engine.next_timeout().is_some_and(|(at, _)| at <= now)
                {
                    engine.handle_timeout(now);
                    self.settle(n);
                }
            }
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event<W::Event>) {
        let now = self.now;
        match event {
            Event::Control(from, n, link, message) => {
                let gateway = &self.gateways[n];
                if gateway.paused > now {
                    let event = Event::Control(from, n, link, message);
                    self.queue.push(gateway.paused, event);
                } else if gateway.links.get(&from) == Some(&link) {
                    self.does(n, |engine, now| engine.handle_control(link, &message, now));
                }
            }
            Event::Data(n, link, message) => {
                let gateway = &self.gateways[n];
                if gateway.engine.is_some() && gateway.paused <= now {
                    self.does(n, |engine, now| engine.handle_data(link, message, now));
                }
            }
            Event::Probe(lan, from, probe) => {
                for (n, interface) in self.hearing(lan, from) {
                    self.does(n, |engine, now| {
                        engine.handle_lan_probe(interface, from, &probe, now);
                    });
                }
            }
            Event::LinkDown(n, other) => self.link_down(n, other),
            Event::LinkUp(a, b) => self.link_up(a, b),
            Event::OnLan(event) => W::happen(self, event),
        }
    }

    pub fn reaches(&self, lan: usize, other: usize) -> bool {
        let wired = |a, b| self.wired.contains(&(a, b)) || self.wired.contains(&(b, a));
        lan == other || wired(lan, other)
    }

    pub fn hearing(&self, lan: usize, from: MacAddress) -> Vec<(usize, LocalInterfaceId)> {
        let mut hearing = Vec::new();
        for (n, gateway) in self.gateways.iter().enumerate() {
            let is_up = gateway.engine.is_some() && gateway.on_lan && gateway.paused <= self.now;
            for (interface, own) in (1..).map(LocalInterfaceId).zip(&gateway.lans) {
                if is_up && self.reaches(lan, *own) && W::mac(n, *own) != from {
                    hearing.push((n, interface));
                }
            }
        }
        hearing
    }
}
