//! The choice of groups by loss: down at once, up slowly.
//!
//! ```text
//! smooth and base --5 % of frames of base incomplete in 5 s, or the reader is behind--> base --again--> none
//! none --10 s, then 20, 40 ... 300 s--> base --that time without an incomplete frame--> smooth and base
//! repair: joined above 1 % of packets lost in 5 s, left below 0.2 % in 60 s
//! ```
//!
//! A frame counts as incomplete after repair, so while repair is not joined, none does.

use std::collections::VecDeque;

use librecast::time::{Duration, Instant};

/// Share of incomplete frames above which a layer is left: one of so many.
const INCOMPLETE: u64 = 20;
/// Incomplete frames above which a layer is left: a burst proves nothing.
const MIN_INCOMPLETE: u64 = 2;
/// Frames that wait for the reader, above which it is behind.
const BEHIND: usize = 4;
/// Time for which it is behind until a layer is left. A burst behind repair is shorter.
const BEHIND_TIME: Duration = Duration::from_millis(500);
/// Seconds of frames and packets that decide about leaving a layer and joining repair.
const SECONDS: usize = 5;
/// Seconds of packets that decide about leaving repair.
const REPAIR_SECONDS: usize = 60;
/// First time after which a left layer is tried again. Each further one doubles it.
const AGAIN: Duration = Duration::from_secs(10);
/// Longest of these times.
const MAX_AGAIN: Duration = Duration::from_secs(300);
/// Time after a change in which frames do not count: groups need it to come and go.
const SETTLING: Duration = Duration::from_secs(1);

/// A group of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Frames on which later ones depend.
    Base,
    /// Parities of base.
    Repair,
    /// Frames on which none depends.
    Smooth,
}

/// Frames and packets of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    frames: u64,
    incomplete: u64,
    packets: u64,
    lost: u64,
}

/// Chooses the groups of a receiver.
#[derive(Debug)]
pub struct Layers {
    /// Layers that are joined: 0 none, 1 base, 2 smooth, too.
    level: u8,
    repair_since: Option<Instant>,
    /// Whether layers are left by loss.
    is_adaptive: bool,
    /// The last minute by seconds; the last one grows.
    seconds: VecDeque<Count>,
    second_ends: Instant,
    again: Duration,
    /// Since when the reader is behind.
    behind_since: Option<Instant>,
    /// Time of the next layer.
    up_at: Option<Instant>,
    /// Frames that began earlier do not count.
    settled_at: Instant,
}

impl Layers {
    /// Begins with all layers. Unless `is_adaptive`, all of them stay joined.
    #[must_use]
    pub fn new(is_adaptive: bool, now: Instant) -> Self {
        Self {
            level: 2,
            repair_since: None,
            is_adaptive,
            seconds: VecDeque::from([Count::default()]),
            second_ends: now + Duration::from_secs(1),
            again: AGAIN,
            behind_since: None,
            up_at: None,
            settled_at: now,
        }
    }

    /// Returns the layers to be joined now.
    pub fn joined(&self) -> impl Iterator<Item = Layer> {
        let base = (self.level > 0).then_some(Layer::Base);
        let repair = self.repair_since.filter(|_| self.level > 0);
        let smooth = (self.level > 1).then_some(Layer::Smooth);
        let repair = repair.map(|_| Layer::Repair);
        base.into_iter().chain(repair).chain(smooth)
    }

