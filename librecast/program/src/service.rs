//! What the service manager (systemd, by sd_notify) hears of a daemon: that it is ready, what it does, and that it is alive.
//!
//! Without a manager nobody hears it, and nothing of it costs a system call.

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Notifications per watchdog interval of the manager: a long turn of the loop is no death.
const WATCHDOG_DIVISOR: u32 = 3;

/// A daemon, as its manager sees it.
#[derive(Debug, Default)]
pub struct Service {
    every: Option<Duration>,
    next: Option<Instant>,
    status: String,
}

impl Service {
    /// What the environment says of the manager.
    #[must_use]
    pub fn of_environment() -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|d| d / WATCHDOG_DIVISOR),
            ..Self::default()
        }
    }

    /// Called in each turn of the loop that must not stand still.
    pub fn alive(&mut self, now: Instant) {
        let Some(every) = self.every else { return };
        if self.next.is_none_or(|at| at <= now) {
            self.next = Some(now + every);
            say(NotifyState::Watchdog);
        }
    }

    /// When [`alive`](Self::alive) is to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// One line for people, told when it has changed.
    pub fn status(&mut self, text: String) {
        if text != self.status {
            say(NotifyState::Status(&text));
            self.status = text;
        }
    }
}

/// Where the manager has put the credential `name` (`LoadCredential=`, `LoadCredentialEncrypted=`), or `name.plain`, if it
/// has. Units load both: under one name systemd would take a file in the clear for a broken encrypted one.
#[must_use]
pub fn credential(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    let mut files = [folder.join(name), folder.join(format!("{name}.plain"))].into_iter();
    files.find(|file| file.exists())
}

/// The socket at which the service manager let programs wait for this one (sd_listen_fds(3)), if it did; asked once.
#[must_use]
pub fn listening_socket() -> Option<OwnedFd> {
    let fd = sd_notify::listen_fds().ok()?.next()?;
    // SAFETY: the manager opened it for this process alone, and it is taken once
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Programs can use what the daemon gives them; also after [`reloading`].
pub fn ready() {
    say(NotifyState::Ready);
}

/// The configuration is read again; [`ready`] follows.
pub fn reloading() {
    // together: a manager that wants the time takes no message without it
    let states = [
        Ok(NotifyState::Reloading),
        NotifyState::monotonic_usec_now(),
    ];
    let states: Vec<_> = states.into_iter().flatten().collect();
    // nobody has to listen
    let _ = sd_notify::notify(&states);
}

/// The start waits for something; it goes on for this long at least.
pub fn wait(why: &str, longer: Duration) {
    let micros = u32::try_from(longer.as_micros()).unwrap_or(u32::MAX);
    say(NotifyState::Status(why));
    say(NotifyState::ExtendTimeoutUsec(micros));
}

/// The end has begun.
pub fn stopping() {
    say(NotifyState::Stopping);
}

fn say(state: NotifyState<'_>) {
    // nobody has to listen
    let _ = sd_notify::notify(&[state]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_told_more_often_than_wanted_and_not_in_each_turn() {
        let mut service = Service {
            every: Some(Duration::from_secs(1)),
            ..Service::default()
        };
        let start = Instant::now();
        let mut told = 0;
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            let before = service.poll_timeout();
            service.alive(now);
            told += u32::from(service.poll_timeout() != before);
        }
        assert_eq!(told, 10);
    }

    #[test]
    fn without_a_manager_there_is_no_timer() {
        let mut service = Service::default();
        service.alive(Instant::now());
        assert_eq!(service.poll_timeout(), None);
    }
}
