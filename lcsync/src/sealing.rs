//! Sealed datagrams of shares with a key: AES-256-GCM around the output of [`packet`].
//!
//! ```text
//! key file, NAME -> share key -+- salt of the server ------------------> key of its records
//!                              +- salt of the server, generation ------> key of its symbols
//! ```
//!
//! A server draws its salt at its start, and never seals two datagrams under one number, so no
//! nonce repeats under one key. Receivers learn a server's salt from its record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use librecast::channel::ChannelId;
use librecast::coding::SYMBOL_SIZE;
use librecast::id::derive;
use librecast::wire::{Reader, WireError, Writer};
use librecast_program::keyfile::SharedKey;
use zeroize::Zeroizing;

use crate::catalogue;
use crate::packet::{
    self, OpenError, Packet, SEALED_CATALOGUE, SEALED_RECORD, SEALED_SYMBOL, SEALED_WIRE_SIZE,
    Symbol, VERSION,
};
use crate::record::Record;

/// Length of a salt.
pub const SALT: usize = 16;
/// Bytes of the AEAD's tag.
const TAG: usize = 16;
/// Bytes before the sealed part of a symbol.
const SYMBOL_HEADER: usize = 16;
/// Fields that are sealed with the data, in bytes.
const SYMBOL_FIELDS: usize = 12;
/// Bytes of a whole sealed symbol; with IPv6 and UDP 1,116.
pub const SEALED_PACKET: usize = SYMBOL_HEADER + SYMBOL_FIELDS + SYMBOL_SIZE + TAG;
/// Bytes before the sealed part of a record.
const RECORD_HEADER: usize = 4 + SALT + 8;
/// Bytes that sealing adds to a record's datagram.
pub const RECORD_OVERHEAD: usize = RECORD_HEADER - 4 + TAG;
/// Most servers with known keys.
const MAX_SERVERS: usize = 64;

const _: () = assert!(SEALED_WIRE_SIZE <= 1280);
const _: () = assert!(SEALED_WIRE_SIZE == 40 + 8 + SEALED_PACKET as u64);

/// The key of one share, from a key file and a NAME.
pub struct ShareKey {
    shared: Arc<SharedKey>,
    derived: Zeroizing<[u8; 32]>,
}

impl ShareKey {
    /// Derives it for the share NAME.
    #[must_use]
    pub fn new(shared: Arc<SharedKey>, name: &str) -> Self {
        let parts = [&shared.bytes()[..], name.as_bytes()];
        Self {
            derived: Zeroizing::new(derive("lcsync 2026 share key", &parts)),
            shared,
        }
    }

    /// Derives the key of another share of the same key file.
    #[must_use]
    pub fn of_name(&self, name: &str) -> Self {
        Self::new(Arc::clone(&self.shared), name)
    }

    fn record_key(&self, salt: &[u8; SALT]) -> Cipher {
        Cipher::new(derive("lcsync 2026 record key", &[&self.derived[..], salt]))
    }

    fn symbol_key(&self, salt: &[u8; SALT], generation: u64) -> Cipher {
        let parts = [&self.derived[..], salt, &generation.to_be_bytes()];
        Cipher::new(derive("lcsync 2026 symbol key", &parts))
    }
}

/// The key from which names of shares and channels are derived; empty without key.
#[must_use]
pub fn group_key(key: Option<&ShareKey>) -> &[u8] {
    key.map_or(b"", |k| &k.shared.bytes()[..])
}

librecast::debug_by_name!(ShareKey);

#[derive(Debug)]
struct Cipher(LessSafeKey);

impl Cipher {
    fn new(key: [u8; 32]) -> Self {
        let key = Zeroizing::new(key);
        // a key of 32 bytes is valid
        #[allow(clippy::expect_used, reason = "the length is that of the algorithm")]
        let unbound = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("32 bytes are a key");
        Self(LessSafeKey::new(unbound))
    }

