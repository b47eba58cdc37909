//! Notifications of new messages on this user's desktop (Desktop Notifications Specification 1.2).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use librecast::plain::clean;

use crate::bus::{Bus, Method, Out};

/// Pause after notifications. Chosen: members that write all the time change one of a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Characters of a name and of a text that are shown. Chosen: desktops show some lines.
const MAX_NAME: usize = 64;
const MAX_TEXT: usize = 240;

const NOTIFY: Method = Method {
    destination: "org.freedesktop.Notifications",
    path: "/org/freedesktop/Notifications",
    interface: "org.freedesktop.Notifications",
    member: "Notify",
};

/// New messages of a group: the last one, and how many others came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub who: String,
    pub text: String,
    pub others: u64,
}

/// Notifications that wait, by group: one of each, whatever members send.
#[derive(Debug, Default)]
struct Waiting {
    all: Mutex<BTreeMap<String, Notification>>,
    come: Condvar,
}

/// A thread that shows them.
#[derive(Debug)]
pub struct Desktop(Arc<Waiting>);

impl Desktop {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start() -> io::Result<Self> {
        let waiting = Arc::new(Waiting::default());
        let shown = Arc::clone(&waiting);
        thread::Builder::new()
            .name("desktop".into())
            .spawn(move || {
                let mut screen = Screen::new(Bus::of_session);
                let mut works = true;
                loop {
                    for (group, notification) in shown.take() {
                        let told = screen.show(&group, &notification);
                        if let Err(e) = &told
                            && works
                        {
                            tracing::warn!(
                                "no notification on the desktop: {e}: does a desktop of this user run?"
                            );
                        }
                        works = told.is_ok();
                    }
                    thread::sleep(PAUSE);
                }
            })?;
        Ok(Self(waiting))
    }

    /// Shows a notification of a group, in place of earlier ones.
    pub fn show(&self, group: &str, notification: Notification) {
        let mut all = self.0.all.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(group).map_or(0, |before| before.others + 1);
        let others = notification.others + before;
        all.insert(
            group.to_owned(),
            Notification {
                others,
                ..notification
            },
        );
        self.0.come.notify_one();
    }
}

impl Waiting {
    /// Waits for notifications, and takes them.
    fn take(&self) -> BTreeMap<String, Notification> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        while all.is_empty() {
            all = self.come.wait(all).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut *all)
    }
}

/// The desktop's notifications, of which each group has one.
struct Screen<C> {
    connect: C,
    bus: Option<Bus>,
    shown: BTreeMap<String, u32>,
}

impl<C: Fn() -> io::Result<Bus>> Screen<C> {
    fn new(connect: C) -> Self {
        Self {
            connect,
            bus: None,
            shown: BTreeMap::new(),
        }
    }

    /// Shows one in place of earlier ones of the group.
    fn show(&mut self, group: &str, notification: &Notification) -> io::Result<()> {
        let before = self.shown.get(group).copied().unwrap_or(0);
        let known = self.bus.take();
        let told = match known.map(|bus| notify(bus, before, group, notification)) {
            Some(Ok(told)) => Ok(told),
            // the desktop may have been started anew
            _ => (self.connect)().and_then(|bus| notify(bus, before, group, notification)),
        };
        let (bus, id) = told?;
        self.bus = Some(bus);
        self.shown.insert(group.to_owned(), id);
        Ok(())
    }
}

/// Shows a notification in place of `before`; returns its number.
fn notify(
    mut bus: Bus,
    before: u32,
    group: &str,
    notification: &Notification,
) -> io::Result<(Bus, u32)> {
    let title = format!("{} in {group}", short(&notification.who, MAX_NAME));
    let mut text = escaped(&short(&notification.text, MAX_TEXT));
    match notification.others {
        0 => {}
        1 => text.push_str("\n(and another one before)"),
        n => text.push_str(&format!("\n(and {n} others before)")),
    }
    let mut arguments = Out::of("susssasa{sv}i");
    arguments
        .string("lcgroup")
        .number(before)
        .string("")
        .string(&title)
        .string(&text)
        // no buttons
        .number(0)
        .dictionary("category", "im.received")
        // until the desktop's own time
        .number(u32::MAX);
    let answer = bus.call(&NOTIFY, &arguments)?;
    let id = answer.number(0);
    Ok((
        bus,
        id.ok_or_else(|| io::Error::other("an answer without number"))?,
    ))
}

/// The beginning of a text, without characters that deceive, on one line.
fn short(text: &str, most: usize) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .take(most + 1)
        .collect();
    let line = clean(&line);
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A text without markup: desktops may read some of HTML.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::tests::Daemon;

    fn notification(text: &str, others: u64) -> Notification {
        Notification {
            who: "Ann".into(),
            text: text.into(),
            others,
        }
    }

    #[test]
    fn messages_of_a_group_are_one_notification_which_the_next_replaces() {
        let daemon = Daemon::start();
        let mut server = daemon.connect();
        server.own(NOTIFY.destination);
        // numbers are those of the calls
        let serving = thread::spawn(move || (1..=2).map(|n| server.answer(n)).collect::<Vec<_>>());
        let mut screen = Screen::new(|| Ok(daemon.connect()));
        let hostile = "<a href=\"x\">&\u{202e}\n\u{1b}[2J";
        screen.show("team", &notification(hostile, 0)).unwrap();
        screen.show("team", &notification("word", 3)).unwrap();
        let bodies = serving.join().unwrap();
        let [first, second] = &bodies[..] else {
            panic!("{bodies:?}");
        };
        let has = |body: &[u8], text: &str| {
            let all = String::from_utf8_lossy(body);
            assert!(all.contains(text), "{text}: {all:?}");
        };
        has(first, "Ann in team");
        has(first, "&lt;a href=\"x\"&gt;&amp;\u{fffd} \u{fffd}[2J");
        has(second, "word\n(and 3 others before)");
        let replaced = |body: &[u8]| u32::from_le_bytes(*body[12..].first_chunk().unwrap());
        assert_eq!([replaced(first), replaced(second)], [0, 1]);
    }

    #[test]
    fn a_desktop_that_is_missing_is_an_error_and_one_that_comes_back_shows_again() {
        let daemon = Daemon::start();
        let mut screen = Screen::new(|| Ok(daemon.connect()));
        let refused = screen.show("team", &notification("word", 0)).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("org.freedesktop.Notifications")
        );
        let mut server = daemon.connect();
        server.own(NOTIFY.destination);
        let serving = thread::spawn(move || server.answer(1));
        screen.show("team", &notification("word", 0)).unwrap();
        serving.join().unwrap();
        assert_eq!(screen.shown["team"], 1);
    }

    #[test]
    fn names_and_texts_are_short() {
        assert_eq!(short("a\r\nb\tc", 9), "a  b c");
        assert_eq!(
            short(&"é".repeat(300), MAX_TEXT).chars().count(),
            MAX_TEXT + 1
        );
        assert_eq!(short(&"x".repeat(MAX_NAME), MAX_NAME), "x".repeat(MAX_NAME));
    }

    #[test]
    fn a_flood_waits_as_one() {
        let waiting = Arc::new(Waiting::default());
        let desktop = Desktop(Arc::clone(&waiting));
        for n in 0..1_000 {
            desktop.show("team", notification(&n.to_string(), 1));
        }
        let all = waiting.take();
        assert_eq!(
            all,
            BTreeMap::from([("team".to_owned(), notification("999", 1_999))])
        );
    }
}
