//! Notifications to the service manager (systemd, by sd_notify): readiness, status, life.
//!
//! Without a manager they cost no system call.

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Notifications per watchdog interval: a long turn of the loop must not count as death.
const WATCHDOG_DIVISOR: u32 = 3;

/// A daemon in the view of its manager.
#[derive(Debug, Default)]
pub struct Service {
    every: Option<Duration>,
    next: Option<Instant>,
    status: String,
}

impl Service {
    /// Reads the manager's settings from the environment.
    #[must_use]
    pub fn of_environment() -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|d| d / WATCHDOG_DIVISOR),
            ..Self::default()
        }
    }

    /// Notifies that the loop lives; call it in each turn.
    pub fn alive(&mut self, now: Instant) {
        let Some(every) = self.every else { return };
        if self.next.is_none_or(|at| at <= now) {
            self.next = Some(now + every);
            say(NotifyState::Watchdog);
        }
    }

    /// Returns when [`alive`](Self::alive) must be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Sends one line for people, if it has changed.
    pub fn status(&mut self, text: String) {
        if text != self.status {
            say(NotifyState::Status(&text));
            self.status = text;
        }
    }
}

/// Returns the path of the credential `name` (`LoadCredential=`, `LoadCredentialEncrypted=`), or of
/// `name.plain`: one name for both would make systemd take plain text for a broken encrypted file.
#[must_use]
pub fn credential(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    let mut files = [folder.join(name), folder.join(format!("{name}.plain"))].into_iter();
    files.find(|file| file.exists())
}

/// Takes the socket on which the manager listens for this service (sd_listen_fds(3)), if any.
#[must_use]
pub fn listening_socket() -> Option<OwnedFd> {
    let fd = sd_notify::listen_fds().ok()?.next()?;
    // SAFETY: the manager opened it for this process alone, and it is taken once
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Notifies that the daemon serves programs; also after [`reloading`].
pub fn ready() {
    say(NotifyState::Ready);
}

/// Notifies that the configuration is read again; [`ready`] follows.
pub fn reloading() {
    // together: newer managers require the time in the same message
    let states = [
        Ok(NotifyState::Reloading),
        NotifyState::monotonic_usec_now(),
    ];
    let states: Vec<_> = states.into_iter().flatten().collect();
    // a listener is optional
    let _ = sd_notify::notify(&states);
}

/// Notifies that the start waits for something, for this time at least.
pub fn wait(why: &str, longer: Duration) {
    let micros = u32::try_from(longer.as_micros()).unwrap_or(u32::MAX);
    say(NotifyState::Status(why));
    say(NotifyState::ExtendTimeoutUsec(micros));
}

/// Notifies that the end has begun.
pub fn stopping() {
    say(NotifyState::Stopping);
}

fn say(state: NotifyState<'_>) {
    // a listener is optional
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
            let before = service.next_timeout();
            service.alive(now);
            told += u32::from(service.next_timeout() != before);
        }
        assert_eq!(told, 10);
    }

    #[test]
    fn without_a_manager_there_is_no_timer() {
        let mut service = Service::default();
        service.alive(Instant::now());
        assert_eq!(service.next_timeout(), None);
    }
}