    /// Seals `out[from..]` and appends the tag.
    fn seal(&self, number: u64, aad: &[u8], out: &mut Vec<u8>, from: usize) -> bool {
        let sealed =
            self.0
                .seal_in_place_separate_tag(nonce(number), Aad::from(aad), &mut out[from..]);
        match sealed {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                true
            }
            Err(_) => false,
        }
    }

    /// Writes the plain text of `sealed`, its tag at the end, into `out`.
    fn open(
        &self,
        number: u64,
        aad: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let (text, tag) = sealed
            .split_last_chunk::<TAG>()
            .ok_or(WireError::Truncated)?;
        out.resize(text.len(), 0);
        self.0
            .open_separate_gather(nonce(number), Aad::from(aad), text, tag, out)
            .map_err(|_| OpenError::Forged)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Seals a server's datagrams of one share.
#[derive(Debug)]
pub struct Sealer {
    key: Arc<ShareKey>,
    server: u32,
    salt: [u8; SALT],
    /// Number of the next datagram, of any kind and on any interface.
    number: u64,
    records: Cipher,
    symbols: Option<(u64, Cipher)>,
}

impl Sealer {
    /// Makes one for a run of a server: `salt` is random and never used again.
    #[must_use]
    pub fn new(key: Arc<ShareKey>, server: u32, salt: [u8; SALT]) -> Self {
        Self {
            records: key.record_key(&salt),
            symbols: None,
            number: 0,
            key,
            server,
            salt,
        }
    }

    /// Returns the sealed form of a record's datagram, or of a catalogue's.
    pub fn seal_record(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let body = datagram.get(packet::HEADER..)?;
        let number = self.next()?;
        let mut w = Writer::new();
        w.u8(VERSION).u8(packet::sealed_type(datagram)?).u16(0);
        w.put(&self.salt).u64(number).put(body);
        let mut out = w.into_vec();
        let aad = out[..RECORD_HEADER].to_vec();
        self.records
            .seal(number, &aad, &mut out, RECORD_HEADER)
            .then_some(out)
    }

    /// Appends a sealed symbol of the version `generation` to `out`; `write` appends the symbol's
    /// data. False if it fails, with `out` unchanged.
    pub fn seal_symbol(
        &mut self,
        generation: u64,
        symbol: &Symbol<'_>,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> bool {
        let Some(number) = self.next() else {
            return false;
        };
        let start = out.len();
        let aad = symbol_aad(self.server, number, symbol.channel);
        out.extend_from_slice(&aad[..SYMBOL_HEADER]);
        for field in [symbol.sequence, symbol.block_length, symbol.esi] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        let cipher = match &mut self.symbols {
            Some((of, cipher)) if *of == generation => cipher,
            other => {
                let cipher = self.key.symbol_key(&self.salt, generation);
                &mut other.insert((generation, cipher)).1
            }
        };
        let sealed = write(out) && cipher.seal(number, &aad, out, start + SYMBOL_HEADER);
        if !sealed {
            out.truncate(start);
        }
        sealed
    }

    /// Returns an unused number; `None` after 2^64 datagrams.
    fn next(&mut self) -> Option<u64> {
        let number = self.number;
        self.number = number.checked_add(1)?;
        Some(number)
    }
}

/// The header as it is sent, and the channel, which only the group names.
fn symbol_aad(server: u32, number: u64, channel: ChannelId) -> [u8; SYMBOL_HEADER + 8] {
    let mut aad = [0; SYMBOL_HEADER + 8];
    aad[0] = VERSION;
    aad[1] = SEALED_SYMBOL;
    aad[4..8].copy_from_slice(&server.to_be_bytes());
    aad[8..16].copy_from_slice(&number.to_be_bytes());
    aad[16..].copy_from_slice(&channel.to_be_bytes());
    aad
}

/// Opens sealed datagrams on a receiver.
#[derive(Debug)]
pub struct Unsealer {
    key: Arc<ShareKey>,
    servers: BTreeMap<u32, ServerKeys>,
    plain: Vec<u8>,
}

#[derive(Debug)]
struct ServerKeys {
    salt: [u8; SALT],
    records: Cipher,
    generation: u64,
    symbols: Cipher,
    /// Of the previous version: its last symbols may come after the next one's first record.
    before: Option<Cipher>,
    heard: Instant,
}

impl Unsealer {
    /// Starts without known servers.
    #[must_use]
    pub fn new(key: Arc<ShareKey>) -> Self {
        Self {
            key,
            servers: BTreeMap::new(),
            plain: Vec::new(),
        }
    }

    /// The key of the share.
    pub fn key(&self) -> &ShareKey {
        &self.key
    }

    /// Opens a datagram on `channel`, and checks each field.
    pub fn open<'a>(
        &'a mut self,
        channel: ChannelId,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Packet<'a>, OpenError> {
        let (servers, plain) = (&mut self.servers, &mut self.plain);
        open_sealed(&self.key, servers, plain, channel, datagram, now)
    }
}

