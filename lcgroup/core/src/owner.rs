//! The owner's own state: invitations, and the changes for the next commit.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;
use zeroize::Zeroizing;

use crate::DAY;
use crate::body::Heads;
use crate::drops::RequestRefusal;
use crate::request::Request;

/// Longest age of a request, in ms: holders keep it for a day, and clocks differ by one.
const REQUEST_AGE: u64 = 2 * DAY;

/// The owner's own state.
pub(crate) struct Owner {
    pub key: SecretKey,
    /// Number of the last entry of the owner's log.
    pub last: u32,
    pub invitations: BTreeMap<u64, Kept>,
    /// Key packages of joiners that the next commit adds.
    pub joins: BTreeMap<PeerId, Vec<u8>>,
    /// Key packages of members that get a new leaf.
    pub refreshes: BTreeMap<PeerId, Vec<u8>>,
    pub leaves: BTreeSet<PeerId>,
    /// Heads after the last commit.
    pub advertised: Heads,
    /// When the last commit was made, and when the next is due (ms since 1970).
    pub committed: u64,
    pub wanted: Option<u64>,
}

/// An invitation, as its owner keeps it.
pub(crate) struct Kept {
    pub secret: Zeroizing<[u8; 32]>,
    pub expires: u64,
    pub uses: u32,
    /// Authors that used it.
    pub used: BTreeSet<PeerId>,
}

impl Owner {
    pub fn new(key: SecretKey, now: UnixTime) -> Self {
        Self {
            key,
            last: 0,
            invitations: BTreeMap::new(),
            joins: BTreeMap::new(),
            refreshes: BTreeMap::new(),
            leaves: BTreeSet::new(),
            advertised: Heads::new(),
            committed: now.as_millis(),
            wanted: None,
        }
    }
}

impl Owner {
    /// Checks a request's invitation; returns `true` if the request was accepted before.
    pub fn check_invited(&self, request: &Request, now: UnixTime) -> Result<bool, RequestRefusal> {
        let kept = self.invitations.get(&request.invitation);
        let kept = kept.ok_or(RequestRefusal::UnknownInvitation)?;
        if !request.proves(&kept.secret) {
            return Err(RequestRefusal::Proof);
        }
        let now = now.as_millis();
        let (earliest, latest) = (now.saturating_sub(REQUEST_AGE), now + DAY);
        if !(earliest..=latest).contains(&request.time) {
            return Err(RequestRefusal::Time);
        }
        if kept.used.contains(&request.author) {
            let waits = self.joins.contains_key(&request.author);
            return waits.then_some(true).ok_or(RequestRefusal::Admitted);
        }
        if kept.expires <= now {
            return Err(RequestRefusal::Expired);
        }
        if kept.used.len() >= kept.uses as usize {
            return Err(RequestRefusal::UsedUp);
        }
        Ok(false)
    }
}
