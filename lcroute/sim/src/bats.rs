//! BATS codes (RFC 9426): routers recode batches of packets, so a loss costs no earlier link.
//!
//! ```text
//!   K source symbols ── precode ──> K + 24 ── outer code ──> batches of 16 ── recoded ──> decoder
//! ```
//!
//! - **Precode**: 24 sums of all source symbols with random factors of GF(256), as the dense half
//!   of RaptorQ's (RFC 6330). A sparse half would be faster to compute.
//! - **Outer code**: the number of a batch seeds TinyMT32 (RFC 8682). It draws the degree, the
//!   contributing symbols, and their factors in each of the 16 packets. Degrees and order of draws
//!   are ours, so nothing interoperates.
//! - **Recoding**: a packet has its 16 coefficients. A router forwards innovative packets, and adds
//!   sums of all its packets of the batch, with random factors, for the losses of the next link.
//! - **Decoding**: a batch is solved once its unknown symbols are at most its packets. Without such
//!   a batch a symbol becomes *inactive*: other symbols are sums with it. It is solved last.

use std::collections::{BTreeMap, VecDeque};

use librecast::gf256::{Sum, add_times, inverse, multiply};
use librecast::random::Random;

/// Packets of a batch. Chosen: a small batch waits least.
pub const BATCH: usize = 16;
/// Symbols of the precode. Chosen: of 1,000 symbols about seven are in no batch, 20 hardly ever.
const CHECKS: usize = 24;
/// Bound of symbols in a batch. Chosen: with it, a symbol of 1,000 is in five batches.
const MAX_DEGREE: usize = 512;
/// Batches that a router keeps open. Chosen: above the usual reordering.
const OPEN: usize = 4;

/// Factors of a packet: its sum of the batch's 16 packets.
pub type Coefficients = [u8; BATCH];

/// A packet of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The number of the batch.
    pub batch: u32,
    /// Factors of the sum.
    pub coefficients: Coefficients,
    /// The sum.
    pub symbol: Vec<u8>,
}

/// TinyMT32 with the parameters of RFC 8682.
struct TinyMt32([u32; 4]);

impl TinyMt32 {
    fn new(seed: u32) -> Self {
        let mut made = Self([seed, 0x8f70_11ee, 0xfc78_ff1f, 0x3793_fdff]);
        for i in 1..8_usize {
            let before = made.0[(i - 1) & 3];
            let mixed = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30));
            made.0[i & 3] ^= mixed.wrapping_add(i as u32);
        }
        (0..8).for_each(|_| made.step());
        made
    }

    fn step(&mut self) {
        let [a, b, c, mut y] = self.0;
        let mut x = (a & 0x7fff_ffff) ^ b ^ c;
        x ^= x << 1;
        y ^= (y >> 1) ^ x;
        let odd = (y & 1).wrapping_neg();
        self.0 = [
            b,
            c ^ (odd & 0x8f70_11ee),
            x ^ (y << 10) ^ (odd & 0xfc78_ff1f),
            y,
        ];
    }

    fn next(&mut self) -> u32 {
        self.step();
        let sum = self.0[0].wrapping_add(self.0[2] >> 8);
        let tempered = self.0[3] ^ sum;
        tempered ^ ((sum & 1).wrapping_neg() & 0x3793_fdff)
    }
}

/// Returns the degree of a batch for a uniform random number. Optimal for ranks of 16: degree d
/// from 17 on has probability `16 / d(d - 1)` (Yang and Yeung, "Batched Sparse Codes", 2014).
fn degree(even: u32, symbols: usize) -> usize {
    let rest = (1_u64 << 32) - u64::from(even);
    let degree = ((BATCH as u64) << 32) / rest + 1;
    (degree as usize).min(MAX_DEGREE).min(symbols)
}

/// Returns the symbols of a batch, with their factors in its packets.
fn contributors(batch: u32, symbols: usize) -> Vec<(usize, Coefficients)> {
    let mut random = TinyMt32::new(batch);
    let degree = degree(random.next(), symbols);
    let mut taken = vec![false; symbols];
    let mut chosen = Vec::with_capacity(degree);
    while chosen.len() < degree {
        let at = random.next() as usize % symbols;
        if !std::mem::replace(&mut taken[at], true) {
            chosen.push((at, [0; BATCH]));
        }
    }
    for (_, factors) in &mut chosen {
        factors.iter_mut().for_each(|f| *f = random.next() as u8);
    }
    chosen
}

