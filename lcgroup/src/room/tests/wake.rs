//! Calls to absent members by a holder.

use super::*;
use crate::held::Held;

/// A holder, which receives packets of a minute at its end.
struct Holder {
    held: Held,
    folder: PathBuf,
}

impl Holder {
    fn new(lan: &mut Lan) -> Self {
        let folder = lan.folder.path().join("held");
        let key = HoldingKey::decode(&lan.room(0).holding_key(None)).unwrap();
        let held = Held::create(&folder, "held", &key, lan.now).unwrap();
        Self { held, folder }
    }

    /// Runs all for these minutes; returns the minutes of calls to this line.
    fn run(&mut self, lan: &mut Lan, minutes: u64, expected: &str) -> Vec<u64> {
        let mut calls = Vec::new();
        for minute in 1..=minutes {
            let packets = lan.run(Duration::from_secs(60));
            let (time, now) = (lan.time(), lan.now);
            for packet in packets {
                self.held
                    .handle_packet([10, 0, 0, 9].into(), &packet, time, now);
            }
            self.held.turn(time, now).unwrap();
            for (_, packet) in self.held.take_transmits() {
                lan.hear(9, &packet);
            }
            while let Some(line) = self.held.call(time).unwrap() {
                assert_eq!(line, expected);
                calls.push(minute);
            }
        }
        calls
    }

    fn restart(&mut self, lan: &Lan) {
        self.held = Held::open(&self.folder, "held", lan.now).unwrap();
    }
}

fn leave(lan: &mut Lan, who: usize, line: &str) {
    let line = Zeroizing::new(line.to_owned());
    lan.room(who).leave_line(line).unwrap();
}

#[test]
fn a_holder_calls_a_member_that_is_absent_until_it_comes_and_none_that_is_present() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    let mut holder = Holder::new(&mut lan);
    for bad in ["a\nb", &"x".repeat(64 * 1_024)] {
        let line = Zeroizing::new(bad.to_owned());
        assert!(lan.room(1).leave_line(line).is_err());
    }
    leave(&mut lan, 1, "bob's");
    // bob reads, and says nothing
    for _ in 0..9 {
        lan.say(0, "you there?");
        assert!(holder.run(&mut lan, 10, "").is_empty());
    }
    lan.stop(1);
    holder.run(&mut lan, 5, "");
    lan.say(2, "where is bob?");
    let calls = holder.run(&mut lan, 45, "bob's");
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!((10..=12).contains(&calls[0]), "{calls:?}");
    // a restart of the holder forgets nothing
    holder.restart(&lan);
    lan.say(0, "bob!");
    assert_eq!(holder.run(&mut lan, 90, "bob's").len(), 1);
    lan.start(1);
    assert!(holder.run(&mut lan, 30, "").is_empty());
    lan.say(0, "welcome");
    assert!(holder.run(&mut lan, 30, "").is_empty());
    // a line that was taken back, and one of a former member
    lan.say(0, "until tomorrow");
    leave(&mut lan, 1, "");
    leave(&mut lan, 2, "cy's");
    holder.run(&mut lan, 3, "");
    lan.stop(1);
    lan.stop(2);
    lan.remove("cy", 0);
    lan.say(0, "nobody is here");
    assert!(holder.run(&mut lan, 90, "").is_empty());
}

#[test]
fn a_line_outlasts_the_time_for_which_messages_are_kept() {
    let terms = Terms {
        keep: 86_400,
        history: 0,
    };
    let mut lan = Lan::new(&["ann", "bob"], Some(terms));
    leave(&mut lan, 1, "bob's");
    lan.run(2 * DAY);
    lan.restart(1);
    lan.run(Duration::from_secs(600));
    let mut holder = Holder::new(&mut lan);
    holder.run(&mut lan, 10, "");
    lan.stop(1);
    lan.say(0, "where is bob?");
    assert_eq!(holder.run(&mut lan, 30, "bob's").len(), 1);
}