fn open_sealed<'a>(
    key: &ShareKey,
    servers: &mut BTreeMap<u32, ServerKeys>,
    plain: &'a mut Vec<u8>,
    channel: ChannelId,
    datagram: &[u8],
    now: Instant,
) -> Result<Packet<'a>, OpenError> {
    let mut r = Reader::new(datagram);
    match packet::read_header(&mut r)? {
        SEALED_RECORD => {
            let salt = open_body(key, servers, plain, datagram, r)?;
            let mut r = Reader::new(plain);
            let record = Record::read(&mut r)?;
            r.finish()?;
            remember(key, servers, &record, salt, now);
            Ok(Packet::Record(Box::new(record)))
        }
        SEALED_CATALOGUE => {
            open_body(key, servers, plain, datagram, r)?;
            Ok(Packet::Catalogue(catalogue::read(&mut Reader::new(plain))?))
        }
        SEALED_SYMBOL => {
            let (server, number) = (r.u32()?, r.u64()?);
            let known = servers.get(&server).ok_or(OpenError::UnknownServer)?;
            let aad = symbol_aad(server, number, channel);
            let mut opened = known.symbols.open(number, &aad, r.rest(), plain);
            if let (Err(OpenError::Forged), Some(before)) = (&opened, &known.before) {
                opened = before.open(number, &aad, r.rest(), plain);
            }
            opened?;
            read_symbol(server, channel, plain)
        }
        _ => Err(WireError::Bad("packet type").into()),
    }
}

fn read_symbol(server: u32, channel: ChannelId, plain: &[u8]) -> Result<Packet<'_>, OpenError> {
    let mut r = Reader::new(plain);
    let symbol = Symbol {
        server,
        channel,
        sequence: r.u32()?,
        block_length: r.u32()?,
        esi: r.u32()?,
        data: r.take(SYMBOL_SIZE)?,
    };
    r.finish()?;
    symbol.check()?;
    Ok(Packet::Symbol(symbol))
}

/// Opens a datagram with its own salt; returns the salt.
fn open_body(
    key: &ShareKey,
    servers: &BTreeMap<u32, ServerKeys>,
    plain: &mut Vec<u8>,
    datagram: &[u8],
    mut r: Reader<'_>,
) -> Result<[u8; SALT], OpenError> {
    let (salt, number) = (r.array::<SALT>()?, r.u64()?);
    let aad = &datagram[..RECORD_HEADER];
    let known = servers.values().find(|s| s.salt == salt);
    // a foreign salt costs a key derivation, which leaves no state if opening fails
    let made = known.is_none().then(|| key.record_key(&salt));
    let cipher = known.map(|s| &s.records).or(made.as_ref());
    cipher
        .ok_or(OpenError::Forged)?
        .open(number, aad, r.rest(), plain)?;
    Ok(salt)
}

