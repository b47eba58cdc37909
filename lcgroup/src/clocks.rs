//! Presence bodies: clocks that differ from this host's by over a day, and refusals.
//!
//! ```text
//! 0                        | a host shows its clock
//! 1 | reason 8 | author 64 | time 64   | the owner refused this author's request of this time
//! 2 | nonce 64 | author 64 | asks for the clock of this author, the owner, and a sample of members
//! 3 | n x nonce 64         | the answer
//! ```
//!
//! Any holder of the read key can send a recording of presence. So a clock counts only in an answer to
//! a question of this host, whose nonce no recording has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lcgroup_core::RequestRefusal;
use librecast::id::{PeerId, derive};
use librecast::wire::{Reader, Writer};
use librecast_log::{AuthorId, MAX_PRESENCE};

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// Pause after the first question. It doubles up to [`LONGEST_PAUSE`]. Chosen: recordings of many
/// clocks cost a group little.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause between questions. Chosen.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Shortest pause between two answers. Chosen.
const ANSWER_AGAIN: Duration = Duration::from_secs(2);
/// Members that answer a question, on average. Chosen: all of a small group.
const SAMPLE: usize = 16;
/// Questions that one presence answers.
const MAX_ANSWERED: usize = (MAX_PRESENCE - 1) / 8;

/// The content of presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The author's clock.
    Clock,
    /// A refusal, the requesting author, and the time of its request.
    Refused(RequestRefusal, AuthorId, u64),
    /// A question with its nonce, about the clock of an author.
    Question(u64, AuthorId),
    /// The author's clock, in answer to questions with these nonces.
    Answer(Vec<u64>),
}

impl Shown {
    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Clock => w.u8(0),
            // only refusals with a number are answered
            Self::Refused(reason, author, time) => {
                w.u8(1).u8(reason.number().unwrap_or(u8::MAX));
                w.u64(author.0).u64(*time)
            }
            Self::Question(nonce, author) => w.u8(2).u64(*nonce).u64(author.0),
            Self::Answer(nonces) => nonces.iter().fold(w.u8(3), |w, nonce| w.u64(*nonce)),
        };
        w.into_vec()
    }

    /// Decodes it; none for other bytes.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut r = Reader::new(body);
        let shown = match r.u8().ok()? {
            0 => Self::Clock,
            1 => {
                let reason = RequestRefusal::of_number(r.u8().ok()?)?;
                Self::Refused(reason, AuthorId(r.u64().ok()?), r.u64().ok()?)
            }
            2 => Self::Question(r.u64().ok()?, AuthorId(r.u64().ok()?)),
            3 => {
                let mut nonces = Vec::new();
                while !r.is_empty() {
                    nonces.push(r.u64().ok()?);
                }
                Self::Answer(nonces)
            }
            _ => return None,
        };
        r.finish().ok()?;
        Some(shown)
    }
}

/// Members' clocks that are known in this run.
#[derive(Debug, Default)]
pub struct Clocks {
    /// Clocks that differ, with the ms by which each is ahead of this host's.
    off: BTreeMap<PeerId, i64>,
    near: BTreeSet<PeerId>,
}

impl Clocks {
    /// Stores a member's answer; `ahead` is none if its clock agrees. Returns whether it differs
    /// anew.
    pub fn hear(&mut self, who: PeerId, ahead: Option<i64>) -> bool {
        match ahead {
            Some(ahead) => {
                self.near.remove(&who);
                self.off.insert(who, ahead).is_none()
            }
            None => {
                self.off.remove(&who);
                self.near.insert(who);
                false
            }
        }
    }

    /// Forgets that a member's clock differed: it may have been set.
    pub fn forget(&mut self, who: &PeerId) {
        self.off.remove(who);
    }

