//! The controller against bottlenecks: a pipe with a rate, a queue and loss, shared by flows of ours
//! and by one that behaves as TCP (CUBIC where it is Reno-friendly: a cut to 0.7, a packet a round).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use super::congestion::Controller;
use super::feedback::{Report, Reporter};
use super::replay::ReplayWindow;
use crate::event::Ecn;

const SIZE: usize = 1_250;
const STEP: u64 = 100;

struct Ours {
    controller: Controller,
    /// Bits a second that the program offers.
    offered: f64,
    debt: f64,
    next: u64,
    reporter: Reporter,
    seen: ReplayWindow,
}

struct Tcp {
    window: f64,
    next: u64,
    under_way: BTreeMap<u64, u64>,
    cut_at: u64,
}

enum Flow {
    Ours(Box<Ours>),
    Tcp(Tcp),
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Parcel {
    Packet(u64),
    Report(Vec<u8>),
    Ack(u64),
}

struct Sim {
    start: Instant,
    /// Microseconds.
    now: u64,
    rate: f64,
    queue: u64,
    delay: u64,
    loss: f64,
    free_at: f64,
    dice: u64,
    flows: Vec<Flow>,
    order: u64,
    parcels: BinaryHeap<Reverse<(u64, u64, usize, Parcel)>>,
    delivered: Vec<f64>,
    offered: Vec<f64>,
    waits: Vec<u64>,
}

impl Sim {
    /// A pipe of `rate` Mbit/s, a queue of `queue` ms, `delay` ms one way.
    fn new(rate: f64, queue: u64, delay: u64) -> Self {
        Self {
            start: Instant::now(),
            now: 0,
            rate,
            queue: queue * 1_000,
            delay: delay * 1_000,
            loss: 0.0,
            free_at: 0.0,
            dice: 1,
            flows: Vec::new(),
            order: 0,
            parcels: BinaryHeap::new(),
            delivered: Vec::new(),
            offered: Vec::new(),
            waits: Vec::new(),
        }
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    /// A flow of ours that offers so many Mbit/s.
    fn ours(&mut self, offered: f64) {
        let now = self.instant();
        self.flows.push(Flow::Ours(Box::new(Ours {
            controller: Controller::new(now),
            offered: offered * 1e6,
            debt: 0.0,
            next: 0,
            reporter: Reporter::new(false, now),
            seen: ReplayWindow::new(1_024),
        })));
    }

    fn tcp(&mut self) {
        self.flows.push(Flow::Tcp(Tcp {
            window: 10.0,
            next: 0,
            under_way: BTreeMap::new(),
            cut_at: 0,
        }));
    }

    /// Goodput of each flow in Mbit/s, and the 99th percentile of the queue in ms, over `seconds`.
    fn run(&mut self, seconds: f64) -> (Vec<f64>, f64) {
        self.delivered = vec![0.0; self.flows.len()];
        self.offered = vec![0.0; self.flows.len()];
        self.waits.clear();
        let end = self.now + (seconds * 1e6) as u64;
        while self.now < end {
            self.now += STEP;
            self.deliver();
            for n in 0..self.flows.len() {
                self.send(n);
            }
        }
        self.waits.sort_unstable();
        let p99 = self.waits.get(self.waits.len() * 99 / 100);
        let rates = self.delivered.iter().map(|b| b * 8.0 / seconds / 1e6);
        (rates.collect(), p99.map_or(0.0, |w| *w as f64 / 1e3))
    }

    fn roll(&mut self) -> f64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 40) as f64 / (1_u64 << 24) as f64
    }

    fn post(&mut self, at: u64, flow: usize, parcel: Parcel) {
        self.order += 1;
        self.parcels.push(Reverse((at, self.order, flow, parcel)));
    }

    /// Puts a packet into the pipe.
    fn put(&mut self, flow: usize, number: u64) {
        self.offered[flow] += SIZE as f64;
        let wait = (self.free_at - self.now as f64).max(0.0);
        if wait > self.queue as f64 {
            return;
        }
        let transfer = (SIZE + 48) as f64 * 8.0 / self.rate;
        self.free_at = self.free_at.max(self.now as f64) + transfer;
        self.waits.push(wait as u64);
        if self.roll() >= self.loss {
            let at = self.free_at as u64 + self.delay;
            self.post(at, flow, Parcel::Packet(number));
        }
    }

