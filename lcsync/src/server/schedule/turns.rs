//! Turns of a channel: bursts, trickles, queries, and the measured needs of members.

use std::net::Ipv6Addr;

use librecast::time::{Duration, Instant};

use super::Schedule;
use super::gate::Gate;
use super::need::{MIN_GATHERED, Need};
use super::sending::{Burst, Stage};
use crate::packet::WIRE_SIZE;
use crate::server::channel::{Action, Channel};
use crate::stretch::{REPAIR_LAYER, STRETCH_LAYER};

/// Fewest symbols of a trickle. Chosen: they cost less than the time for another query.
const MIN_TRICKLE: u32 = 16;
/// Answers to queries that cause a trickle each; the next one causes a burst. Chosen.
const TRICKLES: u8 = 2;
/// Factor of K: most symbols sent on one report, so that a vanished member costs no more. Chosen.
const HARD_SYMBOLS: u32 = 4;
/// Most time of sending on one report, for slow channels. Chosen.
const HARD_TIME: Duration = Duration::from_secs(10);
/// Time for an answer to a query. Chosen.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Queries without an answer after which a channel stops. Chosen: one may get lost.
const ASKS: u8 = 2;
/// Pause between a stretch and its query, besides that for PARTs: a receiver needs 150 ms.
const STRETCH_PAUSE: Duration = Duration::from_millis(200);
/// Longest delay that a sender makes up for. Chosen.
const MAX_LAG: Duration = Duration::from_millis(20);

impl Schedule {
    pub(super) fn need_of(&self, channel: Channel) -> Need {
        let sending = self.channels.get(&channel);
        let need = sending.and_then(|s| self.needs.get(&(channel.interface, s.layer)));
        need.copied().unwrap_or_default()
    }

    /// Notes a JOIN that needs a whole burst, counted from now.
    pub(super) fn renew(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let need = self.need_of(channel);
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        let fresh = sending.symbols + sending.extra_of(need);
        match sending.stage {
            Stage::Trickle { .. } | Stage::Asked { .. } if sending.layer == REPAIR_LAYER => {
                self.enter_trickle(channel);
                return;
            }
            // a JOIN before the first symbol misses none
            Stage::Awaited => return,
            Stage::Gathering { .. } | Stage::Waiting { .. } if sending.owed == 0 => return,
            Stage::Burst { .. } if sending.sent_in_burst == 0 && sending.owed == 0 => return,
            Stage::Gathering { .. } | Stage::Waiting { .. } => {
                sending.owed = fresh;
            }
            Stage::Burst { left } => sending.owed = fresh.saturating_sub(left),
            Stage::Trickle { .. } | Stage::Asked { .. } => {
                sending.owed = fresh;
                self.wait_for_rest(channel, now);
            }
        }
        if let Some(sending) = self.channels.get_mut(&channel) {
            (sending.sent_in_burst, sending.answers) = (0, 0);
            sending.hopeful = reporter;
        }
    }

    /// Makes the owed symbols wait for their turn.
    fn wait_for_rest(&mut self, channel: Channel, now: Instant) {
        if let Some(sending) = self.channels.get_mut(&channel) {
            self.turns.remove(&(sending.due, channel));
            sending.stage = Stage::Gathering { until: now };
            self.gathering.insert((now, channel));
        }
    }

    /// Begins the turns of a burst, from its due time.
    pub(super) fn enter_burst(&mut self, channel: Channel, left: u32) {
        if let Some(sending) = self.channels.get_mut(&channel) {
            sending.stage = Stage::Burst { left };
            self.turns.insert((sending.due, channel));
            let layer = sending.layer;
            let rate = self.paces[usize::from(layer)].rate;
            self.bursting += 1;
            self.load += rate;
            if layer == STRETCH_LAYER {
                self.load_of_stretches += rate;
            }
            if let Some(gate) = self.gates.get_mut(&channel.interface) {
                gate.load += rate;
            }
            if let Some(kept) = self.kept(channel) {
                kept.load += rate;
            }
        }
    }

    /// Begins a trickle: few symbols at a time, with pauses, at most a whole block.
    pub(super) fn enter_trickle(&mut self, channel: Channel) {
        if let Some(sending) = self.channels.get_mut(&channel) {
            let (left, sent) = (sending.symbols, 0);
            sending.stage = Stage::Trickle { left, sent, run: 0 };
            self.turns.insert((sending.due, channel));
        }
    }