    /// A member whose clock shows that this host's is wrong, and the ms by which it is ahead. The
    /// owner's answer decides. Without it, clocks within one day of each other decide, if they are
    /// more than those that agree with this host's, which counts as well.
    pub fn judge(&self, owner: &[PeerId], is_owner: bool) -> Option<(PeerId, i64)> {
        if !is_owner {
            let known = owner.iter().find_map(|key| self.off.get_key_value(key));
            if known.is_some() || owner.iter().any(|key| self.near.contains(key)) {
                return known.map(|(who, ahead)| (*who, *ahead));
            }
        }
        let within = |from: i64| {
            let alike = self.off.iter();
            alike
                .filter(move |(_, ahead)| (from..=from.saturating_add(DAY as i64)).contains(*ahead))
        };
        let largest = self
            .off
            .values()
            .max_by_key(|from| within(**from).count())?;
        let outvoted = within(*largest).count() > self.near.len() + 1;
        let first = within(*largest).next().filter(|_| outvoted);
        first.map(|(who, ahead)| (*who, *ahead))
    }
}

/// Questions of this host, and those of others that wait for an answer.
#[derive(Debug, Default)]
pub struct Questions {
    nonce: Option<u64>,
    asked: Option<Instant>,
    /// Questions since the last new start.
    count: u32,
    /// Nonces to answer, one for each author that asks.
    waiting: BTreeMap<AuthorId, u64>,
    answered: Option<Instant>,
}

impl Questions {
    /// Whether these nonces answer this host's last question.
    pub fn is_answered_by(&self, nonces: &[u64]) -> bool {
        self.nonce.is_some_and(|nonce| nonces.contains(&nonce))
    }

    /// Notes a new question with this nonce, unless the last one is too recent.
    pub fn ask(&mut self, nonce: u64, now: Instant) -> bool {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.count.saturating_sub(1));
        let pause = pause.min(LONGEST_PAUSE);
        let lately = |at| now.saturating_duration_since(at) < pause;
        if self.asked.is_some_and(lately) {
            return false;
        }
        (self.nonce, self.asked) = (Some(nonce), Some(now));
        self.count = self.count.saturating_add(1).min(16);
        true
    }

    /// Notes a question of an author; returns whether it has a place.
    pub fn take(&mut self, from: AuthorId, nonce: u64) -> bool {
        let has_place = self.waiting.len() < MAX_ANSWERED || self.waiting.contains_key(&from);
        if has_place {
            self.waiting.insert(from, nonce);
        }
        has_place
    }

    /// When an answer is due.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.answered.map_or(now, |at| at + ANSWER_AGAIN);
        (!self.waiting.is_empty()).then_some(due)
    }

    /// Takes the nonces of a due answer.
    pub fn take_due(&mut self, now: Instant) -> Option<Vec<u64>> {
        self.due(now).filter(|at| *at <= now)?;
        self.answered = Some(now);
        Some(std::mem::take(&mut self.waiting).into_values().collect())
    }
}

/// Whether this member is in the sample that answers a question. The nonce draws it, so no member
/// chooses to be one of few that answer.
pub fn is_drawn(nonce: u64, me: AuthorId, members: usize) -> bool {
    let parts = [&nonce.to_be_bytes()[..], &me.0.to_be_bytes()];
    let hash = derive("lcgroup 2026 sample of clocks", &parts);
    let drawn = u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    u128::from(drawn) * members as u128 <= u128::from(u64::MAX) * SAMPLE as u128
}

