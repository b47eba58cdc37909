//! A group's state as bytes, for its file.
//!
//! Fields follow each other as [`Group::state`] writes them; lists and long fields begin with their
//! length in 32 bits. Instead of incomplete messages it has the number after which the log is read
//! again. Its last parts are about deputies (`office_state.rs`), devices (`vouch.rs`) and a network
//! of the group's own (`network.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::author::Author;
use crate::body::{Heads, MAX_BODY, Terms};
use crate::error::StateError;
use crate::event::{Append, Log, NewEntry};
use crate::fields::{MAX_FIELD, count, field, flag, long, peer, put_peers};
use crate::group::{Group, Queued, Standing};
use crate::invitation::{Invitation, InvitationError};
use crate::mls::{Mls, MlsFailure, OwnKeyPackage};
use crate::network::Network;
use crate::office_state::{offices_bytes, put_offices, read_offices};
use crate::owner::{Kept, Owner};
use crate::owner_log::OwnerLog;
use crate::provider::Provider;
use crate::random::Random;
use crate::removal::Removal;
use crate::voice::{Joining, Refresh, Said, Voice, put_word, read_word};
use crate::vouch::Devices;
use crate::{MAX_GRANTS, MAX_INVITATIONS, MAX_MEMBERS, MAX_NAME, MAX_REQUESTS, MAX_TOPIC};

/// Version of a state on disk, its first byte.
const VERSION: u8 = 1;

impl Group {
    /// The state, to be written to disk before any polled output is appended or sent.
    ///
    /// # Errors
    /// [`StateError::Mls`] if mls-rs cannot encode its part.
    pub fn state(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let mls = self.mls.as_ref().map(Mls::save).transpose()?;
        // one allocation: growing would leave copies of keys behind
        let contents: usize = self.pending.len() * MAX_BODY + self.said_bytes();
        let mls_bytes = mls.as_ref().map_or(0, |(_, state)| state.len());
        let lists =
            self.authors.len() * 256 + self.owner_bytes() + self.devices.bytes() + 16 * 1_024;
        let lists =
            lists + offices_bytes(&self.offices) + self.network.bytes() + self.removal.bytes();
        let mut w = Writer::from(Vec::with_capacity(contents + mls_bytes + lists));
        w.u8(VERSION)
            .put(self.id.public_key())
            .put(&self.read_key[..]);
        long(&mut w, self.topic.as_bytes());
        w.put(&self.author.seed()[..]);
        long(&mut w, self.name.as_bytes());
        put_standing(&mut w, self.standing);
        w.u8(mls.is_some().into());
        if let Some((id, state)) = &mls {
            long(&mut w, id);
            long(&mut w, state);
        }
        w.u32(self.authors.len() as u32);
        for (id, author) in &self.authors {
            put_author(w.put(id.public_key()), author);
        }
        w.u32(self.owner_log.durable());
        put_voice(&mut w, &self.voice);
        w.u64(self.refresh.due).u8(self.refresh.failures);
        w.u8(self.refresh.package.is_some().into());
        if let Some(package) = &self.refresh.package {
            put_package(&mut w, package)?;
        }
        w.u8(self.joining.is_some().into());
        if let Some(joining) = &self.joining {
            long(&mut w, joining.invitation.encode().as_bytes());
            put_package(&mut w, &joining.package)?;
            put_time(&mut w, joining.due);
            w.u32(joining.attempts);
        }
        w.u8(self.owner.is_some().into());
        if let Some(owner) = &self.owner {
            put_owner(&mut w, owner);
        }
        w.u32(self.pending.len() as u32);
        for append in &self.pending {
            put_append(&mut w, append);
        }
        w.u64(self.began);
        if let Some(owner) = &self.owner {
            put_commits(&mut w, owner);
        }
        w.u8(self.offices.is_used().into());
        if self.offices.is_used() {
            put_offices(&mut w, &self.offices);
        }
        self.devices.put(&mut w);
        self.network.put(&mut w);
        self.removal.put(&mut w);
        Ok(w.into_vec().into())
    }