    fn send(&mut self, n: usize) {
        let now = self.instant();
        let mut out = Vec::new();
        let mut report = None;
        match &mut self.flows[n] {
            Flow::Ours(ours) => {
                ours.debt += ours.offered / 8.0 * STEP as f64 / 1e6;
                while ours.debt >= SIZE as f64 {
                    ours.debt -= SIZE as f64;
                    if ours.controller.is_open(0) {
                        let marker = ours.controller.wants_report(SIZE);
                        ours.controller.sent(ours.next, SIZE, now);
                        out.push(ours.next << 1 | u64::from(marker));
                        ours.next += 1;
                    }
                }
                ours.controller.poll(now);
                if ours.reporter.deadline().is_some_and(|due| due <= now) {
                    report = ours.reporter.report(&ours.seen, now);
                }
            }
            Flow::Tcp(tcp) => {
                while (tcp.under_way.len() as f64) < tcp.window {
                    tcp.under_way.insert(tcp.next, self.now);
                    out.push(tcp.next << 1);
                    tcp.next += 1;
                }
                // a tail that got lost
                let late = self.now.saturating_sub(1_000_000);
                tcp.under_way.retain(|_, at| *at > late);
            }
        }
        for number in out {
            self.put(n, number);
        }
        if let Some(report) = report {
            self.tell(n, &report);
        }
    }

    fn tell(&mut self, flow: usize, report: &Report) {
        let mut bytes = bytes::BytesMut::new();
        report.write(&mut bytes);
        let at = self.now + self.delay;
        if self.roll() >= self.loss {
            self.post(at, flow, Parcel::Report(bytes.to_vec()));
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, ..))) = self.parcels.peek() {
            if *at > self.now {
                break;
            }
            if let Some(Reverse((_, _, n, parcel))) = self.parcels.pop() {
                self.handle(n, parcel);
            }
        }
    }

    fn handle(&mut self, n: usize, parcel: Parcel) {
        let now = self.instant();
        match (&mut self.flows[n], parcel) {
            (Flow::Ours(ours), Parcel::Packet(number)) => {
                self.delivered[n] += SIZE as f64;
                ours.seen.mark(number >> 1);
                if ours
                    .reporter
                    .handle(number >> 1, number & 1 == 1, Ecn::None, now)
                    && let Some(report) = ours.reporter.report(&ours.seen, now)
                {
                    self.tell(n, &report);
                }
            }
            (Flow::Ours(ours), Parcel::Report(bytes)) => {
                let report = Report::read(&bytes).unwrap();
                assert!(ours.controller.handle(&report, ours.next, now));
            }
            (Flow::Tcp(_), Parcel::Packet(number)) => {
                self.delivered[n] += SIZE as f64;
                let at = self.now + self.delay;
                self.post(at, n, Parcel::Ack(number >> 1));
            }
            (Flow::Tcp(tcp), Parcel::Ack(number)) => {
                tcp.under_way.remove(&number);
                tcp.window += 1.0 / tcp.window;
                // three later ones have come
                let lost = tcp.under_way.range(..number.saturating_sub(2));
                let lost: Vec<_> = lost.map(|(n, _)| *n).collect();
                let newest = lost.last().copied();
                lost.iter().for_each(|n| {
                    tcp.under_way.remove(n);
                });
                if newest.is_some_and(|newest| newest >= tcp.cut_at) {
                    tcp.window = (tcp.window * 0.7).max(2.0);
                    tcp.cut_at = tcp.next;
                }
            }
            _ => unreachable!("parcels go to flows of their kind"),
        }
    }
}

/// Alone in a pipe that is offered five times its rate: goodput and queue, then offered rate.
fn alone(rate: f64, queue: u64, delay: u64, loss: f64) -> (f64, f64, f64) {
    let mut sim = Sim::new(rate, queue, delay);
    sim.loss = loss;
    sim.ours(rate * 5.0);
    sim.run(2.0);
    let (rates, p99) = sim.run(8.0);
    let offered = sim.offered[0] * 8.0 / 8e6;
    println!(
        "{rate} Mbit/s, {queue} ms queue, {delay} ms, loss {loss}: {:.1} p99 {p99:.0} ms, \
         offered {offered:.1}",
        rates[0]
    );
    (rates[0], p99, offered)
}

