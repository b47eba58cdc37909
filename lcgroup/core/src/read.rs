//! Reading entries: messages of authors, commits of the owner, and the Welcome.

use librecast::id::PeerId;
use librecast::time::UnixTime;
use zeroize::Zeroizing;

use crate::author::{Author, Telling};
use crate::body::{self, Assembled, Assembly, CommitBody, Heads, Part, kind};
use crate::drops::DropReason;
use crate::event::{Entry, Event, Log, Taken};
use crate::group::{Group, Standing};
use crate::mls::{Change, Mls, OwnKeyPackage};
use crate::owner_log::{Tree, WaitingCommit};
use crate::partial::{drop_void, make_room};
use crate::provider::{self, NO_NONCE};
use crate::{DAY, MAX_MESSAGES, WEEK, request};

/// The epoch in the label of a message; the rest is the term.
const EPOCH: u64 = 0xffff_ffff;

/// The result of opening a Welcome.
enum Welcomed {
    /// This participant becomes a member.
    Joined(Box<Mls>, Heads),
    /// It is for another key package, such as an earlier one.
    Before,
    /// It does not open, or is unusable with the pending key package: the owner sends no other.
    Unusable,
}

/// Limits the `claimed` time of a message to one day before or after the range between the epoch's
/// beginning and `now`, in ms since 1970. A wrong time needs two wrong clocks.
fn believed(claimed: u64, began: u64, now: u64) -> u64 {
    let (earliest, latest) = (now.min(began), now.max(began));
    match claimed {
        _ if claimed > latest.saturating_add(DAY) => latest,
        _ if claimed.saturating_add(DAY) < earliest => earliest,
        _ => claimed,
    }
}

impl Group {
    /// The number of this author's next entry to read; `None` if the author is not a member.
    pub fn wants(&self, author: &PeerId) -> Option<u32> {
        if matches!(self.standing, Standing::Removed | Standing::RolledBack) {
            return None;
        }
        if *author == self.id {
            return self.wants_of(None);
        }
        if *author == self.author.peer_id() {
            return Some(self.voice.last + 1);
        }
        self.authors.get(author).map(|known| known.read + 1)
    }

    /// Skips this author's entries up to `last`, which have expired everywhere. A member that so
    /// misses a commit or its Welcome requests a new leaf.
    pub fn handle_gap(&mut self, author: &PeerId, last: u32, now: UnixTime) {
        if *author == self.id && !self.is_owner() {
            self.skip_office(None, last);
        }
        if let Some(author) = self.authors.get_mut(author)
            && last > author.read
        {
            author.read = last;
            author.assembly = None;
        }
        self.advance(now);
    }

    /// Reads an entry at `now`.
    pub fn handle_entry(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let taken = match self.standing {
            Standing::Removed | Standing::RolledBack => Taken::Dropped(DropReason::NotReading),
            _ if entry.author == self.author.peer_id() => self.read_own(Log::Own, entry.number),
            _ if entry.author == self.id => self.read_office(None, entry, now),
            _ => self.read_author(entry, now),
        };
        self.advance(now);
        taken
    }

    /// Reads an own entry: the log has it. An unknown one shows that this state is an old copy.
    pub(crate) fn read_own(&mut self, log: Log, number: u32) -> Taken {
        let last = match log {
            Log::Owner => self.own_last(),
            Log::Own => self.voice.last,
        };
        if number > last {
            self.roll_back();
            return Taken::Dropped(DropReason::NotReading);
        }
        self.handle_appended(log, number);
        Taken::Done
    }

    /// Makes this participant silent for good: the log shows that its state is an old copy.
    pub fn roll_back(&mut self) {
        if self.standing != Standing::RolledBack {
            self.standing = Standing::RolledBack;
            self.tell(Event::RolledBack);
        }
    }

