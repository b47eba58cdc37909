//! Linux's reports of memberships (`net/ipv6/mcast.c`): changes leave together, two to three ticks
//! after the last one, and repeat within a second each, up to the querier's robustness.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use librecast::channel::ChannelId;
use librecast::mld::RecordType;
use librecast::random::Random;

const TICK: Duration = Duration::from_millis(4);
/// The querier's robustness variable.
const ROBUSTNESS: u8 = 5;
/// Interval of unsolicited reports.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Kernel {
    members: BTreeSet<ChannelId>,
    /// Reports left for each change.
    changes: BTreeMap<ChannelId, u8>,
    reports_left: u8,
    report_at: Option<Duration>,
    /// Answers to queries.
    answers: BTreeMap<ChannelId, Duration>,
}

impl Kernel {
    pub fn is_member(&self, channel: ChannelId) -> bool {
        self.members.contains(&channel)
    }

    pub fn set(&mut self, channel: ChannelId, join: bool, time: Duration, random: &mut Random) {
        let changed = if join {
            self.members.insert(channel)
        } else {
            self.members.remove(&channel)
        };
        if !changed {
            return;
        }
        if !join {
            self.answers.remove(&channel);
        }
        self.changes.insert(channel, ROBUSTNESS);
        self.reports_left = ROBUSTNESS;
        self.report_at = Some(time + TICK * 2 + below(TICK, random));
    }

    /// Ends the program with its sockets.
    pub fn leave_all(&mut self, time: Duration, random: &mut Random) {
        for channel in self.members.clone() {
            self.set(channel, false, time, random);
        }
    }

    /// Handles a query, for one group or all.
    pub fn query(
        &mut self,
        channel: Option<ChannelId>,
        within: Duration,
        time: Duration,
        random: &mut Random,
    ) {
        let at = time + below(within, random);
        let asked = |member: &&ChannelId| channel.is_none_or(|c| c == **member);
        for member in self.members.iter().filter(asked) {
            let answer = self.answers.entry(*member).or_insert(at);
            *answer = at.min(*answer);
        }
    }

    /// Returns the records that are due.
    pub fn poll(&mut self, time: Duration, random: &mut Random) -> Vec<(RecordType, ChannelId)> {
        let mut records: Vec<_> = self
            .answers
            .extract_if(.., |_, at| *at <= time)
            .map(|(channel, _)| (RecordType::ModeIsExclude, channel))
            .collect();
        if self.report_at.is_none_or(|at| at > time) {
            return records;
        }
        for (channel, left) in &mut self.changes {
            *left -= 1;
            let kind = if self.members.contains(channel) {
                RecordType::ChangeToExclude
            } else {
                RecordType::ChangeToInclude
            };
            records.push((kind, *channel));
        }
        self.changes.retain(|_, left| *left > 0);
        self.reports_left -= 1;
        self.report_at = (self.reports_left > 0).then(|| time + below(INTERVAL, random));
        records
    }
}

fn below(bound: Duration, random: &mut Random) -> Duration {
    Duration::from_micros(random.below(bound.as_micros() as u64))
}
