//! Signalling of one run of this node's process: seals outgoing messages, opens incoming ones.

use bytes::Bytes;
use librecast::cert::Chain;
use librecast::id::PeerId;
use librecast::time::{Instant, WallClock};

use crate::config::Identity;
use crate::envelope::{Opened, Payload, Refusal, Stamp, open, seal};
use crate::event::CarrierId;
use crate::random::Random;
use crate::replay::{Copies, ReplayCache};
use crate::signal_budget::{SignalBudget, Standing};

/// Number of senders in the replay cache.
const REPLAY_SENDERS: usize = 4_096;

/// An incoming message, and the proven facts of its path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) carrier: CarrierId,
    /// The key that the server has verified, or the neighbour that forwarded the message.
    pub(crate) from: Option<PeerId>,
    /// The class of that key.
    pub(crate) standing: Standing,
    pub(crate) sealed: &'a [u8],
}

/// This node's end of signalling.
#[derive(Debug)]
pub(crate) struct Session {
    identity: Identity,
    clock: WallClock,
    /// This run of the process; 0 stands for an unknown one.
    id: u64,
    /// Sequence of the last sealed message.
    sequence: u64,
    replay: ReplayCache,
    copies: Copies,
    budget: SignalBudget,
}

impl Session {
    pub(crate) fn new(identity: Identity, clock: WallClock, random: &mut Random) -> Self {
        Self {
            identity,
            clock,
            id: u64::from_be_bytes(random.array()).max(1),
            sequence: 0,
            replay: ReplayCache::new(REPLAY_SENDERS),
            copies: Copies::default(),
            budget: SignalBudget::new(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn set_chain(&mut self, chain: Chain) {
        self.identity.chain = chain;
    }

    pub(crate) fn release(&mut self, peer: &PeerId) {
        self.replay.release(peer);
    }

    /// Opens a message; checks budget, seal, signature, certificates, age and novelty. None: a copy
    /// of an earlier message, or `is_heeded` is false; then a copy over another carrier still
    /// counts.
    pub(crate) fn open(
        &mut self,
        arrived: Arrived<'_>,
        is_heeded: impl FnOnce(&Opened) -> bool,
        now: Instant,
    ) -> Result<Option<Opened>, (Refusal, Option<PeerId>)> {
        let Arrived {
            carrier,
            from,
            standing,
            sealed,
        } = arrived;
        let hash = Copies::hash(sealed);
        if self.copies.contains(&hash) {
            return Ok(None);
        }
        if !self.budget.admits(carrier, from, standing, now) {
            return Err((Refusal::Rate, None));
        }
        let opened = open(&self.identity, self.clock.now(), sealed);
        if opened.as_ref().is_err_and(|(refusal, _)| refusal.is_junk()) {
            self.budget.punish(carrier, from, now);
        }
        let opened = opened?;
        if !is_heeded(&opened) {
            return Ok(None);
        }
        let sender = opened.member.peer;
        if !self.replay.is_new(&sender, opened.session, opened.sequence) {
            return Err((Refusal::Replayed, Some(sender)));
        }
        self.copies.insert(hash);
        Ok(Some(opened))
    }

    pub(crate) fn seal(
        &mut self,
        to: &PeerId,
        to_session: u64,
        payload: &Payload,
        random: &mut Random,
    ) -> Result<Bytes, Refusal> {
        self.sequence += 1;
        let stamp = Stamp {
            time: self.clock.now().as_secs(),
            session: self.id,
            sequence: self.sequence,
            to_session,
        };
        seal(&self.identity, to, stamp, payload, random).map(Bytes::from)
    }
}
