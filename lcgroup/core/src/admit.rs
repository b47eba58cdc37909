//! The owner's verbs: invitations, requests, commits.

use std::collections::BTreeSet;

use crypto_box::aead::rand_core::RngCore as _;
use librecast::id::PeerId;
use zeroize::Zeroizing;

use crate::author::Author;
use crate::body::{self, Heads, kind};
use crate::drops::{DropReason, RequestRefusal};
use crate::error::GroupError;
use crate::event::{Entry, Event, Log, NewEntry, Taken};
use crate::group::{Group, Standing};
use crate::invitation::Invitation;
use crate::mls::{Commit, check_key_package};
use crate::owner::{Kept, Owner};
use crate::provider::{self, NO_NONCE};
use crate::{
    DAY, HOUR, MAX_INVITATIONS, MAX_MEMBERS, MAX_MESSAGES, MAX_OUTBOX, MAX_REQUESTS, WEEK, request,
};

/// How long the owner waits for more requests before it commits, in ms.
const BATCH: u64 = 2_000;
/// The owner commits when an author said so many messages in an epoch: some are left for what is on its way.
const MANY_MESSAGES: u32 = MAX_MESSAGES * 9 / 10;
/// The owner commits when an author's entries of an epoch have so many bytes: half of what an author keeps.
const MANY_BYTES: u64 = MAX_OUTBOX as u64 / 2;
/// Entries that may wait for the log before the owner commits once more: some commits with their trees.
const MAX_PENDING: usize = 4_096;
/// How often an author's urgent refresh is granted at once, in ms; in between it waits for the daily commit.
const URGENT: u64 = HOUR;

impl Group {
    fn own(&mut self) -> Result<&mut Owner, GroupError> {
        if self.standing == Standing::RolledBack {
            return Err(GroupError::RolledBack);
        }
        self.owner.as_mut().ok_or(GroupError::NotTheOwner)
    }

    /// Invites `uses` members until `expires` (ms since the epoch).
    ///
    /// # Errors
    ///
    /// [`GroupError::NotTheOwner`], [`GroupError::Uses`], [`GroupError::TooManyInvitations`], [`GroupError::Expired`].
    pub fn invite(&mut self, uses: u32, expires: u64, now: u64) -> Result<Invitation, GroupError> {
        let (id, secret) = (self.random.next_u64(), Zeroizing::new(self.random.array()));
        let owner = self.own()?;
        if expires <= now {
            return Err(GroupError::Expired);
        }
        if !(1..=MAX_MEMBERS as u32).contains(&uses) {
            return Err(GroupError::Uses);
        }
        owner.invitations.retain(|_, kept| kept.expires > now);
        if owner.invitations.len() >= MAX_INVITATIONS {
            return Err(GroupError::TooManyInvitations);
        }
        let kept = Kept {
            secret: secret.clone(),
            expires,
            uses,
            used: BTreeSet::new(),
        };
        owner.invitations.insert(id, kept);
        Ok(Invitation {
            group: self.id,
            read_key: self.read_key.clone(),
            id,
            secret,
            expires,
            topic: self.topic.clone(),
        })
    }

    /// Takes an invitation back; whether there was one.
    ///
    /// # Errors
    ///
    /// [`GroupError::NotTheOwner`].
    pub fn withdraw(&mut self, invitation: u64) -> Result<bool, GroupError> {
        Ok(self.own()?.invitations.remove(&invitation).is_some())
    }

    /// The owner's invitations: id, expires (ms since the epoch), uses left.
    pub fn invitations(&self) -> impl Iterator<Item = (u64, u64, u32)> {
        let kept = self.owner.iter().flat_map(|owner| &owner.invitations);
        kept.map(|(id, kept)| (*id, kept.expires, kept.uses - kept.used.len() as u32))
    }

    /// Removes a member, with a commit at once.
    ///
    /// # Errors
    ///
    /// [`GroupError::NotTheOwner`], [`GroupError::Owner`], [`GroupError::UnknownMember`].
    pub fn remove(&mut self, author: &PeerId, now: u64) -> Result<(), GroupError> {
        let (me, known) = (self.author.peer_id(), self.authors.contains_key(author));
        let owner = self.own()?;
        if *author == me {
            return Err(GroupError::Owner);
        }
        // who was admitted and not yet committed is dropped
        let waited = owner.joins.remove(author).is_some();
        if known {
            owner.leaves.insert(*author);
            self.commit_within(0, now);
        } else if !waited {
            return Err(GroupError::UnknownMember);
        }
        self.advance(now);
        Ok(())
    }

