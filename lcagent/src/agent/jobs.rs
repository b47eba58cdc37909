//! The jobs of an agent, with their answers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Instant;

use librecast::id::PeerId;

use super::delivery::Delivery;
use super::revoked::Principal;
use crate::datagram::{JobId, StreamId};
use crate::sealed::AnswerKey;

/// Answers that are kept, delivered or not.
pub const MAX_ANSWERS: usize = 512;

/// A command, and its answer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) principal: Principal,
    /// The listed key that is charged for it.
    pub(super) sponsor: PeerId,
    pub(super) via: u32,
    pub(super) content: Content,
    pub(super) stream: StreamId,
    pub(super) delivery: Delivery,
    pub(super) running: bool,
    /// The key that seals the answer, if it is private.
    pub(super) seal: Option<AnswerKey>,
    /// The operator's key was revoked: the job ends without an answer.
    pub(super) denied: bool,
    /// The time at which the answer is dropped.
    pub(super) forget_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Content {
    /// A small answer, in memory.
    Here(Vec<u8>),
    /// A stream in the store, under this name.
    Stored(JobId),
}

/// All jobs, at most [`MAX_ANSWERS`].
#[derive(Debug, Default)]
pub(super) struct Jobs {
    of: BTreeMap<JobId, Job>,
    /// In order of arrival, for eviction.
    ages: VecDeque<JobId>,
    /// The job after which the search for data to send continues: each gets its turn.
    turn: JobId,
}

impl Jobs {
    pub(super) fn get(&self, id: &JobId) -> Option<&Job> {
        self.of.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &JobId) -> Option<&mut Job> {
        self.of.get_mut(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Job> {
        self.of.values()
    }

    /// The number of running jobs.
    pub(super) fn running(&self) -> usize {
        self.values().filter(|job| job.running).count()
    }

    /// The number of running jobs of a listed key.
    pub(super) fn running_of(&self, sponsor: &PeerId) -> usize {
        let of_one = |job: &&Job| job.running && job.sponsor == *sponsor;
        self.values().filter(of_one).count()
    }

    /// The jobs for which this holds.
    pub(super) fn filter(&self, holds: impl Fn(&Job) -> bool) -> Vec<JobId> {
        let jobs = self.of.iter().filter(|(_, job)| holds(job));
        jobs.map(|(id, _)| *id).collect()
    }

    /// Adds a job; returns the one that must give way in a full table: of the key with the most
    /// ended jobs its oldest delivered or in-memory answer, else its oldest.
    pub(super) fn insert(&mut self, id: JobId, job: Job) -> Option<(JobId, Job)> {
        let evicted = match self.of.len() >= MAX_ANSWERS {
            true => self.victim().and_then(|id| Some((id, self.remove(&id)?))),
            false => None,
        };
        self.of.insert(id, job);
        self.ages.push_back(id);
        evicted
    }

    fn victim(&self) -> Option<JobId> {
        let ended = || self.ages.iter().filter(|id| !self.of[*id].running);
        let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
        for id in ended() {
            *counts.entry(self.of[id].sponsor).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count)?.0;
        let of_most = || ended().filter(|id| self.of[*id].sponsor == most);
        let cheap = |id: &&JobId| {
            let job = &self.of[*id];
            matches!(job.content, Content::Here(_)) || job.delivery.is_delivered()
        };
        of_most().find(cheap).or_else(|| of_most().next()).copied()
    }

    pub(super) fn remove(&mut self, id: &JobId) -> Option<Job> {
        let job = self.of.remove(id)?;
        self.ages.retain(|known| known != id);
        Some(job)
    }

    /// The next job in turn that has data to send.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<JobId> {
        let behind = (Bound::Excluded(self.turn), Bound::Unbounded);
        let due = |(_, job): &(&JobId, &Job)| job.delivery.due().is_some_and(|at| at <= now);
        let next = self.of.range(behind).find(due);
        self.turn = *next.or_else(|| self.of.iter().find(due))?.0;
        Some(self.turn)
    }

    /// The time at which a job has data to send, or is dropped.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let times = |job: &Job| [job.delivery.due(), job.forget_at];
        self.values().flat_map(times).flatten().min()
    }
}
