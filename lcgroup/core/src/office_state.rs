//! The part of a state that groups with deputies have: who commits, and what this participant needs
//! to change sides.
//!
//! A flag in the state says that it is there.

use librecast::id::SecretKey;
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::MAX_MEMBERS;
use crate::body::Terms;
use crate::fields::{count, flag, peer, put_peers};
use crate::offices::{Deputy, Handover, MAX_DEPUTIES, Office, Offices, Spare, Term};
use crate::voice::{Said, put_word, read_word};

/// Longest list of terms or words: above all bounds of them.
const MAX_LIST: usize = 16_384;

pub(crate) fn put_offices(w: &mut Writer, offices: &Offices) {
    w.u32(offices.list.len() as u32);
    for deputy in &offices.list {
        w.put(deputy.author.public_key())
            .u32(deputy.after)
            .u32(deputy.last);
    }
    put_terms(w, offices.terms.iter());
    put_terms(w, [&offices.current, &offices.segment].into_iter());
    put_terms(w, offices.plan.iter());
    w.u32(offices.scanned.len() as u32);
    for (office, read) in &offices.scanned {
        put_office(w, *office);
        w.u32(*read);
    }
    w.u32(offices.tag)
        .u32(offices.applied)
        .u64(offices.admitted)
        .u64(offices.silence)
        .u64(offices.raised)
        .u64(offices.met)
        .u64(offices.absence.0)
        .u64(offices.absence.1);
    put_peers(w, offices.leaving.iter());
    w.u8(offices.spare.is_some().into());
    if let Some(spare) = &offices.spare {
        w.put(&spare.key.seed()[..])
            .u32(spare.last)
            .u32(spare.first);
        w.u8(spare.terms.is_some().into());
        if let Some(terms) = spare.terms {
            w.u64(terms.keep).u64(terms.history);
        }
    }
    w.u8(offices.lost.is_some().into());
    w.u64(offices.lost.unwrap_or_default());
    put_words(w, offices.kept.iter());
    put_words(w, offices.displaced.iter());
    w.u8(offices.handover.is_some().into());
    if let Some(handover) = offices.handover {
        put_office(w, handover.from.0);
        w.u32(handover.from.1);
        put_office(w, handover.to);
    }
}

pub(crate) fn read_offices(r: &mut Reader<'_>) -> Result<Offices, WireError> {
    let mut offices = Offices::default();
    for _ in 0..count(r, MAX_DEPUTIES)? {
        let (author, after, last) = (peer(r)?, r.u32()?, r.u32()?);
        offices.list.push(Deputy {
            author,
            after,
            last,
        });
    }
    offices.terms = read_terms(r)?;
    match read_terms(r)?[..] {
        [current, segment] => (offices.current, offices.segment) = (current, segment),
        _ => return Err(WireError::Bad("terms")),
    }
    offices.plan = read_terms(r)?.into();
    for _ in 0..count(r, MAX_DEPUTIES + 1)? {
        offices.scanned.insert(read_office(r)?, r.u32()?);
    }
    (offices.tag, offices.applied) = (r.u32()?, r.u32()?);
    (offices.admitted, offices.silence) = (r.u64()?, r.u64()?);
    (offices.raised, offices.met) = (r.u64()?, r.u64()?);
    offices.absence = (r.u64()?, r.u64()?);
    for _ in 0..count(r, MAX_MEMBERS)? {
        offices.leaving.insert(peer(r)?);
    }
    if flag(r)? {
        let key = SecretKey::from_seed(&Zeroizing::new(r.array()?));
        let (last, first) = (r.u32()?, r.u32()?);
        let terms = match flag(r)? {
            true => Some(Terms {
                keep: r.u64()?,
                history: r.u64()?,
            }),
            false => None,
        };
        offices.spare = Some(Spare {
            key,
            last,
            first,
            terms,
        });
    }
    let (lost, fork) = (flag(r)?, r.u64()?);
    offices.lost = lost.then_some(fork);
    offices.kept = read_words(r)?.into();
    offices.displaced = read_words(r)?;
    if flag(r)? {
        let from = (read_office(r)?, r.u32()?);
        let to = read_office(r)?;
        offices.handover = Some(Handover { from, to });
    }
    Ok(offices)
}

/// Bytes that [`put_offices`] writes, or some more.
pub(crate) fn offices_bytes(offices: &Offices) -> usize {
    let words = offices.kept.iter().chain(&offices.displaced);
    let words: usize = words.map(|(_, said)| said.content.len() + 24).sum();
    let terms = offices.terms.len() + offices.plan.len() + 2;
    2_048 + words + terms * 90 + offices.leaving.len() * 32
}

fn put_terms<'a>(w: &mut Writer, terms: impl ExactSizeIterator<Item = &'a Term>) {
    w.u32(terms.len() as u32);
    for term in terms {
        w.u32(term.term).u32(term.number).u32(term.from.1);
        put_office(w, term.office);
        put_office(w, term.from.0);
        w.u64(term.epoch);
    }
}

fn read_terms(r: &mut Reader<'_>) -> Result<Vec<Term>, WireError> {
    let term = |r: &mut Reader<'_>| {
        let (term, number, from) = (r.u32()?, r.u32()?, r.u32()?);
        let (office, before) = (read_office(r)?, read_office(r)?);
        Ok(Term {
            term,
            office,
            number,
            from: (before, from),
            epoch: r.u64()?,
        })
    };
    (0..count(r, MAX_LIST)?).map(|_| term(r)).collect()
}

fn put_office(w: &mut Writer, office: Office) {
    w.u8(office.is_some().into());
    if let Some(author) = office {
        w.put(author.public_key());
    }
}

fn read_office(r: &mut Reader<'_>) -> Result<Office, WireError> {
    match flag(r)? {
        true => Ok(Some(peer(r)?)),
        false => Ok(None),
    }
}

fn put_words<'a>(w: &mut Writer, words: impl ExactSizeIterator<Item = &'a (u64, Said)>) {
    w.u32(words.len() as u32);
    for (epoch, said) in words {
        put_word(w.u64(*epoch), said);
    }
}

fn read_words(r: &mut Reader<'_>) -> Result<Vec<(u64, Said)>, WireError> {
    let word = |r: &mut Reader<'_>| Ok((r.u64()?, read_word(r)?));
    (0..count(r, MAX_LIST)?).map(|_| word(r)).collect()
}
