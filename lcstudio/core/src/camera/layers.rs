//! The choice of groups by loss: down at once, up slowly.
//!
//! ```text
//! large --5 % of frames incomplete in 5 s, or the reader is behind--> smooth and base --again--> base --again--> none
//! none --10 s, then 20, 40 ... 300 s--> base --that time without an incomplete frame--> smooth and base
//!      --that time, if the reader asked for it and there is one--> large
//! repair: joined above 1 % of packets lost in 5 s, left below 0.2 % in 60 s
//! ```
//!
//! A frame counts as incomplete after repair, so while repair is not joined, none does. Base and
//! smooth stay joined until the large picture comes.

use std::collections::VecDeque;

use librecast::time::{Duration, Instant};

/// Share of incomplete frames above which a layer is left: one of this many.
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
/// Time without a large frame after which the small picture is joined again: a key each 2 s.
const LARGE_SILENCE: Duration = Duration::from_secs(4);
/// Time after a change in which frames do not count: groups need it to come and go.
const SETTLING: Duration = Duration::from_secs(1);

/// A picture of a camera: each is encoded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CameraSize {
    /// The one that all receivers begin with.
    Small,
    /// A larger one, for those that ask for it.
    Large,
}

/// A group of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Frames on which later ones depend.
    Base,
    /// Parities of base.
    Repair,
    /// Frames on which none depends.
    Smooth,
    /// All frames of the large picture.
    Large,
    /// Parities of those on which later ones depend.
    LargeRepair,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Base,
        Self::Repair,
        Self::Smooth,
        Self::Large,
        Self::LargeRepair,
    ];

    /// Returns the picture that it is of.
    #[must_use]
    pub fn size(self) -> CameraSize {
        match self {
            Self::Base | Self::Repair | Self::Smooth => CameraSize::Small,
            Self::Large | Self::LargeRepair => CameraSize::Large,
        }
    }
}

