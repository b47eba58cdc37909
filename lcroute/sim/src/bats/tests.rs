use super::*;
use proptest::prelude::*;

const BYTES: usize = 24;

fn object(symbols: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    (0..symbols).map(|_| random.bytes(BYTES)).collect()
}

fn decoder(source: &[Vec<u8>]) -> Decoder {
    Decoder::new(source.len(), BYTES, Decoder::hash(source))
}

/// Returns the packets of batches after `links` links, with a router between each two.
fn over_links(encoder: &Encoder, batches: u32, links: u64, loss: f64, seed: u64) -> Vec<Packet> {
    let mut random = Random::new(seed);
    let mut packets: Vec<Packet> = (0..batches).flat_map(|b| encoder.batch(b)).collect();
    for link in 0..links {
        packets.retain(|_| !random.chance(loss));
        if link + 1 < links {
            let mut recoder = Recoder::new(BYTES, loss, seed ^ link);
            packets = packets.iter().flat_map(|p| recoder.handle(p)).collect();
        }
    }
    packets
}

#[test]
fn the_generator_is_that_of_rfc_8682() {
    let mut random = TinyMt32::new(1);
    let first = std::array::from_fn(|_| random.next());
    assert_eq!(
        first,
        [
            2_545_341_989,
            981_918_433,
            3_715_302_833,
            2_387_538_352,
            3_591_001_365
        ]
    );
}

#[test]
fn degrees_are_seventeen_to_the_most_and_as_frequent_as_they_should_be() {
    assert_eq!(degree(0, 1_000), 17);
    assert_eq!(degree(u32::MAX, 1_000), MAX_DEGREE);
    assert_eq!(degree(u32::MAX, 100), 100);
    // half of all batches have degrees up to twice 16
    assert_eq!(degree(u32::MAX / 2, 1_000), 32);
    let mut random = TinyMt32::new(7);
    let sum: usize = (0..10_000).map(|_| degree(random.next(), 1_000)).sum();
    assert!((650_000..770_000).contains(&sum), "{sum}");
}

#[test]
fn a_thousand_symbols_need_hardly_more_packets() {
    let source = object(1_000, 1);
    let encoder = Encoder::new(source.clone()).unwrap();
    let mut decoder = decoder(&source);
    for packet in over_links(&encoder, 110, 5, 0.05, 1) {
        decoder.add(&packet);
        if let Ok(decoded) = decoder.decode() {
            assert_eq!(decoded, source);
            assert!(decoder.rank() <= 1_020, "{}", decoder.rank());
            return;
        }
    }
    panic!("{} packets", decoder.rank());
}

#[test]
fn routers_make_up_for_what_links_lose() {
    let encoder = Encoder::new(object(100, 1)).unwrap();
    let rank = |loss, recoded: bool| {
        let mut packets: Vec<Packet> = (0..200).flat_map(|b| encoder.batch(b)).collect();
        let mut random = Random::new(3);
        for link in 0..5 {
            packets.retain(|_| !random.chance(loss));
            if recoded {
                let mut recoder = Recoder::new(BYTES, loss, link);
                packets = packets.iter().flat_map(|p| recoder.handle(p)).collect();
            }
        }
        let mut decoder = Decoder::new(2_000, BYTES, [0; 32]);
        packets.iter().for_each(|p| {
            decoder.add(p);
        });
        decoder.rank() as f64 / 3_200.0
    };
    for (loss, least) in [(0.05, 0.83), (0.2, 0.6)] {
        assert!(rank(loss, true) > least, "{}", rank(loss, true));
        assert!(rank(loss, false) < (1.0 - loss).powi(5) + 0.03);
    }
}

#[test]
fn what_is_not_of_the_object_is_noticed() {
    let source = object(40, 1);
    let other = Encoder::new(object(40, 2)).unwrap();
    let encoder = Encoder::new(source.clone()).unwrap();
    let mut decoder = decoder(&source);
    decoder.add(&other.batch(0)[3]);
    for packet in (0..6).flat_map(|b| encoder.batch(b)) {
        decoder.add(&packet);
        assert_ne!(decoder.decode(), Ok(object(40, 2)));
        assert!(decoder.rank() <= 80);
    }
    assert_eq!(decoder.decode(), Err(Undecoded::Wrong));
    assert_eq!(decoder.add(&encoder.batch(9)[0]), Added::Full);
}

/// Makes a forged packet, mostly of the right length.
fn foreign() -> impl Strategy<Value = Packet> {
    let length = prop_oneof![8 => Just(BYTES), 1 => 0..2 * BYTES];
    let coefficients = prop_oneof![1 => Just([0; BATCH]), 4 => any::<Coefficients>()];
    let batch = prop_oneof![4 => 0..8_u32, 1 => any::<u32>()];
    (batch, coefficients, length).prop_map(|(batch, coefficients, length)| Packet {
        batch,
        coefficients,
        symbol: vec![0x5a; length],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn packets_in_any_order_decode_to_the_object(
        symbols in 1_usize..120, seed in any::<u64>(), loss in 0.0..0.3, order in any::<u64>()) {
        let source = object(symbols, seed);
        let encoder = Encoder::new(source.clone()).unwrap();
        let batches = 8 + symbols as u32 / 3;
        let mut packets = over_links(&encoder, batches, 3, loss, seed);
        let mut random = Random::new(order);
        for at in (1..packets.len()).rev() {
            packets.swap(at, random.index(at + 1));
        }
        let mut decoder = decoder(&source);
        for packet in &packets {
            // the repetition is not innovative
            decoder.add(packet);
            prop_assert!(matches!(decoder.add(packet), Added::Useless | Added::Full));
        }
        prop_assert_eq!(decoder.decode(), Ok(source));
    }

    #[test]
    fn foreign_packets_do_no_harm_but_delay(
        foreign in prop::collection::vec(foreign(), 1..60), seed in any::<u64>()) {
        let source = object(30, seed);
        let encoder = Encoder::new(source.clone()).unwrap();
        let (mut decoder, mut recoder) = (decoder(&source), Recoder::new(BYTES, 0.2, seed));
        let good: Vec<Packet> = (0..4).flat_map(|b| encoder.batch(b)).collect();
        for (n, packet) in foreign.iter().chain(&good).enumerate() {
            let out = recoder.handle(packet);
            prop_assert!(out.len() <= 1 + BATCH && recoder.open.len() <= OPEN);
            prop_assert!(out.iter().all(|p| p.symbol.len() == BYTES));
            let (before, added) = (decoder.rank(), decoder.add(packet));
            if packet.symbol.len() != BYTES || packet.coefficients == [0; BATCH] {
                prop_assert_eq!(decoder.rank(), before);
                prop_assert_ne!(added, Added::Innovative);
            }
            prop_assert!(decoder.rank() <= 60 && decoder.batches.len() <= 60);
            if n % 8 == 0 && let Ok(decoded) = decoder.decode() {
                prop_assert_eq!(decoded, source.clone());
            }
        }
    }
}
