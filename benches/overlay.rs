//! One link, 1,200-byte messages: from message to datagram (queue, window, payload, sealing), and
//! from datagram to message (demultiplexing, opening, replay window, report), per lane. For
//! comparison AES-GCM alone: the difference is ours.

#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod pair;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lcroute_overlay::Event;
use lcroute_webrtc::Transmit;
use pair::{HEADER, Node, connect, shuttle};

/// Messages between two readings of the clock: one turn of the packet loop.
const BATCH: usize = 64;
const MESSAGE: usize = 1_200;

struct Link {
    from: Node,
    to: Node,
    body: Vec<u8>,
}

/// Time of a batch, and number of its messages.
#[derive(Default)]
struct Took {
    send: Duration,
    sent: usize,
    receive: Duration,
    received: usize,
}

impl Link {
    fn new(media: bool) -> Self {
        let (from, to) = connect(media).unwrap();
        Self {
            from,
            to,
            body: vec![0x5a; MESSAGE - HEADER],
        }
    }

    /// Sends messages as far as the window allows, at most [`BATCH`].
    fn batch(&mut self) -> Took {
        let link = self.from.link.unwrap();
        let mut took = Took::default();
        let began = Instant::now();
        for _ in 0..BATCH {
            let parts = [&[0x10; HEADER], &self.body[..]];
            if self.from.overlay.send_data(link, parts, began).is_err() {
                break;
            }
            took.sent += 1;
        }
        let datagrams: Vec<Transmit> =
            std::iter::from_fn(|| self.from.overlay.connections_mut().poll_transmit()).collect();
        took.send = began.elapsed();

        let began = Instant::now();
        for datagram in &datagrams {
            let (to, ecn) = (datagram.to, datagram.ecn);
            self.to.overlay.connections_mut().handle_datagram(
                self.from.addr,
                to,
                &datagram.contents,
                ecn,
                began,
            );
        }
        while let Some(event) = self.to.overlay.poll_event(began) {
            took.received += usize::from(matches!(black_box(event), Event::Data { .. }));
        }
        took.receive = began.elapsed();
        // Reports and timers of both, not measured.
        shuttle(&mut self.to, &mut self.from);
        shuttle(&mut self.from, &mut self.to);
        took
    }

    /// Returns the time of `iterations` messages.
    fn time(&mut self, iterations: u64, part: impl Fn(&Took) -> (Duration, usize)) -> Duration {
        let (mut sum, mut count) = (Duration::ZERO, 0);
        let deadline = Instant::now() + Duration::from_secs(20);
        while count < iterations {
            let (took, messages) = part(&self.batch());
            sum += took;
            count += messages as u64;
            assert!(
                Instant::now() < deadline,
                "the link carries nothing any more"
            );
        }
        sum.mul_f64(iterations as f64 / count as f64)
    }
}

fn lanes(criterion: &mut Criterion) {
    for (name, media) in [("media lane", true), ("data channel", false)] {
        let mut bench = criterion.benchmark_group(name);
        bench.throughput(Throughput::Bytes(MESSAGE as u64));
        let mut link = Link::new(media);
        bench.bench_function("send", |bench| {
            bench.iter_custom(|iterations| link.time(iterations, |took| (took.send, took.sent)));
        });
        bench.bench_function("receive", |bench| {
            bench.iter_custom(|iterations| {
                link.time(iterations, |took| (took.receive, took.received))
            });
        });
    }
}

fn cipher(criterion: &mut Criterion) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([3; 12]);
    let header = [0; 12];
    let mut bench = criterion.benchmark_group("AES-128-GCM alone");
    bench.throughput(Throughput::Bytes(MESSAGE as u64));
    let mut plain = vec![0x5a; MESSAGE];
    bench.bench_function("seal", |bench| {
        bench.iter(|| {
            key.seal_in_place_separate_tag(nonce(), Aad::from(&header), black_box(&mut plain))
                .unwrap()
        });
    });
    let mut sealed = vec![0x5a; MESSAGE];
    key.seal_in_place_append_tag(nonce(), Aad::from(&header), &mut sealed)
        .unwrap();
    let mut opened = vec![0; MESSAGE];
    let (text, tag) = sealed.split_at(MESSAGE);
    bench.bench_function("open", |bench| {
        bench.iter(|| {
            let header = Aad::from(&header);
            key.open_separate_gather(nonce(), header, black_box(text), tag, &mut opened)
                .unwrap();
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = lanes, cipher
}
criterion_main!(benches);