    fn said_bytes(&self) -> usize {
        let voice = &self.voice;
        let said = voice.unconfirmed.iter().chain(&voice.queue);
        said.chain(&voice.outbox)
            .map(|s| s.content.len() + 16)
            .sum()
    }

    fn owner_bytes(&self) -> usize {
        let owner = self.owner.iter();
        let used = owner.flat_map(|o| o.invitations.values());
        let commits = self.owner.iter().map(|owner| &owner.commits);
        let commits = commits.map(|c| c.all.len() * 12 + c.former.len() * 44);
        used.map(|kept| 64 + kept.used.len() * 32).sum::<usize>()
            + commits.sum::<usize>()
            + self.authors.len() * 144
    }

    /// Restores a group. `seed`: 32 random bytes, new in each run. Repeats unacknowledged entries.
    ///
    /// # Errors
    /// [`StateError`] if the bytes are not a state.
    pub fn restore(state: &[u8], seed: &[u8; 32]) -> Result<Self, StateError> {
        let random = Random::new(seed);
        let provider = Provider::new(random.clone());
        let mut r = Reader::new(state);
        r.version(VERSION)?;
        let id = peer(&mut r)?;
        let read_key = Zeroizing::new(r.array()?);
        let topic = text(&mut r, MAX_TOPIC)?;
        let author = SecretKey::from_seed(&Zeroizing::new(r.array()?));
        let name = text(&mut r, MAX_NAME)?;
        let standing = standing(&mut r)?;
        let mls = match flag(&mut r)? {
            true => {
                let (id, state) = (field(&mut r)?, field(&mut r)?);
                Some(Mls::load(&provider, id, state)?)
            }
            false => None,
        };
        let mut authors = BTreeMap::new();
        for _ in 0..count(&mut r, MAX_MEMBERS)? {
            authors.insert(peer(&mut r)?, read_author(&mut r)?);
        }
        let owner_log = OwnerLog {
            read: r.u32()?,
            ..OwnerLog::default()
        };
        let voice = read_voice(&mut r)?;
        let (due, failures) = (r.u64()?, r.u8()?);
        let package = match flag(&mut r)? {
            true => Some(read_package(&mut r)?),
            false => None,
        };
        let refresh = Refresh {
            package,
            due,
            failures,
        };
        let joining = match flag(&mut r)? {
            true => Some(read_joining(&mut r)?),
            false => None,
        };
        let mut owner = match flag(&mut r)? {
            true => Some(read_owner(&mut r)?),
            false => None,
        };
        let mut pending = VecDeque::new();
        for _ in 0..count(&mut r, MAX_FIELD)? {
            pending.push_back(read_append(&mut r)?);
        }
        let began = r.u64()?;
        if let Some(owner) = &mut owner {
            read_commits(&mut r, owner)?;
        }
        let offices = match flag(&mut r)? {
            true => read_offices(&mut r)?,
            false => crate::offices::Offices::default(),
        };
        let devices = Devices::read(&mut r)?;
        let network = Network::read(&mut r)?;
        let removal = Removal::read(&mut r)?;
        r.finish()?;
        let consistent = match standing {
            Standing::Joining => joining.is_some(),
            Standing::Member => mls.is_some(),
            _ => true,
        };
        let keys = [id, author.peer_id()];
        let owns = |owner: &Owner| keys.contains(&owner.key.peer_id());
        let owns = owner.as_ref().is_none_or(owns);
        if !(consistent && owns) {
            return Err(WireError::Bad("standing").into());
        }
        let outputs = pending
            .iter()
            .map(|a: &Append| Queued::Append(a.log, a.number));
        let mut group = Self {
            outputs: outputs.collect(),
            id,
            read_key,
            topic,
            author,
            name,
            random,
            provider,
            standing,
            mls,
            authors,
            owner_log,
            voice,
            refresh,
            joining,
            owner,
            offices,
            devices,
            network,
            removal,
            is_behind: false,
            is_held: false,
            began,
            pending,
        };
        group.follow_devices();
        Ok(group)
    }
}