    pub(super) fn leave_burst(&mut self, channel: Channel, layer: u8) {
        let rate = self.paces[usize::from(layer)].rate;
        debug_assert!(
            self.bursting > 0 && self.load >= rate,
            "a burst that ends has begun"
        );
        self.bursting -= 1;
        self.load -= rate;
        if let Some(gate) = self.gates.get_mut(&channel.interface) {
            gate.load -= rate;
        }
        if layer == STRETCH_LAYER {
            self.load_of_stretches -= rate;
        }
        if let Some(kept) = self.kept(channel) {
            kept.load -= rate;
        }
    }

    /// Handles an answer to a query: a few more symbols, or, if those were not enough, a burst.
    pub(super) fn answered(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        if sending.owed > 0 {
            self.wait_for_rest(channel, now);
            return;
        }
        if sending.answers == TRICKLES || sending.layer == STRETCH_LAYER {
            self.renew(channel, reporter, now);
            return;
        }
        sending.answers += 1;
        sending.stage = Stage::Trickle {
            left: trickle_of(sending.symbols),
            sent: trickle_of(sending.symbols),
            run: 0,
        };
        self.turns.remove(&(sending.due, channel));
        sending.due = now;
        self.turns.insert((now, channel));
    }

    /// Learns the need of a channel from its last member's PART.
    pub(super) fn learn(&mut self, channel: Channel, now: Instant) {
        let Some(sending) = self.channels.get(&channel) else {
            return;
        };
        let whole = sending.burst == Burst::First && sending.sent_in_burst >= sending.symbols;
        let ended = !matches!(
            sending.stage,
            Stage::Awaited | Stage::Gathering { .. } | Stage::Waiting { .. }
        );
        let other = sending.layer >= REPAIR_LAYER;
        if sending.symbols < MIN_GATHERED || sending.list || other || !whole || !ended {
            return;
        }
        let need = self
            .needs
            .entry((channel.interface, sending.layer))
            .or_default();
        // symbols sent later cannot have caused the PART
        let mut pauses = sending.pauses.iter().flatten();
        let seen = pauses.find(|(at, _)| now.saturating_duration_since(*at) >= need.seen());
        match seen {
            Some((_, sent)) => need.needed(sending.symbols, *sent),
            None => need.was_enough(sending.symbols, sending.extra),
        }
    }