    /// Takes a joiner's request.
    ///
    /// # Errors
    ///
    /// The [`RequestRefusal`]; a request that was taken before is none.
    pub fn handle_request(&mut self, sealed: &[u8], now: u64) -> Result<(), RequestRefusal> {
        let Ok(owner) = self.own() else {
            return Err(RequestRefusal::NotTheOwner);
        };
        let request = request::open(&owner.key, sealed).ok_or(RequestRefusal::NotOpened)?;
        if owner.check_invited(&request, now)? {
            return Ok(());
        }
        let owners = self.owner.as_ref().map_or(0, |owner| owner.joins.len());
        if owners >= MAX_REQUESTS || self.authors.len() + 1 + owners >= MAX_MEMBERS {
            return Err(RequestRefusal::Full);
        }
        if !request.is_signed() {
            return Err(RequestRefusal::Signature);
        }
        let who = check_key_package(&self.provider, &request.key_package, now);
        let unusable = who.map_or(true, |who| who.author != request.author);
        if unusable || request.author == self.author.peer_id() {
            return Err(RequestRefusal::KeyPackage);
        }
        if self.authors.contains_key(&request.author) {
            return Err(RequestRefusal::Admitted);
        }
        if let Some(owner) = &mut self.owner {
            if let Some(kept) = owner.invitations.get_mut(&request.invitation) {
                kept.used.insert(request.author);
            }
            owner.joins.insert(request.author, request.key_package);
        }
        self.commit_within(BATCH, now);
        self.advance(now);
        Ok(())
    }

    /// The owner commits at the latest `wait` ms after `now`.
    pub(crate) fn commit_within(&mut self, wait: u64, now: u64) {
        if let Some(owner) = &mut self.owner {
            let due = now + wait;
            owner.wanted = Some(owner.wanted.map_or(due, |wanted| wanted.min(due)));
        }
    }

    pub(crate) fn read_refresh(&mut self, entry: &Entry<'_>, now: u64) -> Taken {
        let Some(owner) = &mut self.owner else {
            return Taken::Done;
        };
        let opened = request::open_with(&owner.key, entry.body);
        let Some(Ok((urgent, package))) = opened.as_deref().map(body::decode_refresh) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let who = check_key_package(&self.provider, package, now);
        if who.map_or(true, |who| who.author != entry.author) {
            return Taken::Dropped(DropReason::Malformed);
        }
        owner.refreshes.insert(entry.author, package.to_vec());
        if let Some(author) = self.authors.get_mut(&entry.author)
            && urgent
            && now.saturating_sub(author.urgent) >= URGENT
        {
            author.urgent = now;
            self.commit_within(BATCH, now);
        }
        Taken::Done
    }

    pub(crate) fn read_leave(&mut self, entry: &Entry<'_>, now: u64) -> Taken {
        if let Some(owner) = &mut self.owner {
            owner.leaves.insert(entry.author);
            self.commit_within(BATCH, now);
        }
        Taken::Done
    }

    /// What the owner has read of each author.
    fn heads(&self) -> Heads {
        let read = self.authors.iter();
        let mut heads: Heads = read.map(|(id, author)| (*id, author.durable())).collect();
        heads.insert(self.author.peer_id(), self.voice.last);
        heads
    }

    /// When the owner commits next: at once if an author runs out of keys; daily if something was said or a new leaf is
    /// wanted; weekly for new keys of its own.
    pub(crate) fn commit_due(&self) -> Option<u64> {
        let owner = self.owner.as_ref()?;
        if self.pending.len() > MAX_PENDING {
            return None;
        }
        let much = |a: &Author| a.messages >= MANY_MESSAGES || a.bytes >= MANY_BYTES;
        if self.authors.values().any(much) || self.voice.sealed >= MANY_MESSAGES {
            return Some(0);
        }
        let regular = (!self.authors.is_empty()).then(|| {
            // who waits for room says it again in the next epoch
            let crowded = self.authors.values().any(|author| author.displaced > 0);
            let moved = self.heads() != owner.advertised || !owner.refreshes.is_empty();
            owner.committed + if moved || crowded { DAY } else { WEEK }
        });
        [owner.wanted, regular].into_iter().flatten().min()
    }