    fn read_author(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let Some(epoch) = self.label().filter(|_| self.standing == Standing::Member) else {
            return Taken::Wait;
        };
        let part = (entry.kind == kind::MESSAGE).then(|| Part::decode(entry.kind, entry.body));
        let later = matches!(&part, Some(Ok(part)) if part.epoch > epoch);
        let closing = self.owner_log.commit.as_ref().map(|commit| {
            let head = commit.heads.get(&entry.author);
            head.is_none_or(|head| entry.number > *head)
        });
        let Some(author) = self.authors.get_mut(&entry.author) else {
            return match later {
                true => Taken::Wait,
                false => Taken::Dropped(DropReason::UnknownAuthor),
            };
        };
        if entry.number != author.read + 1 {
            return Taken::Dropped(DropReason::NotNext);
        }
        // Also for an owner: an author that claims a future epoch delays only itself. Only entries
        // of the owner's log, signed by the group key, prove an old copy of the owner's state.
        if later || closing == Some(true) {
            return Taken::Wait;
        }
        if let Some(Ok(part)) = &part
            && part.epoch == epoch
            && !make_room(
                &mut self.authors,
                &entry.author,
                entry.number,
                part,
                closing.is_none(),
            )
        {
            return Taken::Wait;
        }
        if self.history_waits(entry, closing.is_none()) {
            return Taken::Wait;
        }
        let Some(author) = self.authors.get_mut(&entry.author) else {
            return Taken::Dropped(DropReason::UnknownAuthor);
        };
        author.read = entry.number;
        match part {
            Some(Ok(part)) if part.epoch < epoch => {
                author.assembly = None;
                Taken::Dropped(DropReason::Void)
            }
            Some(Ok(part)) => self.read_message(entry, &part, now),
            Some(Err(_)) => {
                author.assembly = None;
                Taken::Dropped(DropReason::Malformed)
            }
            None if entry.kind == kind::HISTORY => self.read_history(entry, now),
            None => {
                author.assembly = None;
                match entry.kind {
                    kind::REFRESH => self.read_refresh(entry, now),
                    kind::LEAVE => self.read_leave(entry, now),
                    kind::DEVICE_GONE => self.read_device_gone(entry, now),
                    kind::READ => self.read_marks(entry),
                    kind::DEVICE_TEXT => self.read_device_text(entry, now),
                    _ => Taken::Done,
                }
            }
        }
    }

    fn read_message(&mut self, entry: &Entry<'_>, part: &Part<'_>, now: UnixTime) -> Taken {
        let (Some(author), Some(mls)) = (self.authors.get_mut(&entry.author), &mut self.mls) else {
            return Taken::Dropped(DropReason::UnknownAuthor);
        };
        author.bytes += entry.body.len() as u64;
        let sealed = match Assembly::take(&mut author.assembly, entry.number, part, now) {
            Assembled::More => return Taken::Done,
            Assembled::Broken => return Taken::Dropped(DropReason::Broken),
            Assembled::Whole(sealed) => sealed,
        };
        if author.messages >= MAX_MESSAGES {
            return Taken::Dropped(DropReason::TooMany);
        }
        let Ok(plain) = mls.open(&entry.author, &sealed) else {
            return Taken::Dropped(DropReason::NotOpened);
        };
        author.messages += 1;
        if let Some(owner) = &mut self.owner {
            // its author had applied all commits before
            owner.commits.reach(entry.author, part.epoch & EPOCH);
        }
        let Ok((id, content)) = body::decode_message(&plain) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let telling = author.hear(entry.number, id);
        let (author, time) = (
            entry.author,
            believed(entry.time, self.began, now.as_millis()),
        );
        match telling {
            Telling::Message => self.tell(Event::Message {
                author,
                id,
                number: entry.number,
                time,
                content: content.to_vec().into(),
            }),
            Telling::SaidAgain => self.tell(Event::SaidAgain { author, id }),
            Telling::Nothing => {}
        }
        Taken::Done
    }

    pub(crate) fn read_owner(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        if entry.number != self.owner_log.read + 1 {
            return Taken::Dropped(DropReason::NotNext);
        }
        if self.owner_log.commit.is_some() {
            return Taken::Wait;
        }
        self.owner_log.read = entry.number;
        let joins = self.standing != Standing::Member;
        match entry.kind {
            kind::COMMIT if !joins => self.read_commit(entry, now),
            kind::COMMIT => self.read_passing_commit(entry, now),
            kind::TREE if joins => self.read_tree(entry, now),
            kind::WELCOME if joins => self.read_welcome(entry, now),
            _ => Taken::Done,
        }
    }

    fn read_commit(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let Ok(part) = Part::decode(entry.kind, entry.body) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        if self.epoch().is_none_or(|epoch| part.epoch < epoch) {
            return Taken::Dropped(DropReason::Void);
        }
        let log = &mut self.owner_log;
        let (number, slot) = (entry.number, &mut log.assembly);
        let first = slot.as_ref().map_or(number, |open| open.first);
        let whole = match Assembly::take(slot, number, &part, now) {
            Assembled::More => return Taken::Done,
            Assembled::Broken => return Taken::Dropped(DropReason::Broken),
            Assembled::Whole(whole) => whole,
        };
        let Ok(CommitBody { heads, commit }) = CommitBody::decode(&whole) else {
            self.lose(now);
            return Taken::Dropped(DropReason::Malformed);
        };
        debug_assert!(
            self.owner_log.commit.is_none(),
            "nothing is read while a commit waits"
        );
        self.owner_log.commit = Some(WaitingCommit {
            first: if part.part == 0 { number } else { first },
            time: entry.time,
            heads,
            commit: commit.to_vec(),
        });
        Taken::Done
    }