#[test]
fn a_bottleneck_is_filled_and_random_loss_changes_nothing() {
    for (rate, delay) in [(20.0, 10), (20.0, 1), (200.0, 10), (1_000.0, 1), (2.0, 10)] {
        for loss in [0.0, 0.05, 0.2] {
            let (goodput, p99, _) = alone(rate, 500, delay, loss);
            let most = rate * (1.0 - loss) * SIZE as f64 / (SIZE + 48) as f64;
            assert!(goodput > most * 0.9, "{goodput} of {most}");
            assert!(p99 < 50.0, "{p99} ms");
        }
    }
}

#[test]
fn a_short_queue_is_not_flooded() {
    for loss in [0.0, 0.05, 0.2] {
        let (goodput, _, offered) = alone(20.0, 5, 10, loss);
        assert!(goodput > 5.0, "{goodput}");
        assert!(offered < 45.0, "{offered}");
    }
}

#[test]
fn a_long_way_works() {
    for loss in [0.0, 0.05] {
        let (goodput, _, _) = alone(20.0, 500, 100, loss);
        assert!(goodput > 10.0, "{goodput}");
    }
}

#[test]
fn the_rate_follows_the_path() {
    let mut sim = Sim::new(20.0, 500, 10);
    sim.ours(100.0);
    for rate in [20.0, 5.0, 40.0, 10.0] {
        sim.rate = rate;
        sim.run(1.5);
        let (rates, p99) = sim.run(3.0);
        assert!(rates[0] > rate * 0.8, "{rates:?} of {rate}");
        assert!(p99 < 50.0, "{p99} ms at {rate}");
    }
}

#[test]
fn neither_tcp_nor_we_starve() {
    for first in [true, false] {
        let mut sim = Sim::new(20.0, 50, 10);
        if first {
            sim.ours(100.0);
            sim.run(5.0);
            sim.tcp();
        } else {
            sim.tcp();
            sim.run(5.0);
            sim.ours(100.0);
        }
        sim.run(10.0);
        let (rates, _) = sim.run(30.0);
        println!("with TCP, first {first}: {rates:.1?}");
        assert!(rates.iter().all(|rate| *rate > 4.8), "{rates:?}");
    }
}

#[test]
fn two_of_ours_share_a_bottleneck() {
    for queue in [50, 500] {
        let mut sim = Sim::new(20.0, queue, 10);
        sim.ours(100.0);
        sim.run(5.0);
        sim.ours(100.0);
        sim.run(10.0);
        let (rates, p99) = sim.run(30.0);
        println!("two, queue {queue}: {rates:.1?} p99 {p99:.0}");
        assert!(rates.iter().all(|rate| *rate > 3.0), "{rates:?}");
        assert!(p99 < 70.0, "{p99} ms");
    }
}

#[test]
fn a_flow_starts_fast() {
    for (offered, delay) in [(50.0, 10), (200.0, 10), (1_000.0, 1)] {
        let mut sim = Sim::new(2_000.0, 100, delay);
        sim.ours(offered);
        let (first, _) = sim.run(0.2);
        let (then, _) = sim.run(0.3);
        println!("{offered} Mbit/s over 2 x {delay} ms: {first:.1?}, after 0.2 s {then:.1?}");
        assert!(then[0] > offered * 0.99, "{then:?}");
    }
}

#[test]
fn what_fits_is_never_held_back() {
    for loss in [0.0, 0.05, 0.2] {
        let mut sim = Sim::new(1_000.0, 100, 10);
        sim.loss = loss;
        sim.ours(200.0);
        sim.run(2.0);
        let (rates, p99) = sim.run(10.0);
        let (goodput, most) = (rates[0], 200.0 * (1.0 - loss));
        println!("200 Mbit/s over 20 ms, loss {loss}: {goodput:.1} of {most:.1}, p99 {p99:.1} ms");
        assert!(goodput > most * 0.99, "{goodput} of {most}");
        assert!(p99 < 5.0, "{p99} ms");
    }
}
