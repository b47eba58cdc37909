//! Common parts of screens and cameras: signed packets, runs of a sender, states.
//!
//! ```text
//! signature 64 | version 1 | flags 1 | run 8 | ...          sealed as the packets of the entry log
//! ```
//!
//! `run` is the time at which the sender began, in milliseconds since 1970. A state is a packet that
//! has no picture.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::time::{Duration, Instant};
use librecast::wire::{Reader, Writer};

use crate::drops::DropReason;

/// Time between two states: a receiver learns by then that it lacks the last picture.
const STATE_INTERVAL: Duration = Duration::from_secs(1);
/// States at the end: some may be lost.
const LAST_STATES: u32 = 3;
/// Time between two of the last states. Chosen, as radio's last beacons.
const LAST_INTERVAL: Duration = Duration::from_millis(50);
/// Silence of a sender after which an earlier run of it counts again: its clock was set back.
const SILENCE: Duration = Duration::from_secs(10);
/// Most by which a run that counts again is earlier than the latest: as far as clocks may differ.
const SET_BACK_MS: u64 = 3_600_000;
/// Packets that are remembered. Chosen: more than a second of a camera or screen, in 8 KiB.
const REMEMBERED: usize = 256;

/// Beginning of a packet, behind its signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub version: u8,
    pub flags: u8,
    pub run: u64,
}

/// Begins the message of a packet. `flags`: each with whether it is set.
pub(crate) fn write_head(version: u8, flags: &[(bool, u8)], run: u64) -> Writer {
    let flags = flags.iter().filter(|(is_set, _)| *is_set);
    let flags = flags.fold(0, |all, (_, flag)| all | flag);
    let mut w = Writer::new();
    w.u8(version).u8(flags).u64(run);
    w
}

/// Reads the beginning of contents up to `run`, whose signature is verified apart.
pub(crate) fn read_head<'a>(
    contents: &'a [u8],
    versions: &[u8],
) -> Result<(Head, Reader<'a>), DropReason> {
    let mut r = Reader::new(contents);
    r.array::<64>()?;
    let version = r.u8()?;
    if !versions.contains(&version) {
        return Err(DropReason::UnknownKind);
    }
    let (flags, run) = (r.u8()?, r.u64()?);
    let head = Head {
        version,
        flags,
        run,
    };
    Ok((head, r))
}

/// Returns a message behind its signature.
pub(crate) fn sign(context: &str, key: &SecretKey, message: &[u8]) -> Vec<u8> {
    [&key.sign(context, message)[..], message].concat()
}

/// Returns whether the key signed these contents.
pub(crate) fn verify(context: &str, contents: &[u8], key: &PeerId) -> bool {
    let Some((signature, message)) = contents.split_first_chunk::<64>() else {
        return false;
    };
    key.verify(context, message, signature).is_ok()
}

/// Nonces of a sender: none comes twice.
pub(crate) struct Nonces {
    context: &'static str,
    seed: [u8; 32],
    count: u64,
}

librecast::debug_by_name!(Nonces);

impl Nonces {
    /// `seed`: random bytes of this run.
    pub(crate) fn new(context: &'static str, seed: [u8; 32]) -> Self {
        let count = 0;
        Self {
            context,
            seed,
            count,
        }
    }

    pub(crate) fn next(&mut self) -> [u8; 24] {
        self.count += 1;
        let hash = derive(self.context, &[&self.seed, &self.count.to_be_bytes()]);
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&hash[..24]);
        nonce
    }
}

/// Times of a sender's states: one each second, and three at its end.
#[derive(Debug)]
pub(crate) struct States {
    at: Instant,
    /// States still to be sent, once it has ended.
    left: Option<u32>,
}