    /// Skips a commit, because this participant waits for a Welcome.
    fn read_passing_commit(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        // both belong to an earlier commit, and hold nothing for this participant
        self.owner_log.tree = None;
        if let Ok(part) = Part::decode(entry.kind, entry.body)
            && self.read_passing_heads(entry, &part, now)
        {
            return Taken::Done;
        }
        self.owner_log.assembly = None;
        let Ok(part) = Part::decode(entry.kind, entry.body) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        if matches!(self.standing, Standing::Rejoining { until: Some(epoch) } if part.epoch >= epoch)
        {
            self.be_removed();
        }
        Taken::Done
    }

    pub(crate) fn be_removed(&mut self) {
        self.end_as_member(Event::Removed);
    }

    pub(crate) fn end_as_member(&mut self, why: Event) {
        self.standing = Standing::Removed;
        self.mls = None;
        self.refresh.package = None;
        self.authors.clear();
        self.tell(why);
    }

    fn read_tree(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let Ok(part) = Part::decode(entry.kind, entry.body) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let log = &mut self.owner_log;
        let first = log
            .assembly
            .as_ref()
            .map_or(entry.number, |open| open.first);
        match Assembly::take(&mut log.assembly, entry.number, &part, now) {
            Assembled::More => Taken::Done,
            Assembled::Broken => Taken::Dropped(DropReason::Broken),
            Assembled::Whole(bytes) => {
                log.tree = Some(Tree {
                    first: if part.part == 0 { entry.number } else { first },
                    epoch: part.epoch,
                    bytes,
                });
                Taken::Done
            }
        }
    }

    fn read_welcome(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let me = self.author.peer_id();
        let Some((to, sealed)) = entry.body.split_first_chunk::<32>() else {
            return Taken::Dropped(DropReason::Malformed);
        };
        if to != me.public_key() {
            return Taken::Done;
        }
        match self.welcomed(sealed) {
            Welcomed::Joined(mls, heads) => {
                self.began = entry.time;
                self.begin(*mls, &heads, now);
                Taken::Done
            }
            Welcomed::Before => {
                // it is a member, and its last key package is still unused
                if let Standing::Rejoining { until } = &mut self.standing {
                    *until = None;
                }
                Taken::Dropped(DropReason::NotOpened)
            }
            Welcomed::Unusable => {
                // a joiner has a grant in the owner's log, so it requests a leaf in its own log
                self.joining = None;
                // nor is it read again after a restart
                self.owner_log.tree = None;
                self.lose(now);
                Taken::Dropped(DropReason::NotOpened)
            }
        }
    }

    /// Opens a Welcome's box.
    fn welcomed(&self, sealed: &[u8]) -> Welcomed {
        let Some(opened) = request::open_with(&self.author, sealed).map(Zeroizing::new) else {
            return Welcomed::Unusable;
        };
        let Ok((key, welcome)) = body::decode_welcome(&opened) else {
            return Welcomed::Unusable;
        };
        let joining = self.joining.as_ref().map(|joining| &joining.package);
        match self.refresh.package.as_ref().or(joining) {
            Some(package) if package.is_awaited_by(&self.provider, welcome) => self
                .join_by(package, &key[..], welcome)
                .map_or(Welcomed::Unusable, |(mls, heads)| {
                    Welcomed::Joined(Box::new(mls), heads)
                }),
            _ => Welcomed::Before,
        }
    }

    /// Joins by a Welcome and the tree before it.
    fn join_by(&self, package: &OwnKeyPackage, key: &[u8], welcome: &[u8]) -> Option<(Mls, Heads)> {
        let tree = self.owner_log.tree.as_ref()?;
        let bytes = provider::open(key, &NO_NONCE, &[], &tree.bytes).ok()?;
        let (heads, ratchet_tree) = body::decode_heads(&bytes).ok()?;
        let committer = self.offices.segment.office;
        let mls = Mls::join(&self.provider, package, welcome, ratchet_tree, committer).ok()?;
        (mls.epoch() == tree.epoch).then_some((mls, heads))
    }

