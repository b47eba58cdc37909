//! The owner's operations: invitations, requests, commits.

use std::collections::BTreeSet;

use crypto_box::aead::rand_core::RngCore as _;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use zeroize::Zeroizing;

use crate::author::Author;
use crate::body::{self, Heads, Terms, kind};
use crate::drops::{DropReason, RequestRefusal};
use crate::error::GroupError;
use crate::event::{Entry, Event, Log, NewEntry, Taken};
use crate::group::{Group, Standing};
use crate::invitation::Invitation;
use crate::mls::{Commit, check_key_package, name_in};
use crate::owner::{Kept, Owner};
use crate::provider::{self, NO_NONCE};
use crate::request::Request;
use crate::{
    DAY, HOUR, MAX_GRANTS, MAX_INVITATIONS, MAX_MEMBERS, MAX_MESSAGES, MAX_OUTBOX, MAX_PENDING,
    MAX_REQUESTS, SECOND, WEEK, request,
};

/// Time in ms for which the owner collects requests before it commits.
pub(crate) const BATCH: u64 = 2_000;
/// Messages of an author in an epoch after which the owner commits; the rest is a reserve.
const MANY_MESSAGES: u32 = MAX_MESSAGES * 9 / 10;
/// Bytes of an author's entries in an epoch after which the owner commits: half of [`MAX_OUTBOX`].
const MANY_BYTES: u64 = MAX_OUTBOX as u64 / 2;
/// Entries that the owner's log keeps for members that are silent. Chosen: three quarters of the
/// 16,384 that the log leaves to the owner alone; a commit of 50 members each day takes 400 days.
const MAX_KEPT: u32 = 12_288;
/// Fewest entries that are cut at once, beside those that are stated again. Chosen.
const LEAST_CUT: u32 = 64;
/// Time in ms for which entries are kept without terms.
const KEPT: u64 = 30 * DAY;
/// Pause in ms between two immediate commits for an author's urgent refreshes.
const URGENT: u64 = HOUR;

/// Time in ms that each commit for an author's many messages costs it. Chosen: [`MAX_KEPT`] lasts for
/// months, whatever one member says.
const FORCED: u64 = HOUR;
/// Such commits of an author at once. Chosen: 7,200 messages, or 16 MiB.
const FORCED_AT_ONCE: u64 = 7;

/// Whether an author soon runs out of keys of its epoch, or of space.
fn says_much(author: &Author) -> bool {
    author.messages >= MANY_MESSAGES || author.bytes >= MANY_BYTES
}

/// A leaf that a commit adds.
#[derive(Clone)]
struct NewLeaf {
    author: PeerId,
    package: Vec<u8>,
    /// Its author has an older leaf, which the same commit removes.
    renews: bool,
}

impl NewLeaf {
    fn of(author: &PeerId, package: &[u8], renews: bool) -> Self {
        let (author, package) = (*author, package.to_vec());
        Self {
            author,
            package,
            renews,
        }
    }
}

/// The members that a commit removes.
fn removals(leave: &[PeerId], new: &[NewLeaf]) -> Vec<PeerId> {
    let renewed = new.iter().filter(|leaf| leaf.renews);
    let renewed = renewed.map(|leaf| leaf.author);
    leave.iter().copied().chain(renewed).collect()
}

/// The key packages that a commit adds.
fn additions(new: &[NewLeaf]) -> Vec<Vec<u8>> {
    new.iter().map(|leaf| leaf.package.clone()).collect()
}

/// Moves the leaves of `new` that can be committed together into `fitting`, earlier ones first, and
/// the rest into `others`. One unfit leaf among n costs 2 log2 n trials.
fn choose(
    fitting: &mut Vec<NewLeaf>,
    others: &mut Vec<NewLeaf>,
    new: &[NewLeaf],
    fits: &impl Fn(&[NewLeaf]) -> bool,
) {
    let before = fitting.len();
    fitting.extend_from_slice(new);
    if fits(fitting) {
        return;
    }
    fitting.truncate(before);
    if new.len() < 2 {
        others.extend_from_slice(new);
        return;
    }
    let (first, second) = new.split_at(new.len() / 2);
    choose(fitting, others, first, fits);
    choose(fitting, others, second, fits);
}