fn text(r: &mut Reader<'_>, most: usize) -> Result<String, WireError> {
    let text = std::str::from_utf8(field(r)?).map_err(|_| WireError::Bad("utf-8"))?;
    let good = text.len() <= most;
    good.then(|| text.to_owned())
        .ok_or(WireError::Bad("text length"))
}

fn put_time(w: &mut Writer, time: Option<u64>) {
    w.u8(time.is_some().into()).u64(time.unwrap_or(0));
}

fn time(r: &mut Reader<'_>) -> Result<Option<u64>, WireError> {
    let (known, time) = (flag(r)?, r.u64()?);
    Ok(known.then_some(time))
}

fn put_standing(w: &mut Writer, standing: Standing) {
    let (code, until) = match standing {
        Standing::Joining => (0, None),
        Standing::Member => (1, None),
        Standing::Rejoining { until } => (2, until),
        Standing::Removed => (3, None),
        Standing::RolledBack => (4, None),
    };
    put_time(w.u8(code), until);
}

fn standing(r: &mut Reader<'_>) -> Result<Standing, WireError> {
    let (code, until) = (r.u8()?, time(r)?);
    Ok(match code {
        0 => Standing::Joining,
        1 => Standing::Member,
        2 => Standing::Rejoining { until },
        3 => Standing::Removed,
        4 => Standing::RolledBack,
        _ => return Err(WireError::Bad("standing")),
    })
}

fn put_author(w: &mut Writer, author: &Author) {
    w.u32(author.durable())
        .u32(author.messages)
        .u64(author.bytes)
        .u64(author.urgent)
        .u32(author.shown.len() as u32);
    for (number, id) in &author.shown {
        w.u32(*number).u64(*id);
    }
    w.u32(author.early.len() as u32);
    for id in &author.early {
        w.u64(*id);
    }
}

fn read_author(r: &mut Reader<'_>) -> Result<Author, WireError> {
    let mut author = Author::joined_at(r.u32()?);
    author.messages = r.u32()?;
    author.bytes = r.u64()?;
    author.urgent = r.u64()?;
    for _ in 0..count(r, MAX_FIELD)? {
        author.shown.push((r.u32()?, r.u64()?));
    }
    for _ in 0..count(r, MAX_FIELD)? {
        author.early.push(r.u64()?);
    }
    Ok(author)
}

fn put_voice(w: &mut Writer, voice: &Voice) {
    w.u32(voice.last).u32(voice.sealed);
    put_said(w, voice.unconfirmed.iter());
    put_said(w, voice.queue.iter());
    put_said(w, voice.outbox.iter());
}

fn put_said<'a>(w: &mut Writer, list: impl ExactSizeIterator<Item = &'a Said>) {
    w.u32(list.len() as u32);
    list.for_each(|said| put_word(w, said));
}

fn read_voice(r: &mut Reader<'_>) -> Result<Voice, WireError> {
    Ok(Voice {
        last: r.u32()?,
        sealed: r.u32()?,
        unconfirmed: read_said(r)?.into(),
        queue: read_said(r)?.into(),
        outbox: read_said(r)?,
    })
}

fn read_said(r: &mut Reader<'_>) -> Result<Vec<Said>, WireError> {
    (0..count(r, MAX_FIELD)?).map(|_| read_word(r)).collect()
}

fn put_package(w: &mut Writer, package: &OwnKeyPackage) -> Result<(), MlsFailure> {
    for field in package.save()? {
        long(w, &field);
    }
    Ok(())
}

fn read_package(r: &mut Reader<'_>) -> Result<OwnKeyPackage, StateError> {
    let fields = [field(r)?, field(r)?, field(r)?, field(r)?];
    Ok(OwnKeyPackage::load(fields)?)
}

