//! The controller at bottlenecks: a pipe with a rate, a queue and loss, shared by our flows and TCP
//! (CUBIC, RFC 9438), between hosts that may pause.

use librecast::time::{Duration, Instant};
use std::collections::BTreeMap;

use lcroute_lane::{ReplayWindow, Report, Reporter};
use librecast::simulated::{Bottleneck, Network, Path};

use super::congestion::Controller;

const SIZE: usize = 1_250;
const SEED: u64 = 1;
const STEP: Duration = Duration::from_micros(100);

struct Ours {
    controller: Controller,
    /// Bits a second offered by the program.
    offered: f64,
    debt: f64,
    next: u64,
    reporter: Reporter,
    seen: ReplayWindow,
}

impl Ours {
    /// Sends as far as the window allows, and drops messages older than 20 ms.
    fn send(&mut self, now: Instant, out: &mut Vec<u64>) {
        while self.debt >= SIZE as f64 && self.controller.is_open(0, now) {
            self.debt -= SIZE as f64;
            let marker = self.controller.asks_for_report(SIZE, now);
            self.controller.sent(self.next, SIZE, now);
            out.push(self.next << 1 | u64::from(marker));
            self.next += 1;
        }
        self.debt = self.debt.min(self.offered / 8.0 * 0.02);
        self.controller.poll(now);
    }
}

/// Selective acknowledgements, slow start once, losses known after three later packets.
struct Tcp {
    window: f64,
    next: u64,
    under_way: BTreeMap<u64, Duration>,
    cut_at: u64,
    trip: Duration,
    /// The window at the last cut, and its time; `None` in slow start.
    cut: Option<(f64, Duration)>,
    /// The window of Reno.
    friendly: f64,
    /// Whether it has stopped sending.
    over: bool,
}

impl Tcp {
    fn acknowledge(&mut self, number: u64, now: Duration) {
        if let Some(sent) = self.under_way.remove(&number) {
            self.trip = now - sent;
        }
        match self.cut {
            None => self.window += 1.0,
            Some((most, at)) => {
                let seconds = (now - at + self.trip).as_secs_f64();
                let plateau = (most * 0.3 / 0.4).cbrt();
                let target = 0.4 * (seconds - plateau).powi(3) + most;
                self.friendly += 0.53 / self.friendly;
                let by = (target.min(self.window * 1.5) - self.window) / self.window;
                self.window = (self.window + by.max(0.0)).max(self.friendly);
            }
        }
        // three later ones have arrived
        let lost = self.under_way.range(..number.saturating_sub(2));
        let lost: Vec<_> = lost.map(|(n, _)| *n).collect();
        let newest = lost.last().copied();
        lost.iter().for_each(|n| {
            self.under_way.remove(n);
        });
        if newest.is_some_and(|newest| newest >= self.cut_at) {
            // fast convergence
            let below = self.cut.is_some_and(|(most, _)| self.window < most);
            let most = self.window * if below { 0.85 } else { 1.0 };
            self.window = (self.window * 0.7).max(2.0);
            self.friendly = self.window;
            self.cut = Some((most, now));
            self.cut_at = self.next;
        }
    }
}

enum Flow {
    Ours(Box<Ours>),
    Tcp(Tcp),
}

#[derive(Clone)]
enum Parcel {
    /// Number, and whether a queue marked it.
    Packet(u64, bool),
    Report(Vec<u8>),
    Ack(u64),
}

struct Sim {
    start: Instant,
    now: Duration,
    pipe: Bottleneck<Duration>,
    /// Path after the pipe, and back; a parcel names its flow.
    network: Network<Duration, usize, (usize, Parcel)>,
    /// Queue above which packets are marked.
    marks: Option<Duration>,
    flows: Vec<Flow>,
    delivered: Vec<f64>,
    offered: Vec<f64>,
    waits: Vec<Duration>,
    /// Whether both hosts pause now and then; end of each pause, and earliest begin of the next.
    pauses: bool,
    paused: [Duration; 2],
    next_pause: [Duration; 2],
}