impl States {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            at: now,
            left: None,
        }
    }

    /// Time of the next one.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.at <= now && !self.has_ended()
    }

    /// Notes that one is sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        let interval = match &mut self.left {
            Some(left) => {
                *left = left.saturating_sub(1);
                LAST_INTERVAL
            }
            None => STATE_INTERVAL,
        };
        self.at = now + interval;
    }

    /// Lets the next one be sent now: something changed.
    pub(crate) fn hasten(&mut self, now: Instant) {
        self.at = now;
    }

    /// The sender ends: the last states begin at this time.
    pub(crate) fn end(&mut self, at: Instant) {
        if self.left.is_none() {
            (self.left, self.at) = (Some(LAST_STATES), at);
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.left.is_some()
    }

    /// Whether the last one was sent.
    pub(crate) fn has_ended(&self) -> bool {
        self.left == Some(0)
    }
}

/// Runs of a sender, as a receiver knows them.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    run: u64,
    /// The latest run, also while an earlier one counts.
    latest: u64,
    received_at: Option<Instant>,
}

impl Runs {
    /// The run that counts.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Time of the last packet that proves life.
    pub(crate) fn received_at(&self) -> Option<Instant> {
        self.received_at
    }

    pub(crate) fn hear(&mut self, now: Instant) {
        self.received_at = Some(now);
    }

    /// Checks whether packets of this run count.
    pub(crate) fn check(&self, run: u64, now: Instant) -> Result<(), DropReason> {
        let is_heard = |at: Instant| now.saturating_duration_since(at) < SILENCE;
        let is_old = run < self.run && self.received_at.is_some_and(is_heard);
        match is_old || run < self.latest.saturating_sub(SET_BACK_MS) {
            true => Err(DropReason::OldRun),
            false => Ok(()),
        }
    }

    /// Notes the run of a verified packet. Returns whether another one counted before.
    pub(crate) fn begin(&mut self, run: u64) -> bool {
        let is_new = run != self.run;
        self.run = run;
        self.latest = self.latest.max(run);
        is_new
    }
}

/// Rates of checks, apart for the sender's address: whoever can seal could use up one for all.
#[derive(Debug)]
pub(crate) struct Checks {
    of_sender: TokenBucket,
    of_others: TokenBucket,
}

impl Checks {
    /// Both have this rate: the sender begins among the others.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        let bucket = || TokenBucket::of(rate, now);
        Self {
            of_sender: bucket(),
            of_others: bucket(),
        }
    }
}

/// Checks signatures of a sender's key. A repeated packet costs no second check.
#[derive(Debug)]
pub(crate) struct Signatures {
    context: &'static str,
    owner: PeerId,
    /// The address of the sender and the time of its last verified packet. Another one takes its
    /// place only once it is silent: others may send its packets on.
    sender: Option<(Ipv6Addr, Instant)>,
    /// Hashes of the last verified contents. A signature alone would not do: it does not bind the
    /// message.
    verified: VecDeque<[u8; 32]>,
}

impl Signatures {
    pub(crate) fn new(context: &'static str, owner: PeerId) -> Self {
        Self {
            context,
            owner,
            sender: None,
            verified: VecDeque::new(),
        }
    }

    /// Checks contents from this address, and charges its rate first; `above`: the reason when that
    /// is used up.
    pub(crate) fn check(
        &mut self,
        source: Ipv6Addr,
        contents: &[u8],
        checks: Option<&mut Checks>,
        above: DropReason,
        now: Instant,
    ) -> Result<(), DropReason> {
        let hash = derive("lcstudio 2026 verified packet", &[contents]);
        if self.verified.contains(&hash) {
            return Ok(());
        }
        let is_sender = self.sender.is_some_and(|(sender, _)| sender == source);
        let bucket = checks.map(|checks| match is_sender {
            true => &mut checks.of_sender,
            false => &mut checks.of_others,
        });
        if !bucket.is_some_and(|bucket| bucket.take(1, now)) {
            return Err(above);
        }
        if !verify(self.context, contents, &self.owner) {
            return Err(DropReason::NotSigned);
        }
        let is_heard = |at: Instant| now.saturating_duration_since(at) < SILENCE;
        if is_sender || self.sender.is_none_or(|(_, at)| !is_heard(at)) {
            self.sender = Some((source, now));
        }
        if self.verified.len() >= REMEMBERED {
            self.verified.pop_front();
        }
        self.verified.push_back(hash);
        Ok(())
    }
}