impl Group {
    fn own(&mut self) -> Result<&mut Owner, GroupError> {
        if self.standing == Standing::RolledBack {
            return Err(GroupError::RolledBack);
        }
        self.owner.as_mut().ok_or(GroupError::NotTheOwner)
    }

    /// Creates an invitation for `uses` members until `expires` (ms since 1970).
    ///
    /// # Errors
    /// [`GroupError::NotTheOwner`], [`GroupError::Uses`], [`GroupError::TooManyInvitations`],
    /// [`GroupError::Expired`].
    pub fn invite(
        &mut self,
        uses: u32,
        expires: u64,
        now: UnixTime,
    ) -> Result<Invitation, GroupError> {
        let (id, secret) = (self.random.next_u64(), Zeroizing::new(self.random.array()));
        let owner = self.own()?;
        if expires <= now.as_millis() {
            return Err(GroupError::Expired);
        }
        if !(1..=MAX_MEMBERS as u32).contains(&uses) {
            return Err(GroupError::Uses);
        }
        owner
            .invitations
            .retain(|_, kept| kept.expires > now.as_millis());
        if owner.invitations.len() >= MAX_INVITATIONS {
            return Err(GroupError::TooManyInvitations);
        }
        let kept = Kept {
            secret: secret.clone(),
            expires,
            uses,
            used: BTreeSet::new(),
            withdrawn: false,
        };
        owner.invitations.insert(id, kept);
        debug_assert!(
            owner.invitations.len() <= MAX_INVITATIONS,
            "a restored state takes no more"
        );
        let to = owner.key.peer_id();
        Ok(Invitation {
            group: self.id,
            to,
            read_key: self.read_key.clone(),
            id,
            secret,
            expires,
            topic: self.topic.clone(),
            outside: false,
        })
    }

    /// Withdraws an invitation, also from the group's own network; members that came by it stay.
    /// Returns whether others could have used it.
    pub fn withdraw(&mut self, invitation: u64, now: UnixTime) -> Result<bool, GroupError> {
        let Some(kept) = self.own()?.invitations.get_mut(&invitation) else {
            return Ok(false);
        };
        let was_open = kept.left(now) > 0;
        kept.withdrawn = true;
        Ok(was_open)
    }

    /// Returns the invitations of the one in office that others may use: id, expiry (ms since 1970),
    /// remaining uses; the earliest end first.
    pub fn invitations(&mut self, now: UnixTime) -> Result<Vec<(u64, u64, u32)>, GroupError> {
        let kept = self.own()?.invitations.iter();
        let open = kept.map(|(id, kept)| (*id, kept.expires, kept.left(now)));
        let mut open: Vec<_> = open.filter(|(.., left)| *left > 0).collect();
        open.sort_by_key(|(_, expires, _)| *expires);
        Ok(open)
    }