/// Returns the factors of all source symbols in a symbol of the precode.
fn check_factors(check: usize, symbols: usize) -> impl Iterator<Item = u8> {
    let mut random = TinyMt32::new(u32::MAX - check as u32);
    (0..symbols).map(move |_| random.next() as u8)
}

/// Encoder of an object.
#[derive(Debug)]
pub struct Encoder {
    /// Source symbols, then those of the precode.
    symbols: Vec<Vec<u8>>,
}

impl Encoder {
    /// Makes an encoder for symbols of equal length; `None` without symbols.
    #[must_use]
    pub fn new(source: Vec<Vec<u8>>) -> Option<Self> {
        let bytes = source.first()?.len();
        let mut sum = Sum::default();
        let check = |check| {
            sum.begin(bytes);
            let factors = check_factors(check, source.len());
            factors.zip(&source).for_each(|(f, s)| sum.add(f, 0, s));
            sum.finish().to_vec()
        };
        let checks: Vec<Vec<u8>> = (0..CHECKS).map(check).collect();
        let mut symbols = source;
        symbols.extend(checks);
        Some(Self { symbols })
    }

    /// Returns all packets of a batch.
    #[must_use]
    pub fn batch(&self, batch: u32) -> Vec<Packet> {
        let contributors = contributors(batch, self.symbols.len());
        let mut sum = Sum::default();
        let packet = |place| {
            sum.begin(self.symbols[0].len());
            for (at, factors) in &contributors {
                sum.add(factors[place], 0, &self.symbols[*at]);
            }
            Packet {
                batch,
                coefficients: std::array::from_fn(|n| u8::from(n == place)),
                symbol: sum.finish().to_vec(),
            }
        };
        (0..BATCH).map(packet).collect()
    }
}

/// Span of the packets received of a batch.
#[derive(Debug, Default)]
struct Basis(Vec<(usize, Coefficients)>);

impl Basis {
    /// Adds a packet; returns whether it is innovative.
    fn add(&mut self, mut coefficients: Coefficients) -> bool {
        for (pivot, row) in &self.0 {
            let factor = coefficients[*pivot];
            add_times(&mut coefficients, factor, row);
        }
        let Some(pivot) = coefficients.iter().position(|c| *c != 0) else {
            return false;
        };
        let factor = inverse(coefficients[pivot]);
        self.0
            .push((pivot, coefficients.map(|c| multiply(c, factor))));
        true
    }
}

/// A batch under way: its innovative packets, 16 at most.
#[derive(Debug, Default)]
struct Partial {
    basis: Basis,
    packets: Vec<Packet>,
    /// Whether a later batch has begun.
    is_over: bool,
}

impl Partial {
    fn add(&mut self, packet: &Packet) -> bool {
        let is_new = self.basis.add(packet.coefficients);
        if is_new {
            self.packets.push(packet.clone());
        }
        is_new
    }

    /// Returns a sum of all packets with random factors.
    fn mixed(&self, random: &mut Random) -> Option<Packet> {
        let first = self.packets.first()?;
        let mut mixed = Packet {
            batch: first.batch,
            coefficients: [0; BATCH],
            symbol: vec![0; first.symbol.len()],
        };
        for packet in &self.packets {
            // not 0, which would leave a packet out
            let factor = 1 + random.below(255) as u8;
            add_times(&mut mixed.coefficients, factor, &packet.coefficients);
            add_times(&mut mixed.symbol, factor, &packet.symbol);
        }
        Some(mixed)
    }
}

/// Recoder of a router.
#[derive(Debug)]
pub struct Recoder {
    bytes: usize,
    loss: f64,
    random: Random,
    open: VecDeque<(u32, Partial)>,
}

impl Recoder {
    /// Makes a recoder for symbols of `bytes` bytes and a link with this share of loss.
    #[must_use]
    pub fn new(bytes: usize, loss: f64, seed: u64) -> Self {
        Self {
            bytes,
            loss: loss.clamp(0.0, 0.5),
            random: Random::new(seed),
            open: VecDeque::new(),
        }
    }