    /// Returns whether so much was lost that nothing is joined.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.level == 0
    }

    /// Notes a frame of base that was complete, or was given up: its packets, those that did not
    /// come in its own group, and whether it was complete with those of repair.
    pub fn frame(
        &mut self,
        (packets, lost): (u64, u64),
        is_complete: bool,
        began: Instant,
        now: Instant,
    ) {
        self.handle_timeout(now);
        let is_repaired = |since: Instant| began >= since + SETTLING;
        let counts = self.repair_since.is_some_and(is_repaired) && began >= self.settled_at;
        if let Some(second) = self.seconds.back_mut() {
            second.packets += packets;
            second.lost += lost;
            second.frames += u64::from(counts);
            second.incomplete += u64::from(counts && !is_complete);
        }
        let last = self.sum(SECONDS);
        if self.repair_since.is_none() && last.lost * 100 > last.packets {
            self.repair_since = Some(now);
        }
        if !is_complete && self.level < 2 && self.up_at.is_some() {
            self.up_at = Some(now + self.again);
        }
        let last = self.sum(SECONDS);
        if last.incomplete > MIN_INCOMPLETE && last.incomplete * INCOMPLETE > last.frames {
            self.down(now);
        }
    }

    /// Notes how many frames wait for the reader.
    pub fn waiting(&mut self, frames: usize, now: Instant) {
        if frames <= BEHIND {
            self.behind_since = None;
            return;
        }
        let since = *self.behind_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= BEHIND_TIME && now >= self.settled_at {
            self.down(now);
        }
    }

    /// Leaves a layer.
    fn down(&mut self, now: Instant) {
        if !self.is_adaptive || self.level == 0 {
            return;
        }
        self.level -= 1;
        self.up_at = Some(now + self.again);
        self.again = (self.again * 2).min(MAX_AGAIN);
        self.settle(now);
    }

    fn settle(&mut self, now: Instant) {
        self.settled_at = now + SETTLING;
        for second in &mut self.seconds {
            (second.frames, second.incomplete) = (0, 0);
        }
    }

    fn sum(&self, seconds: usize) -> Count {
        let last = self.seconds.iter().rev().take(seconds);
        last.fold(Count::default(), |all, one| Count {
            frames: all.frames + one.frames,
            incomplete: all.incomplete + one.incomplete,
            packets: all.packets + one.packets,
            lost: all.lost + one.lost,
        })
    }

    /// Returns the time of the next call of [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let repair = self.repair_since.map(|_| self.second_ends);
        self.up_at.into_iter().chain(repair).min()
    }

    /// Joins a layer, or leaves repair, if that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.second_ends + Duration::from_secs(REPAIR_SECONDS as u64) {
            // the host slept, or nothing was sent
            self.seconds.clear();
            self.second_ends = now;
        }
        while now >= self.second_ends {
            self.second_ends += Duration::from_secs(1);
            self.seconds.push_back(Count::default());
            if self.seconds.len() > REPAIR_SECONDS {
                self.seconds.pop_front();
            }
        }
        let long = Duration::from_secs(REPAIR_SECONDS as u64);
        if let Some(since) = self.repair_since
            && now.saturating_duration_since(since) >= long
        {
            let minute = self.sum(REPAIR_SECONDS);
            if minute.lost * 500 <= minute.packets {
                self.repair_since = None;
            }
        }
        if self.up_at.is_some_and(|at| at <= now) {
            self.level += 1;
            self.up_at = (self.level < 2).then_some(now + self.again);
            self.settle(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of two packets, 7.5 a second.
    struct Run {
        layers: Layers,
        now: Instant,
        frame: u64,
    }

    impl Run {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        fn new(is_adaptive: bool) -> Self {
            let now = Instant::now();
            Self {
                layers: Layers::new(is_adaptive, now),
                now,
                frame: 0,
            }
        }

        /// Runs for so long; `of` returns lost packets, and whether repair completes the frame.
        fn run(&mut self, time: Duration, of: impl Fn(u64) -> (u64, bool)) {
            let end = self.now + time;
            while self.now < end {
                self.now += Duration::from_millis(133);
                let (lost, is_complete) = of(self.frame);
                self.frame += 1;
                if self.layers.is_off() {
                    self.layers.handle_timeout(self.now);
                } else {
                    self.layers
                        .frame((2, lost), is_complete, self.now, self.now);
                }
            }
        }

        fn joined(&self) -> Vec<Layer> {
            self.layers.joined().collect()
        }
    }

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    use Layer::{Base, Repair, Smooth};

    #[test]
    fn repair_is_joined_at_one_per_cent_and_left_after_a_good_minute() {
        let mut run = Run::new(true);
        run.run(seconds(30), |_| (0, true));
        assert_eq!(run.joined(), [Base, Smooth]);
        run.run(seconds(5), |n| (u64::from(n % 20 == 0), n % 20 != 0));
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
        run.run(seconds(70), |n| (u64::from(n % 100 == 0), true));
        assert_eq!(run.joined(), [Base, Repair, Smooth], "0.5 % is too much");
        run.run(seconds(62), |_| (0, true));
        assert_eq!(run.joined(), [Base, Smooth]);
    }

    #[test]
    fn layers_are_left_at_once_and_joined_slowly() {
        let mut run = Run::new(true);
        let bad = |n: u64| (1, !n.is_multiple_of(4));
        run.run(seconds(4), bad);
        assert_eq!(run.joined(), [Base, Repair]);
        run.run(seconds(4), bad);
        assert!(run.layers.is_off() && run.joined().is_empty());
        // 20 s after the second step, and again at once down
        run.run(seconds(15), bad);
        assert!(run.layers.is_off());
        run.run(seconds(6), |_| (0, true));
        assert_eq!(run.joined(), [Base, Repair]);
        // 40 s without an incomplete frame
        run.run(seconds(20), |_| (0, true));
        run.run(Duration::from_millis(133), |_| (2, false));
        run.run(seconds(38), |_| (0, true));
        assert_eq!(run.joined(), [Base, Repair]);
        run.run(seconds(4), |_| (0, true));
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
    }

    #[test]
    fn the_time_until_a_layer_is_tried_again_grows_to_five_minutes() {
        let mut run = Run::new(true);
        run.run(seconds(3_600), |_| (2, false));
        let mut tries = Vec::new();
        for _ in 0..3 {
            let begun = run.now;
            while run.layers.is_off() {
                run.run(seconds(1), |_| (2, false));
            }
            tries.push((run.now - begun).as_secs());
            while !run.layers.is_off() {
                run.run(seconds(1), |_| (2, false));
            }
        }
        assert!(
            tries[1..].iter().all(|s| (290..=301).contains(s)),
            "{tries:?}"
        );
    }

    #[test]
    fn a_single_frame_and_five_per_cent_leave_nothing() {
        let mut run = Run::new(true);
        run.run(seconds(300), |n| (u64::from(n % 10 == 0), n % 25 != 0));
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
        assert!(run.layers.sum(60).incomplete > 10);
    }

    #[test]
    fn a_reader_that_is_behind_gets_less() {
        let mut run = Run::new(true);
        run.run(seconds(2), |_| (0, true));
        run.layers.waiting(4, run.now);
        assert_eq!(run.joined(), [Base, Smooth]);
        run.layers.waiting(9, run.now);
        run.layers.waiting(3, run.now);
        run.layers.waiting(5, run.now);
        run.run(seconds(1), |_| (0, true));
        assert_eq!(run.joined(), [Base, Smooth]);
        run.layers.waiting(5, run.now);
        run.layers.waiting(5, run.now);
        assert_eq!(run.joined(), [Base], "one step a second");
        run.run(seconds(9), |_| (0, true));
        assert_eq!(run.joined(), [Base]);
        run.run(seconds(2), |_| (0, true));
        assert_eq!(run.joined(), [Base, Smooth]);
    }

    #[test]
    fn a_holder_leaves_nothing() {
        let mut run = Run::new(false);
        run.run(seconds(20), |_| (2, false));
        run.layers.waiting(100, run.now);
        run.run(seconds(1), |_| (2, false));
        run.layers.waiting(100, run.now);
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
    }
}