    /// Removes a member, with a commit at once.
    ///
    /// # Errors
    /// [`GroupError::NotTheOwner`], [`GroupError::Owner`], [`GroupError::UnknownMember`].
    pub fn remove(&mut self, author: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        let (me, known) = (self.author.peer_id(), self.authors.contains_key(author));
        let first = self.author_of_office(None);
        let owner = self.own()?;
        // the owner has the first leaf for ever
        if *author == me || Some(*author) == first {
            return Err(GroupError::Owner);
        }
        // an admitted joiner that no commit has added yet is dropped
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

    /// Accepts or refuses a joiner's request.
    ///
    /// # Errors
    /// The [`RequestRefusal`]; a repeated request is not an error.
    pub fn handle_request(&mut self, sealed: &[u8], now: UnixTime) -> Result<(), RequestRefusal> {
        let Ok(owner) = self.own() else {
            return Err(RequestRefusal::NotTheOwner);
        };
        let request = request::open(&owner.key, sealed).ok_or(RequestRefusal::NotOpened)?;
        let (author, time) = (request.author, request.time);
        let name = name_in(&request.key_package);
        let taken = match self.take_request(request, now) {
            // another one in office has made its invitation, and let it in
            Err(RequestRefusal::UnknownInvitation) if self.authors.contains_key(&author) => {
                Err(RequestRefusal::Admitted)
            }
            taken => taken,
        };
        if let Err(reason) = taken
            && reason.is_answered()
        {
            self.tell(Event::RequestRefused {
                author,
                name,
                time,
                reason,
            });
        }
        taken
    }

    fn take_request(&mut self, request: Request, now: UnixTime) -> Result<(), RequestRefusal> {
        let owner = self.own().map_err(|_| RequestRefusal::NotTheOwner)?;
        let invited = owner.check_invited(&request, now);
        let device = self.check_device(&request, now)?;
        if device.map_or(invited, Ok)? {
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
        self.use_device_text(&request, now);
        if let Some(owner) = &mut self.owner {
            if let Some(kept) = owner.invitations.get_mut(&request.invitation) {
                kept.used.insert(request.author);
                debug_assert!(
                    kept.withdrawn || kept.used.len() <= kept.uses as usize,
                    "an invitation is used up"
                );
            }
            owner.joins.insert(request.author, request.key_package);
            debug_assert!(owner.joins.len() <= MAX_REQUESTS, "requests have a bound");
            debug_assert!(
                self.authors.len() + 1 + owner.joins.len() <= MAX_MEMBERS,
                "a group has a bound, those that wait included"
            );
        }
        self.commit_within(BATCH, now);
        self.advance(now);
        Ok(())
    }

    /// Schedules a commit at most `wait` ms after `now`.
    pub(crate) fn commit_within(&mut self, wait: u64, now: UnixTime) {
        if let Some(owner) = &mut self.owner {
            let due = now.as_millis() + wait;
            owner.wanted = Some(owner.wanted.map_or(due, |wanted| wanted.min(due)));
        }
    }

    pub(crate) fn read_refresh(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let Some(owner) = &mut self.owner else {
            return Taken::Done;
        };
        let opened = request::open_with(&owner.key, entry.body);
        let Some(Ok((urgent, package))) = opened.as_deref().map(body::decode_refresh) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let who = check_key_package(&self.provider, package, now);
        let package = package.to_vec();
        let is_own = who.is_ok_and(|who| who.author == entry.author);
        if !is_own || !self.keeps_person(&entry.author, &package) {
            return Taken::Dropped(DropReason::Malformed);
        }
        let Some(owner) = &mut self.owner else {
            return Taken::Done;
        };
        owner.refreshes.insert(entry.author, package);
        owner.commits.refresh(entry.author);
        if let Some(author) = self.authors.get_mut(&entry.author)
            && urgent
            && now.as_millis().saturating_sub(author.urgent) >= URGENT
        {
            author.urgent = now.as_millis();
            self.commit_within(BATCH, now);
        }
        Taken::Done
    }

    pub(crate) fn read_leave(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        if self.authors.contains_key(&entry.author) {
            self.offices.leaving.insert(entry.author);
        }
        if let Some(owner) = &mut self.owner {
            owner.leaves.insert(entry.author);
            self.commit_within(BATCH, now);
        }
        Taken::Done
    }

    /// The last number that the owner has read of each author.
    fn heads(&self) -> Heads {
        let read = self.authors.iter();
        let mut heads: Heads = read.map(|(id, author)| (*id, author.durable())).collect();
        heads.insert(self.author.peer_id(), self.voice.last);
        heads
    }

    /// When the owner commits next: at once if an author runs out of keys; daily after entries or
    /// requests for a new leaf; weekly for new keys of its own.
    pub(crate) fn commit_due(&self) -> Option<u64> {
        let owner = self.owner.as_ref()?;
        if self.pending.len() > MAX_PENDING {
            return None;
        }
        let unconfirmed = self.voice.unconfirmed.iter();
        let unconfirmed: usize = unconfirmed.map(|said| said.content.len()).sum();
        if self.voice.sealed >= MANY_MESSAGES || unconfirmed as u64 >= MANY_BYTES {
            return Some(0);
        }
        let talkative = self.authors.values().filter(|author| says_much(author));
        let forced = talkative.map(|author| author.forced.saturating_sub(FORCED_AT_ONCE * FORCED));
        let forced = forced.min();
        let regular = (!self.authors.is_empty()).then(|| {
            // an author that waits for space sends the message again in the next epoch
            let crowded = self.authors.values().any(|author| author.displaced > 0);
            let moved = self.heads() != owner.advertised || !owner.refreshes.is_empty();
            owner.committed + if moved || crowded { DAY } else { WEEK }
        });
        [owner.wanted, regular, forced].into_iter().flatten().min()
    }

    /// Commits all waiting changes.
    pub(crate) fn commit(&mut self, now: UnixTime) {
        let (provider, heads) = (self.provider.clone(), self.heads());
        let (Some(owner), Some(mls)) = (&mut self.owner, &mut self.mls) else {
            return;
        };
        owner.wanted = None;
        owner.committed = now.as_millis();
        for author in self.authors.values_mut().filter(|author| says_much(author)) {
            author.forced = author.forced.max(now.as_millis()) + FORCED;
        }
        let known = |author: &PeerId| self.authors.contains_key(author);
        // the owner has the first leaf for ever, also under a deputy
        let first = mls.first().map(|first| first.author);
        let leaves = |author: &PeerId| Some(*author) != first && owner.leaves.contains(author);
        let leave = owner.leaves.iter().copied();
        let leave: Vec<PeerId> = leave.filter(|a| known(a) && leaves(a)).collect();
        let stays = |author: &PeerId| known(author) && !leaves(author);
        let renewals = owner.refreshes.iter().filter(|(author, _)| stays(author));
        // members first: no joiner takes a member's key
        let renewals = renewals.map(|(author, package)| NewLeaf::of(author, package, true));
        let joins = owner.joins.iter();
        let joins = joins.map(|(author, package)| NewLeaf::of(author, package, false));
        // each was usable on arrival, but its lifetime may have ended since
        let usable = |leaf: &NewLeaf| check_key_package(&provider, &leaf.package, now).is_ok();
        let (mut new, mut refused): (Vec<_>, Vec<_>) = renewals.chain(joins).partition(usable);
        // the owner's new leaf takes the place of its old one
        new.sort_by_key(|leaf| Some(leaf.author) != first);

        let epoch = mls.epoch();
        let mut commit = mls.commit(&provider, &removals(&leave, &new), &additions(&new), now);
        if commit.is_err() {
            // some exclude each other, such as two with one key: the rest go on
            let fits = |new: &[NewLeaf]| {
                mls.can_commit(&provider, &removals(&leave, new), &additions(new), now)
            };
            if !fits(&[]) {
                // the changes are not the cause, and all of them wait
                self.commit_within(HOUR, now);
                return;
            }
            let (mut fitting, mut others) = (Vec::new(), Vec::new());
            choose(&mut fitting, &mut others, &new, &fits);
            refused.extend(others);
            commit = mls.commit(
                &provider,
                &removals(&leave, &fitting),
                &additions(&fitting),
                now,
            );
        }
        let Ok(commit) = commit else {
            self.commit_within(HOUR, now);
            return;
        };
        owner.joins.clear();
        owner.refreshes.clear();
        owner.leaves.clear();
        for NewLeaf { author, .. } in refused {
            self.tell(Event::NotAdmitted { author });
        }
        self.began = now.as_millis();
        self.publish(epoch, &heads, commit);
    }

    /// Appends a commit with its grants, tree, Welcomes and revocations.
    fn publish(&mut self, epoch: u64, heads: &Heads, commit: Commit) {
        let Some(owner) = &mut self.owner else { return };
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
        owner.commits.push(epoch, owner.last + 1);
        for who in &change.added {
            owner.commits.welcomed.insert(who.author, epoch);
        }
        for author in &gone {
            owner.commits.welcomed.remove(author);
            owner.commits.reached.remove(author);
        }

        let newcomers = change.added.iter().map(|who| who.author);
        let newcomers = newcomers.filter(|author| !change.removed.contains(author));
        let newcomers: Vec<_> = newcomers.map(|author| (author, u32::MAX)).collect();
        for (author, _) in &newcomers {
            owner.commits.former.remove(author);
            owner.commits.reach(*author, epoch);
        }
        self.append_grants(&newcomers);
        self.append_parts(kind::COMMIT, epoch, &body::encode_heads(&delta, &message));
        self.offices.applied = self.own_last();
        self.offices.tag = self.offices.current.term;
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
        let last = |author: &PeerId| heads.get(author).copied().unwrap_or(0);
        let gone: Vec<_> = gone.iter().map(|author| (*author, last(author))).collect();
        if let Some(owner) = &mut self.owner {
            let now = self.began;
            let former = gone.iter().map(|(author, last)| (*author, (*last, now)));
            owner.commits.former.extend(former);
        }
        if self.is_owner() {
            let gone: Vec<PeerId> = gone.iter().map(|(author, _)| *author).collect();
            self.end_offices(|author| gone.contains(author));
        }
        self.append_grants(&gone);
        self.change(&delta, &change);
        self.cut_log();
    }

    pub(crate) fn append_grants(&mut self, grants: &[(PeerId, u32)]) {
        debug_assert!(self.owner.is_some(), "only the one in office grants");
        for grants in grants.chunks(MAX_GRANTS) {
            self.append(Log::Owner, NewEntry::Grants(grants.to_vec()));
        }
    }

    /// Drops entries that no member needs, or that are too many, from the beginning of the owner's
    /// log. Grants and terms of the dropped part are stated again.
    fn cut_log(&mut self) {
        let members: Vec<PeerId> = self.authors.keys().copied().collect();
        let Some(owner) = &mut self.owner else { return };
        let keep = owner.terms.map_or(KEPT, |terms| terms.keep * SECOND);
        let expired = |removed: u64| keep > 0 && removed.saturating_add(keep) < owner.committed;
        let former = &mut owner.commits.former;
        former.retain(|_, (_, removed)| !expired(*removed));
        while former.len() > MAX_MEMBERS {
            let first = former.iter().min_by_key(|(_, (_, removed))| *removed);
            let Some(first) = first.map(|(author, _)| *author) else {
                break;
            };
            former.remove(&first);
        }
        let (first, late) = owner
            .commits
            .cut(members.iter().copied(), owner.last, MAX_KEPT);
        let granted = members.len() + owner.commits.former.len();
        let cost = granted.div_ceil(MAX_GRANTS) + 2;
        if first < owner.commits.first + (2 * cost) as u32 + LEAST_CUT {
            return;
        }
        debug_assert!(
            first <= owner.last + 1,
            "a log begins at the latest with its next entry"
        );
        owner.commits.first = first;
        owner.commits.all.retain(|(_, number)| *number >= first);
        // those that are too late get new keys
        let next = owner.commits.all.front().map_or(0, |(epoch, _)| *epoch);
        for author in &late {
            owner.commits.reach(*author, next);
        }
        let terms = owner.terms;
        let former = owner.commits.former.iter();
        let former = former.map(|(author, (last, _))| (*author, *last));
        let present = std::iter::once(self.author.peer_id()).chain(members);
        let grants: Vec<_> = present
            .map(|author| (author, u32::MAX))
            .chain(former)
            .collect();
        self.append_term();
        self.append_list();
        self.append_network_again();
        self.append_grants(&grants);
        self.append_terms(terms);
        if !late.is_empty() {
            self.tell(Event::KeysDropped { authors: late });
        }
    }

    fn append_terms(&mut self, terms: Option<Terms>) {
        if let Some(terms) = terms {
            let (kind, body) = (kind::TERMS, terms.encode());
            self.append(Log::Owner, NewEntry::Body { kind, body });
        }
    }

    /// States terms in the owner's log.
    pub fn state_terms(&mut self, terms: Terms) -> Result<(), GroupError> {
        self.own()?.terms = Some(terms);
        self.append_terms(Some(terms));
        Ok(())
    }

    fn append_parts(&mut self, kind: u8, epoch: u64, whole: &[u8]) {
        for body in body::cut(epoch, whole) {
            self.append(Log::Owner, NewEntry::Body { kind, body });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Output;
    use crate::group::Founding;
    use crate::mls::{OwnKeyPackage, Who};
    use crate::provider::Provider;
    use crate::random::Random;
    use librecast::id::SecretKey;

    const NOW: u64 = 1_800_000_000_000;

    fn unix(milliseconds: u64) -> UnixTime {
        UnixTime::from_millis(milliseconds)
    }

    fn owner() -> Group {
        let founding = Founding {
            key: SecretKey::from_seed(&[1; 32]),
            read_key: [2; 32].into(),
            topic: String::new(),
            name: "owner".to_owned(),
        };
        Group::create(founding, &[3; 32], unix(NOW)).unwrap()
    }

    /// Sends a request with keys drawn from `keys`: equal `keys` give equal leaves.
    fn ask(group: &mut Group, invitation: &Invitation, joiner: u8, keys: u8) -> PeerId {
        let author = SecretKey::from_seed(&[joiner; 32]);
        let who = Who {
            author: author.peer_id(),
            name: format!("joiner {joiner}"),
        };
        let provider = Provider::new(Random::new(&[keys; 32]));
        let package = OwnKeyPackage::new(&provider, &who, unix(NOW)).unwrap();
        let mut random = Random::new(&[joiner; 32]);
        let sealed = request::seal(invitation, &author, &package.public, NOW, &mut random).unwrap();
        assert_eq!(group.handle_request(&sealed, unix(NOW)), Ok(()));
        who.author
    }

    fn refused(group: &mut Group) -> Vec<PeerId> {
        let outputs = std::iter::from_fn(|| group.poll_output());
        let refused = outputs.filter_map(|output| match output {
            Output::Event(Event::NotAdmitted { author }) => Some(author),
            _ => None,
        });
        refused.collect()
    }

    fn members(group: &Group) -> BTreeSet<PeerId> {
        group.members().into_iter().map(|m| m.author).collect()
    }

    #[test]
    fn joiners_with_keys_of_others_keep_nobody_else_out() {
        let mut group = owner();
        let me = group.author.peer_id();
        let invitation = group.invite(100, NOW + DAY, unix(NOW)).unwrap();
        // 10 to 19 have own keys; 20 to 22 have the keys of 12
        let honest: BTreeSet<PeerId> = (10..20)
            .map(|joiner| ask(&mut group, &invitation, joiner, joiner))
            .collect();
        let twins = [20, 21, 22].map(|joiner| ask(&mut group, &invitation, joiner, 12));
        group.handle_timeout(unix(NOW + BATCH));
        let out = refused(&mut group);
        assert_eq!((group.epoch(), out.len()), (Some(1), 3), "{out:?}");
        // one of four joiners with equal keys is admitted: the owner cannot know the true one
        let mut those: BTreeSet<PeerId> = honest.iter().copied().chain(twins).collect();
        those.retain(|author| !out.contains(author));
        those.insert(me);
        assert_eq!(members(&group), those);
        let own = SecretKey::from_seed(&[12; 32]).peer_id();
        assert!(out.iter().all(|out| twins.contains(out) || *out == own));

        // a joiner with a member's key is refused, in whatever order they ask
        let next = [30, 31].map(|joiner| ask(&mut group, &invitation, joiner, joiner));
        let thief = ask(&mut group, &invitation, 32, 15);
        group.handle_timeout(unix(NOW + 2 * BATCH));
        assert_eq!(refused(&mut group), [thief]);
        those.extend(next);
        assert_eq!(members(&group), those);
        // and no change waits for a commit that would fail again
        let owner = group.owner.as_ref().unwrap();
        assert!(owner.joins.is_empty() && owner.wanted.is_none());
    }

    #[test]
    fn a_new_leaf_of_a_member_is_refused_alone_and_the_others_are_renewed() {
        let mut group = owner();
        let invitation = group.invite(100, NOW + DAY, unix(NOW)).unwrap();
        let members_: Vec<PeerId> = (10..14)
            .map(|joiner| ask(&mut group, &invitation, joiner, joiner))
            .collect();
        group.handle_timeout(unix(NOW + BATCH));
        refused(&mut group);
        let before = members(&group);
        for (joiner, keys) in [(10, 50), (11, 13), (12, 51)] {
            let author = SecretKey::from_seed(&[joiner; 32]);
            let who = Who {
                author: author.peer_id(),
                name: String::new(),
            };
            let provider = Provider::new(Random::new(&[keys; 32]));
            let package = OwnKeyPackage::new(&provider, &who, unix(NOW)).unwrap();
            let refreshes = &mut group.owner.as_mut().unwrap().refreshes;
            refreshes.insert(who.author, package.public);
        }
        let leaves = members_[3];
        group.commit_within(0, unix(NOW + BATCH));
        group.handle_timeout(unix(NOW + BATCH));
        assert_eq!(refused(&mut group), [members_[1]]);
        assert_eq!(members(&group), before);
        let nameless = group.members();
        let nameless = nameless.iter().filter(|m| m.name.is_empty()).count();
        assert_eq!(nameless, 2);
        // a member that leaves releases its keys
        group.remove(&leaves, unix(NOW + 2 * BATCH)).unwrap();
        let heir = ask(&mut group, &invitation, 40, 13);
        group.handle_timeout(unix(NOW + 4 * BATCH));
        assert_eq!(refused(&mut group), []);
        assert!(members(&group).contains(&heir));
    }

    #[test]
    fn choosing_takes_the_earliest_that_go_together_in_few_trials() {
        let leaf = |n: u8| NewLeaf {
            author: SecretKey::from_seed(&[n; 32]).peer_id(),
            package: vec![n],
            renews: false,
        };
        let new: Vec<NewLeaf> = (0..128).map(leaf).collect();
        let trials = std::cell::Cell::new(0);
        // 3 fits with no other leaf, and 90 not with 17
        let fits = |chosen: &[NewLeaf]| {
            trials.set(trials.get() + 1);
            let has = |n| chosen.iter().any(|leaf| leaf.package == [n]);
            !(has(3) || has(17) && has(90))
        };
        let (mut fitting, mut others) = (Vec::new(), Vec::new());
        choose(&mut fitting, &mut others, &new, &fits);
        let others: Vec<u8> = others.iter().map(|leaf| leaf.package[0]).collect();
        assert_eq!((fitting.len(), others), (126, vec![3, 90]));
        assert!(trials.get() <= 2 * 2 * 7 + 1, "{}", trials.get());
    }

    #[test]
    fn what_waits_for_the_log_is_bounded_and_never_too_much_to_restore() {
        let (mut group, now) = (owner(), unix(NOW));
        while group.pending.len() <= crate::MAX_UNSENT {
            group.say(&[0; 10_000], now).unwrap();
        }
        let refused = group.say(b"one more", now);
        assert!(
            matches!(refused, Err(GroupError::TooMuchWaits)),
            "{refused:?}"
        );
        let (kind, body) = (kind::MESSAGE, vec![0; 900]);
        for _ in 0..20_000 {
            let body = body.clone();
            group.append(Log::Own, NewEntry::Body { kind, body });
        }
        let waiting = group.pending.len();
        let mut group = Group::restore(&group.state().unwrap(), &[4; 32]).unwrap();
        assert_eq!(group.pending.len(), waiting);
        group.handle_appended(Log::Own, u32::MAX);
        group.say(b"it goes on", now).unwrap();
    }

    #[test]
    fn one_author_forces_a_few_commits_and_then_one_an_hour() {
        let mut group = owner();
        let invitation = group.invite(100, NOW + DAY, unix(NOW)).unwrap();
        let talker = ask(&mut group, &invitation, 10, 10);
        group.handle_timeout(unix(NOW + BATCH));
        let first = group.epoch().unwrap();
        // 900 short messages after each commit, every 45 s for half a day
        let mut now = NOW + BATCH;
        while now < NOW + 12 * HOUR {
            group.authors.get_mut(&talker).unwrap().messages = MANY_MESSAGES;
            group.handle_timeout(unix(now));
            group.handle_appended(Log::Owner, u32::MAX);
            now += 45 * SECOND;
        }
        let forced = group.epoch().unwrap() - first;
        assert!((18..=20).contains(&forced), "{forced}");
    }
}