    /// Returns the packets to send after an arrival: it, if innovative, and sums for older batches.
    pub fn handle(&mut self, packet: &Packet) -> Vec<Packet> {
        let mut out = Vec::new();
        if packet.symbol.len() != self.bytes {
            return out;
        }
        if !self.open.iter().any(|(batch, _)| *batch == packet.batch) {
            for (_, partial) in self.open.iter_mut().filter(|(_, p)| !p.is_over) {
                partial.is_over = true;
                let lost = partial.packets.len() as f64 * self.loss / (1.0 - self.loss);
                let more = lost as usize + usize::from(self.random.chance(lost.fract()));
                let mixed = (0..more).filter_map(|_| partial.mixed(&mut self.random));
                out.extend(mixed);
            }
            if self.open.len() == OPEN {
                self.open.pop_front();
            }
            self.open.push_back((packet.batch, Partial::default()));
        }
        let found = self.open.iter_mut().find(|(b, _)| *b == packet.batch);
        if found.is_some_and(|(_, partial)| partial.add(packet)) {
            out.push(packet.clone());
        }
        out
    }
}

/// Result of adding a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is innovative.
    Innovative,
    /// The batch's packets already span it.
    Useless,
    /// Its symbol has another length.
    Length,
    /// Packets for twice the symbols have arrived, and do not decode.
    Full,
}

/// Reason of a failed decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecoded {
    /// More packets are needed.
    Rank,
    /// The result is not the object: a packet was corrupt.
    Wrong,
}

/// Decoder of an object. It keeps at most two packets for each symbol.
#[derive(Debug)]
pub struct Decoder {
    symbols: usize,
    bytes: usize,
    hash: [u8; 32],
    batches: BTreeMap<u32, Partial>,
    rank: usize,
}

impl Decoder {
    /// Makes a decoder for `symbols` symbols of `bytes` bytes, and their [`Decoder::hash`].
    #[must_use]
    pub fn new(symbols: usize, bytes: usize, hash: [u8; 32]) -> Self {
        Self {
            symbols,
            bytes,
            hash,
            batches: BTreeMap::new(),
            rank: 0,
        }
    }

    /// Returns the BLAKE3 hash of an object.
    #[must_use]
    pub fn hash(source: &[Vec<u8>]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        source.iter().for_each(|symbol| {
            hasher.update(symbol);
        });
        hasher.finalize().into()
    }

    /// Returns the number of innovative packets.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Adds a packet.
    pub fn add(&mut self, packet: &Packet) -> Added {
        if packet.symbol.len() != self.bytes {
            return Added::Length;
        }
        if self.rank >= 2 * self.symbols {
            return Added::Full;
        }
        // a batch without innovative packets takes no room
        if packet.coefficients == [0; BATCH] {
            return Added::Useless;
        }
        if self.batches.entry(packet.batch).or_default().add(packet) {
            self.rank += 1;
            return Added::Innovative;
        }
        Added::Useless
    }

    /// Returns the object, if the packets suffice.
    pub fn decode(&self) -> Result<Vec<Vec<u8>>, Undecoded> {
        if self.rank < self.symbols {
            return Err(Undecoded::Rank);
        }
        // the rank shows whether it can be solved, without the symbols' bytes
        Solver::solve(self, 0).ok_or(Undecoded::Rank)?;
        let object = Solver::solve(self, self.bytes).ok_or(Undecoded::Rank)?;
        match Self::hash(&object) == self.hash {
            true => Ok(object),
            false => Err(Undecoded::Wrong),
        }
    }
}

/// A sum of inactive symbols with factors, plus bytes. Missing factors are 0.
#[derive(Debug, Clone, Default)]
struct Affine {
    inactive: Vec<u8>,
    bytes: Vec<u8>,
}

impl Affine {
    fn add_times(&mut self, factor: u8, other: &Self) {
        if factor == 0 {
            return;
        }
        if self.inactive.len() < other.inactive.len() {
            self.inactive.resize(other.inactive.len(), 0);
        }
        add_times(&mut self.inactive, factor, &other.inactive);
        add_times(&mut self.bytes, factor, &other.bytes);
    }

    fn add_inactive(&mut self, factor: u8, number: usize) {
        if self.inactive.len() <= number {
            self.inactive.resize(number + 1, 0);
        }
        self.inactive[number] ^= factor;
    }