/// Formats such as `40 days behind`, if another clock is `ahead` by these ms.
pub fn off_by(ahead: i64) -> String {
    let (days, way) = (
        (ahead.unsigned_abs() + DAY / 2) / DAY,
        if ahead > 0 { "behind" } else { "ahead of" },
    );
    match days {
        0 | 1 => format!("1 day {way}"),
        _ => format!("{days} days {way}"),
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn presence_comes_back_from_its_bytes() {
        for shown in [
            Shown::Clock,
            Shown::Refused(RequestRefusal::UsedUp, AuthorId(7), 5),
            Shown::Question(8, AuthorId(9)),
            Shown::Answer((0..MAX_ANSWERED as u64).collect()),
        ] {
            let bytes = shown.encode();
            assert!(bytes.len() <= MAX_PRESENCE);
            assert_eq!(Shown::decode(&bytes).as_ref(), Some(&shown));
            assert_eq!(Shown::decode(&[&bytes[..], &[0]].concat()), None);
        }
        let question = [2, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(Shown::Question(8, AuthorId(9)).encode(), question);
        for other in [&[][..], &[2], &[4], &[1, 99, 0], &[1], &[3, 0]] {
            assert_eq!(Shown::decode(other), None);
        }
    }

    #[test]
    fn the_owners_clock_decides_and_without_it_most_others_that_agree() {
        let day = DAY as i64;
        let mut clocks = Clocks::default();
        assert!(clocks.hear(key(2), Some(5)) && !clocks.hear(key(2), Some(6)));
        assert_eq!(clocks.judge(&[key(1)], false), None, "one of two");
        assert_eq!(clocks.judge(&[key(2)], false), Some((key(2), 6)));
        assert_eq!(clocks.judge(&[key(2)], true), None, "one of two");
        // three members without the owner: both others say the same
        clocks.hear(key(3), Some(6 + day));
        let told = |clocks: &Clocks| clocks.judge(&[key(1)], false).map(|(_, ahead)| ahead);
        assert_eq!(told(&clocks), Some(6));
        // two liars who do not say the same
        clocks.hear(key(3), Some(7 + day));
        assert_eq!(told(&clocks), None);
        clocks.hear(key(1), Some(-9));
        assert_eq!(clocks.judge(&[key(1)], false), Some((key(1), -9)));
        clocks.hear(key(1), None);
        for n in 4..9 {
            clocks.hear(key(n), Some(6));
        }
        assert_eq!(told(&clocks), None, "the owner agrees");
    }

    #[test]
    fn a_minority_misleads_nobody() {
        for members in 2..40_u8 {
            for liars in 0..members {
                let mut clocks = Clocks::default();
                for n in 1..members {
                    clocks.hear(key(n), (n <= liars).then_some(9 * DAY as i64));
                }
                // key 0 is the owner, who is away
                let told = clocks.judge(&[key(0)], false).is_some();
                assert_eq!(told, 2 * liars > members, "{liars} of {members}");
            }
        }
    }

    #[test]
    fn questions_are_few_and_only_their_own_answers_count() {
        let (mut questions, mut now) = (Questions::default(), Instant::now());
        assert!(!questions.is_answered_by(&[0, 1]));
        let asked: Vec<u64> = (0..86_400)
            .filter(|second| {
                now += Duration::from_secs(1);
                questions.ask(*second, now)
            })
            .collect();
        assert_eq!(asked[..4], [0, 10, 30, 70]);
        assert!((144..160).contains(&asked.len()), "{}", asked.len());
        let last = asked[asked.len() - 1];
        assert!(questions.is_answered_by(&[1, last]) && !questions.is_answered_by(&asked[..9]));
    }

    #[test]
    fn many_questions_are_answered_at_once_and_one_author_takes_one_place() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        assert_eq!(questions.take_due(now), None);
        (0..100).for_each(|n| assert!(questions.take(AuthorId(1), n)));
        assert_eq!(questions.take_due(now), Some(vec![99]));
        for author in 0..MAX_ANSWERED as u64 {
            assert!(questions.take(AuthorId(author), author));
        }
        assert!(!questions.take(AuthorId(99), 1));
        assert_eq!(questions.take_due(now + ANSWER_AGAIN / 2), None);
        assert_eq!(questions.due(now), Some(now + ANSWER_AGAIN));
        let all = questions.take_due(now + ANSWER_AGAIN).unwrap();
        assert_eq!(all.len(), MAX_ANSWERED);
        assert!(Shown::Answer(all).encode().len() <= MAX_PRESENCE);
    }

    #[test]
    fn a_sample_is_all_of_a_small_group_and_few_of_a_large_one() {
        let drawn = |nonce, members: usize| {
            let all = (0..members as u64).map(|n| AuthorId(n << 40));
            all.filter(|me| is_drawn(nonce, *me, members)).count()
        };
        assert_eq!(drawn(1, SAMPLE), SAMPLE);
        let sizes: Vec<usize> = (0..20).map(|nonce| drawn(nonce, 1_000)).collect();
        let mean = sizes.iter().sum::<usize>() as f64 / 20.0;
        assert!((12.0..20.0).contains(&mean), "{sizes:?}");
    }

    #[test]
    fn a_difference_is_told_in_days() {
        let day = DAY as i64;
        assert_eq!(off_by(day + 1), "1 day behind");
        assert_eq!(off_by(40 * day - 9), "40 days behind");
        assert_eq!(off_by(-730 * day), "730 days ahead of");
    }
}