    pub(super) fn ask_at_next_turn(&mut self, channel: Channel, now: Instant) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        if let Stage::Burst { .. } | Stage::Trickle { .. } = sending.stage {
            // makes the evidence expire: the next turn queries
            sending.evidence_at = now.checked_sub(HARD_TIME).unwrap_or(sending.evidence_at);
        }
    }

    pub(super) fn take_turn(&mut self, channel: Channel, now: Instant) -> Option<Action> {
        let sending = self.channels.get_mut(&channel)?;
        let spent = sending.sent_on_evidence >= HARD_SYMBOLS * sending.symbols + MIN_TRICKLE
            || now.saturating_duration_since(sending.evidence_at) >= HARD_TIME;
        let pace = self.paces[usize::from(sending.layer)];
        let (layer, stage) = (sending.layer, sending.stage);
        let need = self.need_of(channel);
        let idle = self.bursting == 0;
        let sends = !spent && matches!(stage, Stage::Burst { .. } | Stage::Trickle { .. });
        if sends && let Some(at) = self.closed_until(channel, now) {
            // other channels send meanwhile
            let sending = self.channels.get_mut(&channel)?;
            sending.due = at;
            self.turns.insert((at, channel));
            return None;
        }
        let gate = self.gates.get_mut(&channel.interface).filter(|_| sends);
        let most = gate.map_or(u32::MAX, Gate::take_turn);
        let sending = self.channels.get_mut(&channel)?;
        match stage {
            Stage::Awaited | Stage::Gathering { .. } | Stage::Waiting { .. } => None,
            Stage::Burst { left } if !spent => {
                let count = left.min(pace.turn).min(most);
                let time = pace.symbol_time * count;
                if left > count {
                    sending.stage = Stage::Burst { left: left - count };
                } else if sending.owed > 0 {
                    self.leave_burst(channel, layer);
                    let action = self.send(channel, count, time, now);
                    self.wait_for_rest(channel, now);
                    return action;
                } else {
                    let stretch = layer == STRETCH_LAYER;
                    sending.stage = Stage::Trickle {
                        left: if stretch {
                            0
                        } else {
                            trickle_of(sending.symbols)
                        },
                        sent: 0,
                        run: 0,
                    };
                    self.leave_burst(channel, layer);
                    return self.send_and_pause(channel, count, time, now);
                }
                self.send(channel, count, time, now)
            }
            Stage::Trickle { left, sent, run } if !spent && left > 0 => {
                let run = match run {
                    // if nothing else is sent, needless symbols cost nothing
                    0 if idle => need.step(sending.symbols, sent).max(sent).min(left),
                    0 => need.step(sending.symbols, sent).min(left),
                    run => run,
                };
                let count = run.min(pace.turn).min(most);
                let run = run - count;
                sending.stage = Stage::Trickle {
                    left: left - count,
                    sent: sent + count,
                    run,
                };
                let time = pace.symbol_time * count;
                if run > 0 {
                    return self.send(channel, count, time, now);
                }
                self.send_and_pause(channel, count, time, now)
            }
            Stage::Burst { left } => {
                sending.owed += left;
                self.leave_burst(channel, layer);
                self.ask(channel, 1, now)
            }
            Stage::Trickle { .. } => self.ask(channel, 1, now),
            Stage::Asked { times } if times < ASKS => self.ask(channel, times + 1, now),
            Stage::Asked { .. } => {
                self.stop(channel, now);
                None
            }
        }
    }

    /// Returns when the channel's share may send again, if its limit is used up.
    fn closed_until(&mut self, channel: Channel, now: Instant) -> Option<Instant> {
        let bucket = self.kept(channel)?.bucket.as_mut()?;
        // always a little later, so that time advances
        (!bucket.ready(now)).then(|| bucket.ready_at().max(now + Duration::from_micros(1)))
    }

    /// Sends `count` symbols, and pauses for PARTs.
    fn send_and_pause(
        &mut self,
        channel: Channel,
        count: u32,
        time: Duration,
        now: Instant,
    ) -> Option<Action> {
        let mut pause = self.need_of(channel).pause();
        if self.channels.get(&channel)?.layer == STRETCH_LAYER {
            pause += STRETCH_PAUSE;
        }
        let action = self.send(channel, count, time + pause, now);
        let sending = self.channels.get_mut(&channel)?;
        sending.pauses.rotate_right(1);
        sending.pauses[0] = Some((now, sending.sent_in_burst));
        action
    }

    fn ask(&mut self, channel: Channel, times: u8, now: Instant) -> Option<Action> {
        let sending = self.channels.get_mut(&channel)?;
        sending.stage = Stage::Asked { times };
        sending.due = now + ASK_AGAIN;
        self.turns.insert((sending.due, channel));
        Some(Action::Ask { channel })
    }

    /// Sends the next `count` symbols; the following turn comes after `time`.
    fn send(
        &mut self,
        channel: Channel,
        count: u32,
        time: Duration,
        now: Instant,
    ) -> Option<Action> {
        let wire = self.wire_size(channel);
        // the paces are those of unsealed packets
        let time = time * wire as u32 / WIRE_SIZE as u32;
        let sending = self.channels.get_mut(&channel)?;
        debug_assert!(count > 0, "a turn sends symbols");
        let sequence = sending.position.sequence();
        let ids = (0..count)
            .map(|_| sending.position.next(sending.symbols))
            .collect();
        sending.sent_on_evidence += count;
        let before = sending.sent_in_burst;
        sending.sent_in_burst += count;
        if sending.burst == Burst::First
            && (before..sending.sent_in_burst).contains(&(sending.symbols - 1))
        {
            sending.whole_at = Some(now);
        }
        *match (sending.stage, sending.burst) {
            (Stage::Trickle { sent: 1.., .. }, _) => &mut self.sent.trickle,
            (_, Burst::First) => &mut self.sent.first,
            (_, Burst::Again) => &mut self.sent.again,
            (_, Burst::Late) => &mut self.sent.late,
        } += u64::from(count);
        let bytes = u64::from(count) * wire;
        self.capacity.spend(bytes);
        if let Some(gate) = self.gates.get_mut(&channel.interface) {
            gate.capacity.spend(bytes);
        }
        let earliest = now.checked_sub(MAX_LAG).unwrap_or(now);
        sending.due = sending.due.max(earliest) + time;
        self.turns.insert((sending.due, channel));
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(bytes, now);
        }
        if let Some(bucket) = self.kept(channel).and_then(|k| k.bucket.as_mut()) {
            bucket.spend(bytes, now);
        }
        if let Some(traffic) = self.traffic_of(channel, now) {
            traffic.add(count, wire, now);
        }
        Some(Action::Symbols {
            channel,
            sequence,
            ids,
        })
    }
}

/// Returns the most symbols of a trickle.
fn trickle_of(symbols: u32) -> u32 {
    (symbols / 4).max(MIN_TRICKLE)
}