    fn scale(&mut self, factor: u8) {
        for byte in self.inactive.iter_mut().chain(&mut self.bytes) {
            *byte = multiply(*byte, factor);
        }
    }

    fn factor(&self, number: usize) -> u8 {
        self.inactive.get(number).copied().unwrap_or(0)
    }
}

#[derive(Debug, Clone)]
enum State {
    Unknown,
    Inactive(usize),
    Solved(Affine),
}

struct Batch<'a> {
    contributors: Vec<(usize, Coefficients)>,
    packets: &'a [Packet],
    unknown: usize,
    is_solved: bool,
}

impl Batch<'_> {
    /// Returns the number of packets missing to solve it now.
    fn missing(&self) -> usize {
        self.unknown.saturating_sub(self.packets.len())
    }
}

/// Inactivation decoding of a decoder's packets.
struct Solver<'a> {
    states: Vec<State>,
    batches: Vec<Batch<'a>>,
    /// Batches of each symbol.
    places: Vec<Vec<usize>>,
    inactive: usize,
    /// Sums that equal 0.
    zero: Vec<Affine>,
    bytes: usize,
}

impl<'a> Solver<'a> {
    /// Returns the first `bytes` bytes of all source symbols.
    fn solve(decoder: &'a Decoder, bytes: usize) -> Option<Vec<Vec<u8>>> {
        let mut solver = Self::new(decoder, bytes);
        while let Some(at) = solver.next_batch() {
            match solver.batches[at].missing() {
                0 => solver.solve_batch(at),
                _ => solver.inactivate_of(at),
            }
        }
        for at in 0..solver.states.len() {
            if matches!(solver.states[at], State::Unknown) {
                solver.inactivate(at);
            }
        }
        solver.apply_checks(decoder.symbols);
        let inactive = solve_all(solver.zero, solver.inactive)?;
        let mut sum = Sum::default();
        let source = solver.states.iter().take(decoder.symbols);
        let symbol = |state: &State| match state {
            State::Inactive(number) => inactive[*number].clone(),
            State::Solved(affine) if bytes > 0 => {
                sum.begin(bytes);
                let factors = affine.inactive.iter().zip(&inactive);
                factors.for_each(|(factor, symbol)| sum.add(*factor, 0, symbol));
                sum.add(1, 0, &affine.bytes);
                sum.finish().to_vec()
            }
            _ => Vec::new(),
        };
        Some(source.map(symbol).collect())
    }