fn read_joining(r: &mut Reader<'_>) -> Result<Joining, StateError> {
    let text = std::str::from_utf8(field(r)?).map_err(|_| WireError::Bad("invitation"))?;
    let invitation: Result<Invitation, InvitationError> = text.parse();
    Ok(Joining {
        invitation: invitation.map_err(|_| WireError::Bad("invitation"))?,
        package: read_package(r)?,
        due: time(r)?,
        attempts: r.u32()?,
        asked: 0,
        request: None,
    })
}

/// The number of uses of an invitation that was withdrawn.
const WITHDRAWN: u32 = 0;

fn put_owner(w: &mut Writer, owner: &Owner) {
    w.put(&owner.key.seed()[..]).u32(owner.last);
    w.u32(owner.invitations.len() as u32);
    for (id, kept) in &owner.invitations {
        w.u64(*id)
            .put(&kept.secret[..])
            .u64(kept.expires)
            .u32(if kept.withdrawn { WITHDRAWN } else { kept.uses });
        put_peers(w, kept.used.iter());
    }
    for packages in [&owner.joins, &owner.refreshes] {
        w.u32(packages.len() as u32);
        for (author, package) in packages {
            long(w.put(author.public_key()), package);
        }
    }
    put_peers(w, owner.leaves.iter());
    w.u32(owner.advertised.len() as u32);
    for (author, head) in &owner.advertised {
        w.put(author.public_key()).u32(*head);
    }
    put_time(w.u64(owner.committed), owner.wanted);
}

fn read_peers(r: &mut Reader<'_>) -> Result<BTreeSet<PeerId>, WireError> {
    (0..count(r, MAX_MEMBERS)?).map(|_| peer(r)).collect()
}

fn read_owner(r: &mut Reader<'_>) -> Result<Owner, WireError> {
    let key = SecretKey::from_seed(&Zeroizing::new(r.array()?));
    let mut owner = Owner::new(key, UnixTime::from_millis(0));
    owner.last = r.u32()?;
    for _ in 0..count(r, MAX_INVITATIONS)? {
        let id = r.u64()?;
        let (secret, expires) = (Zeroizing::new(r.array()?), r.u64()?);
        let (uses, used) = (r.u32()?, read_peers(r)?);
        let withdrawn = uses == WITHDRAWN;
        if used.len() > uses as usize && !withdrawn {
            return Err(WireError::Bad("uses"));
        }
        let kept = Kept {
            secret,
            expires,
            uses,
            used,
            withdrawn,
        };
        owner.invitations.insert(id, kept);
    }
    owner.joins = read_packages(r, MAX_REQUESTS)?;
    owner.refreshes = read_packages(r, MAX_MEMBERS)?;
    owner.leaves = read_peers(r)?;
    let mut advertised = Heads::new();
    for _ in 0..count(r, MAX_MEMBERS)? {
        advertised.insert(peer(r)?, r.u32()?);
    }
    owner.advertised = advertised;
    owner.committed = r.u64()?;
    owner.wanted = time(r)?;
    Ok(owner)
}

fn put_commits(w: &mut Writer, owner: &Owner) {
    let commits = &owner.commits;
    put_time(w, owner.terms.map(|terms| terms.keep));
    w.u64(owner.terms.map_or(0, |terms| terms.history));
    w.u32(commits.first).u32(commits.all.len() as u32);
    for (epoch, first) in &commits.all {
        w.u64(*epoch).u32(*first);
    }
    for epochs in [&commits.welcomed, &commits.reached] {
        w.u32(epochs.len() as u32);
        for (author, epoch) in epochs {
            w.put(author.public_key()).u64(*epoch);
        }
    }
    w.u32(commits.former.len() as u32);
    for (author, (last, removed)) in &commits.former {
        w.put(author.public_key()).u32(*last).u64(*removed);
    }
}