    /// Makes this participant a member from the epoch of `mls` on.
    fn begin(&mut self, mls: Mls, heads: &Heads, now: UnixTime) {
        let me = self.author.peer_id();
        let own = heads.get(&me).copied().unwrap_or(0);
        if own > self.voice.last {
            self.roll_back();
            return;
        }
        let mut before = std::mem::take(&mut self.authors);
        for member in mls.members() {
            if member.author == me {
                continue;
            }
            let head = heads.get(&member.author).copied().unwrap_or(0);
            let mut author = before
                .remove(&member.author)
                .unwrap_or_else(|| Author::joined_at(head));
            let void = author.close(head);
            author.read = author.read.max(head);
            self.authors.insert(member.author, author);
            self.tell_void(member.author, void);
        }
        let epoch = mls.epoch();
        self.mls = Some(mls);
        self.offices.tag = self.offices.segment.term;
        self.offices.applied = self.owner_log.read;
        if self.joining.is_some() {
            self.offices.admitted = epoch;
        }
        self.displace_words();
        self.follow_devices();
        // own messages from before an unusable commit: the members added since are unknown
        let void = std::mem::take(&mut self.voice.unconfirmed);
        for said in void.into_iter().filter(|said| said.last > own) {
            let id = said.id;
            self.voice.outbox.push(said);
            self.tell(Event::OutboxWaits { id });
        }
        self.voice.sealed = 0;
        self.standing = Standing::Member;
        (self.joining, self.refresh.package) = (None, None);
        self.owner_log.tree = None;
        self.refresh.due = now.as_millis() + self.random.jittered(WEEK);
        self.tell(Event::Joined { epoch });
    }

    /// Applies the waiting commit, once all entries up to its heads are read.
    pub(crate) fn try_apply(&mut self, now: UnixTime) {
        let Some(waiting) = &self.owner_log.commit else {
            return;
        };
        let me = self.author.peer_id();
        let own = waiting.heads.get(&me).copied().unwrap_or(0);
        if own > self.voice.last {
            self.roll_back();
            return;
        }
        drop_void(&mut self.authors, &waiting.heads);
        let read = |author: &PeerId| self.authors.get(author).map(|known| known.read);
        let mut heads = waiting.heads.iter();
        if heads.any(|(author, head)| read(author).is_some_and(|read| read < *head)) {
            return;
        }
        let (Some(waiting), Some(mls)) = (self.owner_log.commit.take(), &mut self.mls) else {
            return;
        };
        match mls.apply(&waiting.commit, self.offices.segment.office) {
            Ok(change) => {
                self.refresh.failures = 0;
                self.offices.tag = self.offices.segment.term;
                self.offices.applied = self.owner_log.read;
                self.began = waiting.time;
                self.change(&waiting.heads, &change);
            }
            Err(_) => self.lose(now),
        }
    }

    fn tell_void(&mut self, author: PeerId, ids: Vec<u64>) {
        for id in ids {
            self.tell(Event::NotCounted { author, id });
        }
    }

    /// Applies the end of an epoch to the readers' state.
    pub(crate) fn change(&mut self, heads: &Heads, change: &Change) {
        let me = self.author.peer_id();
        self.follow_devices();
        let mut void = Vec::new();
        for (id, author) in &mut self.authors {
            // without a head, no entry since the last commit counts
            void.push((*id, author.close(heads.get(id).copied().unwrap_or(0))));
        }
        for (author, ids) in void {
            self.tell_void(author, ids);
        }
        let renewed = |author| change.added.iter().any(|who| who.author == author);
        for author in change.removed.iter().copied().filter(|a| !renewed(*a)) {
            self.authors.remove(&author);
            self.offices.leaving.remove(&author);
            self.devices.asked.remove(&author);
            if author != me {
                self.tell(Event::MemberRemoved { author });
            }
        }
        for who in &change.added {
            if who.author == me || change.removed.contains(&who.author) {
                continue;
            }
            self.authors.insert(who.author, Author::default());
            let (author, name) = (who.author, who.name.clone());
            self.tell(Event::MemberAdded { author, name });
        }
        self.confirm(heads.get(&me).copied().unwrap_or(0), change);
        if !change.removed_self {
            if let Some(epoch) = self.epoch() {
                self.tell(Event::EpochChanged { epoch });
            }
        } else if renewed(me) {
            // the commit used our key package, or one of an older copy: then another is requested
            let next = self.epoch().map(|epoch| epoch + 1);
            let until = next.filter(|_| self.refresh.package.is_some());
            self.mls = None;
            self.standing = Standing::Rejoining { until };
        } else {
            self.be_removed();
        }
    }

    /// Requests a new leaf after an unusable commit or Welcome; reports a second one in a row.
    fn lose(&mut self, now: UnixTime) {
        self.refresh.failures = self.refresh.failures.saturating_add(1);
        self.mls = None;
        self.standing = Standing::Rejoining { until: None };
        // a lost commit may have used the pending one
        self.refresh.package = None;
        if self.refresh.cannot_follow() {
            self.tell(Event::CannotFollow);
        } else {
            self.ask_for_leaf(true, now);
        }
    }
}