    fn new(decoder: &'a Decoder, bytes: usize) -> Self {
        let symbols = decoder.symbols + CHECKS;
        let mut places = vec![Vec::new(); symbols];
        let batch = |(at, (number, partial)): (usize, (&u32, &'a Partial))| {
            let contributors = contributors(*number, symbols);
            contributors.iter().for_each(|(s, _)| places[*s].push(at));
            Batch {
                unknown: contributors.len(),
                contributors,
                packets: &partial.packets,
                is_solved: false,
            }
        };
        Self {
            batches: decoder.batches.iter().enumerate().map(batch).collect(),
            states: vec![State::Unknown; symbols],
            places,
            inactive: 0,
            zero: Vec::new(),
            bytes,
        }
    }

    /// Returns the batch with the fewest missing packets.
    fn next_batch(&self) -> Option<usize> {
        let open = (0..self.batches.len()).filter(|at| !self.batches[*at].is_solved);
        open.min_by_key(|at| self.batches[*at].missing())
    }

    /// Makes a symbol of a batch inactive: the one in most batches.
    fn inactivate_of(&mut self, at: usize) {
        let unknown = self.unknown_of(at);
        let open = |symbol: &usize| self.places[*symbol].len();
        if let Some(symbol) = unknown.into_iter().max_by_key(open) {
            self.inactivate(symbol);
        }
    }

    fn inactivate(&mut self, symbol: usize) {
        self.know(symbol, State::Inactive(self.inactive));
        self.inactive += 1;
    }

    fn know(&mut self, symbol: usize, state: State) {
        for at in &self.places[symbol] {
            self.batches[*at].unknown -= 1;
        }
        self.states[symbol] = state;
    }

    fn unknown_of(&self, at: usize) -> Vec<usize> {
        let symbols = self.batches[at].contributors.iter().map(|(s, _)| *s);
        symbols
            .filter(|s| matches!(self.states[*s], State::Unknown))
            .collect()
    }

    /// Solves the unknown symbols of a batch with enough packets; the surplus gives sums of 0.
    fn solve_batch(&mut self, at: usize) {
        self.batches[at].is_solved = true;
        let columns = self.unknown_of(at);
        let batch = &self.batches[at];
        let rows = batch.packets.iter().map(|packet| self.row(packet, batch));
        let mut rows: Vec<(Vec<u8>, Affine)> = rows.collect();
        let mut pivots: Vec<Option<usize>> = vec![None; columns.len()];
        let mut rank = 0;
        for (column, pivot) in pivots.iter_mut().enumerate() {
            let Some(found) = (rank..rows.len()).find(|r| rows[*r].0[column] != 0) else {
                continue;
            };
            rows.swap(rank, found);
            let factor = inverse(rows[rank].0[column]);
            let (left, right) = &mut rows[rank];
            left.iter_mut().for_each(|f| *f = multiply(*f, factor));
            right.scale(factor);
            let (left, right) = rows[rank].clone();
            for (n, row) in rows.iter_mut().enumerate() {
                let factor = row.0[column];
                if n != rank && factor != 0 {
                    add_times(&mut row.0, factor, &left);
                    row.1.add_times(factor, &right);
                }
            }
            *pivot = Some(rank);
            rank += 1;
        }
        self.zero.extend(rows.drain(rank..).map(|(_, right)| right));
        // columns that these packets do not determine alone
        let free: Vec<(usize, usize)> = (0..columns.len())
            .filter(|column| pivots[*column].is_none())
            .map(|column| {
                let number = self.inactive;
                self.inactivate(columns[column]);
                (column, number)
            })
            .collect();
        for (column, symbol) in columns.iter().enumerate() {
            if let Some(row) = pivots[column] {
                let (left, mut right) = std::mem::take(&mut rows[row]);
                for (column, number) in &free {
                    right.add_inactive(left[*column], *number);
                }
                self.know(*symbol, State::Solved(right));
            }
        }
    }

    /// Returns a packet as factors of its batch's unknown symbols, and the rest.
    fn row(&self, packet: &Packet, batch: &Batch<'_>) -> (Vec<u8>, Affine) {
        let mut left = Vec::new();
        let mut right = Affine {
            inactive: Vec::new(),
            bytes: packet.symbol[..self.bytes].to_vec(),
        };
        for (symbol, factors) in &batch.contributors {
            let products = factors.iter().zip(&packet.coefficients);
            let factor = products.fold(0, |sum, (a, b)| sum ^ multiply(*a, *b));
            match &self.states[*symbol] {
                State::Unknown => left.push(factor),
                State::Inactive(number) => right.add_inactive(factor, *number),
                State::Solved(affine) => right.add_times(factor, affine),
            }
        }
        (left, right)
    }

    /// Adds the equations of the precode's symbols.
    fn apply_checks(&mut self, source: usize) {
        for check in 0..CHECKS {
            let mut sum = Affine {
                inactive: Vec::new(),
                bytes: vec![0; self.bytes],
            };
            let factors = check_factors(check, source).enumerate();
            for (symbol, factor) in factors.chain([(source + check, 1)]) {
                match &self.states[symbol] {
                    State::Inactive(number) => sum.add_inactive(factor, *number),
                    State::Solved(affine) => sum.add_times(factor, affine),
                    State::Unknown => {}
                }
            }
            self.zero.push(sum);
        }
    }
}

/// Solves the inactive symbols from sums that equal 0; `None` if these are too few.
fn solve_all(mut rows: Vec<Affine>, unknown: usize) -> Option<Vec<Vec<u8>>> {
    for number in 0..unknown {
        let found = (number..rows.len()).find(|row| rows[*row].factor(number) != 0)?;
        rows.swap(number, found);
        let factor = inverse(rows[number].factor(number));
        rows[number].scale(factor);
        let pivot = rows[number].clone();
        for (n, row) in rows.iter_mut().enumerate() {
            if n != number {
                row.add_times(row.factor(number), &pivot);
            }
        }
    }
    rows.truncate(unknown);
    Some(rows.into_iter().map(|row| row.bytes).collect())
}

#[cfg(test)]
mod tests;