fn read_commits(r: &mut Reader<'_>, owner: &mut Owner) -> Result<(), WireError> {
    let commits = &mut owner.commits;
    let (keep, history) = (time(r)?, r.u64()?);
    owner.terms = keep.map(|keep| Terms { keep, history });
    commits.first = r.u32()?;
    for _ in 0..count(r, MAX_FIELD)? {
        commits.all.push_back((r.u64()?, r.u32()?));
    }
    for epochs in [&mut commits.welcomed, &mut commits.reached] {
        for _ in 0..count(r, MAX_MEMBERS)? {
            epochs.insert(peer(r)?, r.u64()?);
        }
    }
    for _ in 0..count(r, MAX_FIELD)? {
        commits.former.insert(peer(r)?, (r.u32()?, r.u64()?));
    }
    Ok(())
}

fn read_packages(r: &mut Reader<'_>, most: usize) -> Result<BTreeMap<PeerId, Vec<u8>>, WireError> {
    (0..count(r, most)?)
        .map(|_| Ok((peer(r)?, field(r)?.to_vec())))
        .collect()
}

fn put_append(w: &mut Writer, append: &Append) {
    w.u8((append.log == Log::Owner).into()).u32(append.number);
    match &append.entry {
        NewEntry::Body { kind, body } => long(w.u8(0).u8(*kind), body),
        NewEntry::Grants(grants) => {
            w.u8(1).u32(grants.len() as u32);
            for (author, last) in grants {
                w.put(author.public_key()).u32(*last);
            }
        }
    }
}

fn read_append(r: &mut Reader<'_>) -> Result<Append, WireError> {
    let log = match flag(r)? {
        true => Log::Owner,
        false => Log::Own,
    };
    let number = r.u32()?;
    let entry = match r.u8()? {
        0 => {
            let (kind, body) = (r.u8()?, field(r)?.to_vec());
            if body.len() > MAX_BODY {
                return Err(WireError::Bad("body"));
            }
            NewEntry::Body { kind, body }
        }
        1 => {
            let grants = (0..count(r, MAX_GRANTS)?).map(|_| Ok((peer(r)?, r.u32()?)));
            NewEntry::Grants(grants.collect::<Result<_, WireError>>()?)
        }
        _ => return Err(WireError::Bad("entry")),
    };
    Ok(Append { log, number, entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Founding;

    #[test]
    fn last_parts_of_a_state_come_back_in_all_combinations() {
        let key = |n: u8| SecretKey::from_seed(&[n; 32]);
        let now = UnixTime::from_secs(1_790_000_000);
        for parts in 0..16_u8 {
            let has = |part: u8| parts & part != 0;
            let founding = Founding {
                key: key(1),
                read_key: [2; 32].into(),
                topic: "team".to_owned(),
                name: "Ann".to_owned(),
            };
            let mut group = Group::create(founding, &[3; 32], now).unwrap();
            if has(1) {
                group.devices.used.insert(7, key(4).peer_id());
            }
            if has(2) {
                group.devices.asked_of = Some(key(5).peer_id());
                group.devices.asked.insert(key(6).peer_id());
            }
            if has(4) {
                group
                    .network
                    .take_text((now.as_millis() / 60_000) << 32, key(7).peer_id(), now);
            }
            if has(8) {
                group.removal.is_notified = true;
                let (author, person) = (key(8).peer_id(), key(9).peer_id());
                let name = "Ann".to_owned();
                let known = crate::removal::Known {
                    author,
                    name,
                    person,
                };
                let (members, epoch) = (vec![known], Some(7));
                group.removal.seen = Some(crate::removal::Seen { members, epoch });
            }
            let state = group.state().unwrap();
            let back = Group::restore(&state, &[4; 32]).unwrap();
            assert_eq!(*back.state().unwrap(), *state);
            assert_eq!(back.devices.used, group.devices.used);
            assert_eq!(back.devices.asked, group.devices.asked);
            assert_eq!(back.devices.asked_of, group.devices.asked_of);
            assert_eq!(back.network.texts, group.network.texts);
            assert_eq!(back.removal.seen, group.removal.seen);
            assert_eq!(back.removal.is_notified, has(8));
        }
    }
}