/// Stores the keys of the record's server. An old record, late or replayed, changes nothing.
fn remember(
    key: &ShareKey,
    servers: &mut BTreeMap<u32, ServerKeys>,
    record: &Record,
    salt: [u8; SALT],
    now: Instant,
) {
    if let Some(known) = servers.get_mut(&record.server) {
        if known.salt == salt && known.generation == record.generation {
            known.heard = now;
            return;
        }
        if record.generation < known.generation {
            return;
        }
    } else if servers.len() >= MAX_SERVERS {
        let oldest = servers.iter().min_by_key(|(_, s)| s.heard).map(|(n, _)| *n);
        oldest.and_then(|n| servers.remove(&n));
    }
    let before = servers.remove(&record.server).map(|s| s.symbols);
    let keys = ServerKeys {
        salt,
        records: key.record_key(&salt),
        generation: record.generation,
        symbols: key.symbol_key(&salt, record.generation),
        before,
        heard: now,
    };
    servers.insert(record.server, keys);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opener::Opener;
    use crate::packet::encode_record;
    use crate::record::tests::{record, records};
    use proptest::prelude::*;

    const CHANNEL: ChannelId = 77;
    const DATA: [u8; SYMBOL_SIZE] = [0x5a; SYMBOL_SIZE];

    fn key(n: u8, name: &str) -> Arc<ShareKey> {
        let shared = Arc::new(SharedKey::from_bytes([n; 32]));
        Arc::new(ShareKey::new(shared, name))
    }

    fn symbol(esi: u32) -> Symbol<'static> {
        Symbol {
            server: 1,
            sequence: 5,
            channel: CHANNEL,
            block_length: 100_000,
            esi,
            data: &DATA,
        }
    }

    fn sealer(salt: u8) -> Sealer {
        Sealer::new(key(1, "a"), 1, [salt; SALT])
    }

    fn opener() -> Opener {
        Opener::new(Some(key(1, "a")))
    }

    fn seal(sealer: &mut Sealer, generation: u64, esi: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&DATA);
            true
        };
        assert!(sealer.seal_symbol(generation, &symbol(esi), &mut out, write));
        out
    }

    fn seal_record(sealer: &mut Sealer, record: &Record) -> Vec<u8> {
        let plain = encode_record(record).unwrap();
        sealer.seal_record(&plain).unwrap()
    }

    #[test]
    fn symbols_are_opened_once_a_record_of_their_server_has_been() {
        let (mut sealer, mut opener, now) = (sealer(1), opener(), Instant::now());
        let sealed = seal(&mut sealer, 9, 3);
        assert_eq!(sealed.len(), SEALED_PACKET);
        let early = opener.open(CHANNEL, &sealed, now);
        assert_eq!(early, Err(OpenError::UnknownServer));
        let said = seal_record(&mut sealer, &record(1, 9));
        assert!(matches!(opener.open(0, &said, now), Ok(Packet::Record(r)) if *r == record(1, 9)));
        assert_eq!(
            opener.open(CHANNEL, &sealed, now),
            Ok(Packet::Symbol(symbol(3)))
        );
        assert_eq!(opener.drops().unknown_server, 1);
    }

    #[test]
    fn nothing_in_the_clear_tells_what_is_inside() {
        let mut sealer = sealer(1);
        let sealed = seal(&mut sealer, 9, 0x0012_3456);
        let said = seal_record(&mut sealer, &record(1, 9));
        for (packet, plain) in [
            (&sealed, &DATA[..8]),
            (&sealed, &100_000_u32.to_be_bytes()),
            (&sealed, &0x0012_3456_u32.to_be_bytes()),
            (&said, &9_u64.to_be_bytes()),
        ] {
            assert!(!packet[24..].windows(plain.len()).any(|w| w == plain));
        }
    }

    #[test]
    fn a_symbol_is_good_on_its_channel_and_in_its_share_only() {
        let (mut sealer, now) = (sealer(1), Instant::now());
        let said = seal_record(&mut sealer, &record(1, 9));
        let sealed = seal(&mut sealer, 9, 3);
        let mut right = opener();
        right.open(0, &said, now).unwrap();
        assert_eq!(
            right.open(CHANNEL + 1, &sealed, now),
            Err(OpenError::Forged)
        );
        for other in [key(2, "a"), key(1, "b")] {
            let mut other = Unsealer::new(other);
            assert_eq!(other.open(0, &said, now), Err(OpenError::Forged));
            assert!(other.servers.is_empty());
        }
        assert!(Opener::new(None).open(0, &said, now).is_err());
        let plain = encode_record(&record(1, 9)).unwrap();
        assert!(matches!(
            right.open(0, &plain, now),
            Err(OpenError::Wire(_))
        ));
    }

    #[test]
    fn symbols_of_the_version_before_are_opened_and_older_records_change_nothing() {
        let (mut sealer, mut opener, now) = (sealer(1), opener(), Instant::now());
        let records = [1, 2, 1].map(|g| seal_record(&mut sealer, &record(1, g)));
        let late = seal(&mut sealer, 1, 3);
        let current = seal(&mut sealer, 2, 3);
        for said in &records {
            opener.open(0, said, now).unwrap();
            let early = opener.open(CHANNEL, &late, now);
            assert!(early.is_ok());
        }
        assert!(opener.open(CHANNEL, &current, now).is_ok());
        let two_before = seal_record(&mut sealer, &record(1, 3));
        opener.open(0, &two_before, now).unwrap();
        assert_eq!(opener.open(CHANNEL, &late, now), Err(OpenError::Forged));
    }

    #[test]
    fn keys_of_servers_are_bounded_and_the_latest_heard_stay() {
        let (mut opener, start) = (Unsealer::new(key(1, "a")), Instant::now());
        for n in 0..1_000_u32 {
            let mut sealer = Sealer::new(
                key(1, "a"),
                n,
                derive("t", &[&n.to_be_bytes()])[..SALT].try_into().unwrap(),
            );
            let now = start + std::time::Duration::from_millis(n.into());
            let said = seal_record(&mut sealer, &record(n, 1));
            opener.open(0, &said, now).unwrap();
        }
        assert_eq!(opener.servers.len(), MAX_SERVERS);
        assert!(opener.servers.contains_key(&999) && !opener.servers.contains_key(&0));
    }

    #[test]
    fn numbers_never_repeat_over_kinds_and_versions_and_end_with_the_last() {
        let mut sealer = sealer(1);
        let number =
            |packet: &[u8], at: usize| u64::from_be_bytes(packet[at..at + 8].try_into().unwrap());
        let numbers = [
            number(&seal(&mut sealer, 1, 0), 8),
            number(&seal_record(&mut sealer, &record(1, 1)), 4 + SALT),
            number(&seal(&mut sealer, 2, 0), 8),
            number(&seal(&mut sealer, 1, 0), 8),
        ];
        assert_eq!(numbers, [0, 1, 2, 3]);
        sealer.number = u64::MAX;
        let mut out = vec![1];
        assert!(!sealer.seal_symbol(1, &symbol(1), &mut out, |_| true));
        assert_eq!(out, [1]);
    }

    #[test]
    fn sealed_bytes_are_frozen() {
        let mut sealer = sealer(7);
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
        let symbol = seal(&mut sealer, 9, 3);
        let record = sealer.seal_record(&[1, 1, 0, 0, 8, 8, 8]).unwrap();
        assert_eq!(hash(&symbol), "f14b34036b9ebfab");
        assert_eq!(hash(&record), "28c2a1aa97183ae2");
    }

    proptest! {
        #[test]
        fn records_round_trip_and_fit(record in records()) {
            let sealed = seal_record(&mut sealer(1), &record);
            prop_assert!(40 + 8 + sealed.len() <= 1280);
            let mut opener = opener();
            prop_assert_eq!(opener.open(0, &sealed, Instant::now()), Ok(Packet::Record(Box::new(record))));
        }

        #[test]
        fn any_damage_is_noticed(at: proptest::sample::Index, bit in 0..8u8, symbol: bool) {
            let (mut sealer, mut opener, now) = (sealer(1), opener(), Instant::now());
            let said = seal_record(&mut sealer, &record(1, 9));
            opener.open(0, &said, now).unwrap();
            let mut packet = if symbol { seal(&mut sealer, 9, 3) } else { said };
            let at = at.index(packet.len());
            packet[at] ^= 1 << bit;
            prop_assert!(opener.open(CHANNEL, &packet, now).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400), kind in 0..5u8) {
            let mut bytes = bytes;
            if let Some(head) = bytes.first_chunk_mut::<4>() {
                *head = [VERSION, kind, 0, 0];
            }
            let _ = opener().open(CHANNEL, &bytes, Instant::now());
        }
    }
}