/// Level at which base alone is joined.
const BASE: u8 = 1;
/// Level at which smooth is joined, too.
const SMOOTH: u8 = 2;
/// Level at which the large picture replaces both.
const LARGE: u8 = 3;

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
    /// Layers that are joined; 0: none.
    level: u8,
    /// Whether the reader asks for the large picture, and whether the sender has one.
    wants_large: bool,
    has_large: bool,
    /// Until when the small picture is not needed: the large one comes.
    large_until: Option<Instant>,
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
    /// Begins with all layers of the small picture. Unless `is_adaptive`, none is left by loss.
    #[must_use]
    pub fn new(is_adaptive: bool, now: Instant) -> Self {
        Self {
            level: SMOOTH,
            wants_large: false,
            has_large: false,
            large_until: None,
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
        let (level, repairs) = (self.level, self.repair_since.is_some());
        let is_small = level >= BASE && !self.shows_large();
        Layer::ALL.into_iter().filter(move |layer| match layer {
            Layer::Base => is_small,
            Layer::Repair => is_small && repairs,
            Layer::Smooth => is_small && level >= SMOOTH,
            Layer::Large => level >= LARGE,
            Layer::LargeRepair => level >= LARGE && repairs,
        })
    }

    /// Returns whether a group of this picture is joined.
    pub fn joins(&self, size: CameraSize) -> bool {
        self.joined().any(|layer| layer.size() == size)
    }

    /// Returns whether the large picture takes the place of the small one.
    pub fn shows_large(&self) -> bool {
        self.large_until.is_some()
    }

    /// Whether the sender has a large picture.
    pub fn has_large(&self) -> bool {
        self.has_large
    }

    /// Sets whether the reader asks for the large picture. Unless something was lost, it is joined
    /// at once.
    pub fn want_large(&mut self, wants: bool, now: Instant) {
        self.wants_large = wants;
        self.follow_top(now);
    }

    /// Notes whether the sender has a large picture.
    pub fn offer_large(&mut self, has_large: bool, now: Instant) {
        if self.has_large != has_large {
            self.has_large = has_large;
            self.follow_top(now);
        }
    }

    /// Notes a frame of the large picture that can be shown. Returns whether it is to be shown.
    pub fn large_came(&mut self, now: Instant) -> bool {
        if self.level < LARGE {
            return false;
        }
        self.large_until = Some(now + LARGE_SILENCE);
        true
    }

    /// Tries the next layer now: the reader asks for it.
    pub fn try_again(&mut self, now: Instant) {
        if self.level < self.top() {
            self.up_at = Some(now);
        }
    }

    fn top(&self) -> u8 {
        match self.wants_large && self.has_large {
            true => LARGE,
            false => SMOOTH,
        }
    }

    fn follow_top(&mut self, now: Instant) {
        let top = self.top();
        if self.level > top {
            self.level = top;
            (self.up_at, self.large_until) = (None, None);
            self.settle(now);
        } else if self.level < top {
            // a layer that was left has its time
            self.up_at.get_or_insert(now);
        }
    }

    /// Returns whether so much was lost that nothing is joined.
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
        if !is_complete && self.level < self.top() && self.up_at.is_some() {
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
        self.large_until = None;
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
    pub fn next_timeout(&self) -> Option<Instant> {
        let repair = self.repair_since.map(|_| self.second_ends);
        let large = self.large_until;
        self.up_at.into_iter().chain(repair).chain(large).min()
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
        if self.large_until.is_some_and(|at| at <= now) {
            self.large_until = None;
            self.settle(now);
        }
        if self.up_at.is_some_and(|at| at <= now) {
            self.level = self.top().min(self.level + 1);
            self.up_at = (self.level < self.top()).then_some(now + self.again);
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

        /// Runs for this time; `of` returns lost packets, and whether repair completes the frame.
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

    use Layer::{Base, Large, LargeRepair, Repair, Smooth};

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
    fn the_large_picture_is_for_who_asks_and_is_left_at_once() {
        let mut run = Run::new(true);
        run.layers.want_large(true, run.now);
        run.run(seconds(1), |_| (0, true));
        assert_eq!(run.joined(), [Base, Smooth], "there is none");
        run.layers.offer_large(true, run.now);
        run.run(seconds(1), |_| (0, true));
        // until it comes, the small one stays
        assert_eq!(run.joined(), [Base, Smooth, Large]);
        assert!(run.layers.large_came(run.now));
        assert_eq!(run.joined(), [Large]);
        run.run(seconds(2), |_| (1, true));
        assert!(run.layers.large_came(run.now));
        assert_eq!(run.joined(), [Large, LargeRepair]);
        // too much is lost
        run.run(Duration::from_millis(390), |_| (2, false));
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
        assert!(!run.layers.large_came(run.now));
        run.run(seconds(8), |_| (0, true));
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
        run.run(seconds(3), |_| (0, true));
        assert_eq!(run.joined(), [Base, Repair, Smooth, Large, LargeRepair]);
        assert!(run.layers.large_came(run.now));
        // it falls silent, and the small one takes its place
        run.run(seconds(5), |_| (0, true));
        assert_eq!(run.joined(), [Base, Repair, Smooth, Large, LargeRepair]);
        run.layers.want_large(false, run.now);
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
        run.layers.want_large(true, run.now);
        run.run(seconds(1), |_| (0, true));
        assert!(run.joined().contains(&Large), "at once by a choice");
        run.layers.offer_large(false, run.now);
        assert_eq!(run.joined(), [Base, Repair, Smooth]);
    }

    #[test]
    fn a_reader_that_asks_gets_a_left_layer_at_once() {
        let mut run = Run::new(true);
        run.run(seconds(60), |_| (2, false));
        assert!(run.layers.is_off());
        run.layers.try_again(run.now);
        run.run(Duration::from_millis(133), |_| (0, true));
        assert_eq!(run.joined(), [Base, Repair]);
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