    /// Commits all that waits.
    pub(crate) fn commit(&mut self, now: u64) {
        let (provider, heads) = (self.provider.clone(), self.heads());
        let (Some(owner), Some(mls)) = (&mut self.owner, &mut self.mls) else {
            return;
        };
        owner.wanted = None;
        owner.committed = now;
        let joins = std::mem::take(&mut owner.joins);
        let refreshes = std::mem::take(&mut owner.refreshes);
        let leaves = std::mem::take(&mut owner.leaves);
        let (mut remove, mut add, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for author in leaves.iter().filter(|a| self.authors.contains_key(a)) {
            remove.push(*author);
        }
        let mut usable = |author: &PeerId, package: &Vec<u8>| {
            // it was when it came, but its lifetime may have ended since
            let usable = check_key_package(&provider, package, now).is_ok();
            if usable {
                add.push(package.clone());
            } else {
                refused.push(*author);
            }
            usable
        };
        for (author, package) in &refreshes {
            let member = self.authors.contains_key(author) && !leaves.contains(author);
            if member && usable(author, package) {
                remove.push(*author);
            }
        }
        for (author, package) in &joins {
            usable(author, package);
        }
        let epoch = mls.epoch();
        let Ok(commit) = mls.commit(&provider, &remove, &add, now) else {
            // each part of it was checked, so none is to blame; who still wants something asks again
            refused.extend(joins.into_keys());
            owner.leaves = leaves;
            for author in refused {
                self.tell(Event::NotAdmitted { author });
            }
            return;
        };
        for author in refused {
            self.tell(Event::NotAdmitted { author });
        }
        self.publish(epoch, &heads, commit);
    }

    /// Appends a commit and what belongs to it.
    fn publish(&mut self, epoch: u64, heads: &Heads, commit: Commit) {
        let Some(owner) = &mut self.owner else {
            return;
        };
        let moved = |(author, head): &(&PeerId, &u32)| owner.advertised.get(*author) != Some(*head);
        let delta: Heads = heads.iter().filter(moved).map(|(a, h)| (*a, *h)).collect();
        let Commit {
            message,
            welcomes,
            tree,
            change,
        } = commit;
        let renewed = |author| change.added.iter().any(|who| who.author == author);
        let gone: Vec<PeerId> = change
            .removed
            .iter()
            .copied()
            .filter(|a| !renewed(*a))
            .collect();
        let mut next = heads.clone();
        next.retain(|author, _| !gone.contains(author));
        for who in &change.added {
            next.entry(who.author).or_insert(0);
        }
        owner.advertised.clone_from(&next);

        let newcomers = change.added.iter().map(|who| who.author);
        for author in newcomers.filter(|author| !change.removed.contains(author)) {
            self.append(Log::Owner, NewEntry::Grant { author });
        }
        self.append_parts(kind::COMMIT, epoch, &body::encode_heads(&delta, &message));
        if !welcomes.is_empty() {
            let key = Zeroizing::new(self.random.array::<{ provider::AEAD_KEY }>());
            let tree = body::encode_heads(&next, &tree);
            if let Ok(sealed) = provider::seal(&key[..], &NO_NONCE, &[], &tree) {
                self.append_parts(kind::TREE, epoch + 1, &sealed);
            }
            for (author, welcome) in welcomes {
                let content = body::encode_welcome(&key, &welcome);
                let mut body = author.public_key().to_vec();
                if let Some(sealed) = request::seal_to(&author, &content, &mut self.random) {
                    body.extend_from_slice(&sealed);
                    let kind = kind::WELCOME;
                    self.append(Log::Owner, NewEntry::Body { kind, body });
                }
            }
        }
        for author in gone {
            let last = heads.get(&author).copied().unwrap_or(0);
            self.append(Log::Owner, NewEntry::Revoke { author, last });
        }
        self.change(&delta, &change);
    }

    fn append_parts(&mut self, kind: u8, epoch: u64, whole: &[u8]) {
        for body in body::cut(epoch, whole) {
            self.append(Log::Owner, NewEntry::Body { kind, body });
        }
    }
}