impl Sim {
    /// Makes a pipe of `rate` Mbit/s, with a queue of `queue` ms and `delay` ms one way.
    fn new(rate: f64, queue: u64, delay: u64) -> Self {
        let now = Duration::ZERO;
        let path = Path {
            delay: Duration::from_millis(delay),
            ..Path::default()
        };
        Self {
            start: Instant::now(),
            now,
            pipe: Bottleneck::new(rate * 1e6, Duration::from_millis(queue), now),
            network: Network::new(path, SEED),
            marks: None,
            flows: Vec::new(),
            delivered: Vec::new(),
            offered: Vec::new(),
            waits: Vec::new(),
            pauses: false,
            paused: [now; 2],
            next_pause: [now; 2],
        }
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    /// Adds a flow of ours that offers `offered` Mbit/s.
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
            trip: Duration::ZERO,
            cut: None,
            friendly: 0.0,
            over: false,
        }));
    }

    /// Returns the goodput of each flow in Mbit/s, and the 99th percentile of the queue in ms.
    fn run(&mut self, seconds: f64) -> (Vec<f64>, f64) {
        self.delivered = vec![0.0; self.flows.len()];
        self.offered = vec![0.0; self.flows.len()];
        self.waits.clear();
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += STEP;
            if self.pauses {
                self.pause();
            }
            self.deliver();
            for n in 0..self.flows.len() {
                self.send(n);
            }
        }
        self.waits.sort_unstable();
        let p99 = self.waits.get(self.waits.len() * 99 / 100);
        let rates = self.delivered.iter().map(|b| b * 8.0 / seconds / 1e6);
        (rates.collect(), p99.map_or(0.0, |w| w.as_secs_f64() * 1e3))
    }

    /// Pauses each host for 5 to 40 ms about six times a second.
    fn pause(&mut self) {
        for host in 0..2 {
            if self.now >= self.next_pause[host] {
                let random = &mut self.network.random;
                let [least, most, next] = [5, 40, 280].map(Duration::from_millis);
                self.paused[host] = self.now + random.between(least, most);
                self.next_pause[host] = self.paused[host] + random.between(Duration::ZERO, next);
            }
        }
    }

    fn put(&mut self, flow: usize, number: u64) {
        self.offered[flow] += SIZE as f64;
        let wait = self.pipe.wait(self.now);
        let Some(through) = self.pipe.pass(SIZE + 48, self.now) else {
            return;
        };
        self.waits.push(wait);
        let marked = self.marks.is_some_and(|from| wait > from);
        let packet = Parcel::Packet(number, marked);
        self.network.send(0, 1, (flow, packet), through);
    }

    fn send(&mut self, n: usize) {
        let now = self.instant();
        let mut out = Vec::new();
        let mut report = None;
        match &mut self.flows[n] {
            Flow::Ours(ours) => {
                ours.debt += ours.offered / 8.0 * STEP.as_secs_f64();
                if self.now >= self.paused[0] {
                    ours.send(now, &mut out);
                }
                if self.now >= self.paused[1]
                    && ours.reporter.deadline().is_some_and(|due| due <= now)
                {
                    report = ours.reporter.report(&ours.seen, now);
                }
            }
            Flow::Tcp(tcp) => {
                while !tcp.over && (tcp.under_way.len() as f64) < tcp.window {
                    tcp.under_way.insert(tcp.next, self.now);
                    out.push(tcp.next << 1);
                    tcp.next += 1;
                }
                // a lost tail: packets are numbered in the order of their times
                let late = self.now.saturating_sub(Duration::from_secs(1));
                while let Some(oldest) = tcp.under_way.first_entry()
                    && *oldest.get() <= late
                {
                    oldest.remove();
                }
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
        let report = Parcel::Report(bytes.to_vec());
        self.network.send(1, 0, (flow, report), self.now);
    }

    fn deliver(&mut self) {
        while let Some((n, parcel)) = self.network.poll(self.now) {
            let host = usize::from(matches!(parcel, Parcel::Packet(..)));
            if self.paused[host] > self.now && matches!(self.flows[n], Flow::Ours(_)) {
                self.network.post((n, parcel), self.paused[host]);
            } else {
                self.handle(n, parcel);
            }
        }
    }

    fn handle(&mut self, n: usize, parcel: Parcel) {
        let now = self.instant();
        match (&mut self.flows[n], parcel) {
            (Flow::Ours(ours), Parcel::Packet(number, marked)) => {
                self.delivered[n] += SIZE as f64;
                ours.seen.mark(number >> 1);
                let (packet, marker) = ((number >> 1, SIZE), number & 1 == 1);
                if ours.reporter.handle(packet, marker, marked, now)
                    && let Some(report) = ours.reporter.report(&ours.seen, now)
                {
                    self.tell(n, &report);
                }
            }
            (Flow::Ours(ours), Parcel::Report(bytes)) => {
                let report = Report::read(&bytes).unwrap();
                assert!(ours.controller.handle(&report, ours.next, now));
            }
            (Flow::Tcp(_), Parcel::Packet(number, _)) => {
                self.delivered[n] += SIZE as f64;
                let at = self.now + self.network.path.delay;
                self.network.post((n, Parcel::Ack(number >> 1)), at);
            }
            (Flow::Tcp(tcp), Parcel::Ack(number)) => tcp.acknowledge(number, self.now),
            _ => unreachable!("parcels go to flows of their kind"),
        }
    }
}

/// Returns the payload share of `rate` Mbit/s.
fn payload(rate: f64) -> f64 {
    rate * SIZE as f64 / (SIZE + 48) as f64
}

/// Runs a single flow that offers five times the rate. Returns its share of the rate, the 99th
/// percentile of the queue, and the sent share, after two seconds.
fn alone(seed: u64, (rate, queue, delay): (f64, u64, u64), loss: f64) -> (f64, f64, f64) {
    let mut sim = Sim::new(rate, queue, delay);
    sim.network = Network::new(
        Path {
            loss,
            ..sim.network.path
        },
        seed,
    );
    sim.ours(rate * 5.0);
    sim.run(2.0);
    let (rates, p99) = sim.run(8.0);
    let share = rates[0] / payload(rate) / (1.0 - loss);
    let sent = sim.offered[0] * 8.0 / 8e6 / payload(rate);
    println!(
        "{rate} Mbit/s, {queue} ms queue, {delay} ms, loss {loss}: {:.1} ({share:.2}) p99 {p99:.0} ms, \
         sent {sent:.2}",
        rates[0]
    );
    (share, p99, sent)
}

/// Seeds 1 to 24 at 20 % loss: the worst fills 0.87 of 20 Mbit/s and more. At 2 Mbit/s half of them
/// fill 0.92, the worst 0.77 with a queue of 151 ms: few packets are in flight.
#[test]
fn a_bottleneck_is_filled_and_random_loss_changes_little() {
    for (rate, delay) in [(20.0, 10), (20.0, 1), (200.0, 10), (1_000.0, 1), (2.0, 10)] {
        for loss in [0.0, 0.05, 0.2] {
            // with thousands of packets in flight, one seed is as good as three
            for seed in 1..=if rate > 500.0 { 1 } else { 3 } {
                let (share, p99, _) = alone(seed, (rate, 500, delay), loss);
                let (least, most) = match (rate < 10.0, loss > 0.1) {
                    (false, false) => (0.94, 25.0),
                    (false, true) => (0.86, 25.0),
                    (true, false) => (0.94, 35.0),
                    (true, true) => (0.75, 160.0),
                };
                assert!(share > least, "{share}");
                assert!(p99 < most, "{p99} ms");
            }
        }
    }
}

#[test]
fn a_short_queue_is_not_flooded() {
    for (loss, least) in [(0.0, 0.85), (0.05, 0.8), (0.2, 0.65)] {
        for rate in [20.0, 200.0] {
            let (share, _, sent) = alone(SEED, (rate, 5, 10), loss);
            assert!(share > least, "{share}");
            assert!(sent < 1.25, "{sent}");
        }
    }
}

#[test]
fn a_long_way_works() {
    for loss in [0.0, 0.05] {
        let mut sim = Sim::new(20.0, 500, 100);
        sim.network.path.loss = loss;
        sim.ours(100.0);
        let (_, start) = sim.run(5.0);
        let (rates, p99) = sim.run(20.0);
        let share = rates[0] / payload(20.0) / (1.0 - loss);
        println!("200 ms, loss {loss}: {share:.2}, p99 {p99:.0} ms, at the start {start:.0} ms");
        assert!(share > 0.85, "{share}");
        assert!(p99 < 60.0 && start < 140.0, "{p99}, {start}");
    }
}

#[test]
fn a_rate_near_that_of_the_path_is_reached_soon() {
    for (offered, least) in [(0.9, 0.98), (0.98, 0.98), (1.02, 0.95), (1.2, 0.94)] {
        let mut sim = Sim::new(200.0, 500, 10);
        sim.ours(payload(200.0) * offered);
        sim.run(1.0);
        let (soon, _) = sim.run(1.0);
        let (then, p99) = sim.run(8.0);
        let share = [soon, then].map(|rates| rates[0] / payload(200.0) / offered.min(1.0));
        println!("{offered} of 200 Mbit/s over 20 ms: {share:.3?}, p99 {p99:.0} ms");
        assert!(share[0] > 0.9 && share[1] > least, "{share:?}");
        assert!(p99 < 21.0, "{p99} ms");
    }
}

#[test]
fn the_rate_follows_the_path() {
    let mut sim = Sim::new(20.0, 500, 10);
    sim.ours(100.0);
    for rate in [20.0, 5.0, 40.0, 10.0] {
        sim.pipe.rate = rate * 1e6;
        sim.run(1.5);
        let (rates, p99) = sim.run(3.0);
        assert!(rates[0] > rate * 0.8, "{rates:?} of {rate}");
        assert!(p99 < 50.0, "{p99} ms at {rate}");
    }
}

/// Seconds before the second flow starts: its place in the first one's saw matters.
const LATER: [f64; 4] = [5.0, 5.7, 6.3, 7.9];

fn mean(ratios: &[f64]) -> f64 {
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (sum / ratios.len() as f64).exp()
}

/// Returns our share as a multiple of TCP's, over a minute.
fn beside_tcp(queue: u64, delay: u64, we_first: bool, later: f64) -> f64 {
    let mut sim = Sim::new(20.0, queue, delay);
    if we_first {
        sim.ours(100.0);
        sim.run(later);
        sim.tcp();
    } else {
        sim.tcp();
        sim.run(later);
        sim.ours(100.0);
    }
    sim.run(10.0);
    let (mut rates, _) = sim.run(60.0);
    if !we_first {
        rates.reverse();
    }
    rates[0] / rates[1]
}

#[test]
fn tcp_and_we_share() {
    for (queue, delay) in [(50, 1), (50, 10), (100, 1), (100, 10)] {
        for first in [true, false] {
            let ratios = LATER.map(|later| beside_tcp(queue, delay, first, later));
            let mean = mean(&ratios);
            println!(
                "{queue} ms, {delay} ms, beside TCP, we first {first}: {ratios:.2?}, {mean:.2}"
            );
            // measured: 0.58 to 1.98
            assert!((0.45..=2.25).contains(&mean), "{mean}");
            // a single run may be worse
            let fair = |ratio: &f64| (0.33..=3.0).contains(ratio);
            assert!(ratios.iter().all(fair), "{ratios:?}");
        }
    }
}

#[test]
fn a_queue_is_ours_again_when_tcp_has_gone() {
    let mut sim = Sim::new(20.0, 100, 10);
    sim.ours(100.0);
    sim.tcp();
    sim.run(20.0);
    if let Flow::Tcp(tcp) = &mut sim.flows[1] {
        tcp.over = true;
    }
    sim.run(8.0);
    let (rates, p99) = sim.run(10.0);
    assert!(rates[0] > 17.0 && p99 < 22.0, "{rates:?}, {p99} ms");
}

#[test]
fn two_of_ours_share_a_bottleneck() {
    for (queue, rate) in [(50, 20.0), (500, 20.0), (50, 200.0), (500, 200.0)] {
        let mut sim = Sim::new(rate, queue, 10);
        sim.ours(rate * 5.0);
        sim.run(5.0);
        sim.ours(rate * 5.0);
        sim.run(5.0);
        for seconds in [5.0, 30.0] {
            let (rates, p99) = sim.run(seconds);
            println!("two in {rate} Mbit/s, queue {queue}: {rates:.1?} p99 {p99:.0} ms");
            let ratio = rates[0] / rates[1];
            assert!((0.5..=2.0).contains(&ratio), "{rates:?}");
            assert!(p99 < 35.0, "{p99} ms");
        }
    }
}

#[test]
fn marks_are_heeded() {
    let mut sim = Sim::new(20.0, 500, 10);
    sim.marks = Some(Duration::from_millis(5));
    sim.ours(100.0);
    sim.run(2.0);
    let (rates, p99) = sim.run(8.0);
    println!("marks from 5 ms: {rates:.1?} p99 {p99:.0} ms");
    assert!(rates[0] > payload(20.0) * 0.9, "{rates:?}");
    assert!(p99 < 12.0, "{p99} ms");
}

#[test]
fn a_flow_starts_fast() {
    for (offered, delay) in [(50.0, 10), (200.0, 10), (1_000.0, 1)] {
        let mut sim = Sim::new(2_000.0, 100, delay);
        sim.ours(offered);
        let (first, _) = sim.run(0.25);
        let (then, _) = sim.run(0.3);
        println!("{offered} Mbit/s over 2 x {delay} ms: {first:.1?}, after 0.25 s {then:.1?}");
        assert!(then[0] > offered * 0.99, "{then:?}");
    }
}

#[test]
fn what_fits_is_never_held_back() {
    for loss in [0.0, 0.05, 0.2] {
        let mut sim = Sim::new(1_000.0, 100, 10);
        sim.network.path.loss = loss;
        sim.ours(200.0);
        sim.run(2.0);
        let (rates, p99) = sim.run(10.0);
        let (goodput, most) = (rates[0], 200.0 * (1.0 - loss));
        println!("200 Mbit/s over 20 ms, loss {loss}: {goodput:.1} of {most:.1}, p99 {p99:.1} ms");
        assert!(goodput > most * 0.99, "{goodput} of {most}");
        assert!(p99 < 5.0, "{p99} ms");
    }
}

#[test]
fn hosts_that_pause_hold_little_back() {
    for loss in [0.0, 0.05, 0.2] {
        for (offered, delay) in [(10.0, 1), (10.0, 10), (50.0, 10), (200.0, 1), (200.0, 10)] {
            let mut sim = Sim::new(1_000.0, 100, delay);
            sim.network.path.loss = loss;
            sim.pauses = true;
            sim.ours(offered);
            sim.run(2.0);
            let (rates, _) = sim.run(20.0);
            let share = rates[0] / offered / (1.0 - loss);
            println!("pauses, {offered} Mbit/s, {delay} ms, loss {loss}: {share:.3}");
            assert!(share > 0.95, "{share}");
        }
    }
}
