//! The host's clock, as far as a membership depends on it: a host without a battery boots in 1970, and NTP sets its clock
//! a minute later.

use std::io;
use std::time::Duration;

use librecast::cert::CertError;
use librecast_program::service;
use nix::libc;

use crate::inbox::End;
use crate::state::{Identity, StateDir, unix_now};
use crate::system::{SystemRequest, SystemSignals};

/// How often the clock is looked at while a membership waits for it. Chosen: one look costs nothing, and nobody waits for
/// a second more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The manager is told with each look that the start takes longer. Chosen: more than a busy host needs for one.
const MORE_TIME: Duration = Duration::from_secs(20);

/// How waiting for the clock ends.
#[derive(Debug)]
pub enum Waited {
    /// The membership is good now.
    Good(Box<Identity>),
    /// The process was told to end, or to begin anew.
    End(End),
}

/// Whether somebody keeps the kernel's clock in time (adjtimex).
pub fn is_synchronised() -> io::Result<bool> {
    // SAFETY: timex is plain integers, for which zero is valid; `modes` 0 only reads
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex of ours that outlives the call
    let state = unsafe { libc::adjtimex(&mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}

/// Whether it may pass by itself that a membership is not good now: it begins later, or it is over by a clock that nobody
/// is known to keep in time.
pub fn may_pass(error: &CertError) -> bool {
    match error {
        CertError::NotYetValid(_) => true,
        // who may not ask the kernel does not know
        CertError::Expired(_) => !is_synchronised().unwrap_or(false),
        _ => false,
    }
}

/// Waits until the membership is good: the clock is set, or there is another membership.
///
/// # Errors
/// It will not be good by itself.
pub async fn wait(state: &StateDir, signals: &mut SystemSignals) -> anyhow::Result<Waited> {
    let mut told = None;
    loop {
        let error = match state.identity_now(unix_now())? {
            Ok(identity) => {
                if told.is_some() {
                    tracing::info!("the clock is right now: starting");
                }
                return Ok(Waited::Good(Box::new(identity)));
            }
            Err(error) if may_pass(&error) => error,
            Err(error) => return Err(state.refuse(&error).into()),
        };
        let text = error.to_string();
        service::wait(
            &format!("waits for the clock: {text}"),
            LOOK_EVERY + MORE_TIME,
        );
        if told.as_ref() != Some(&text) {
            tracing::warn!(
                "own membership: {text}; the host's clock says {}: waiting until it is set (timedatectl set-ntp true); if it is right, `lcroute join TOKEN` with a new token",
                librecast::time::utc(unix_now())
            );
            told = Some(text);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            request = signals.next() => match request {
                SystemRequest::End(end) => return Ok(Waited::End(end)),
                // all is read when it starts
                SystemRequest::Reload => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use librecast::cert::Kind;

    use super::*;

    #[test]
    fn the_kernel_answers() {
        is_synchronised().unwrap();
    }

    #[test]
    fn a_clock_that_is_behind_passes_and_forgery_does_not() {
        assert!(may_pass(&CertError::NotYetValid(Kind::Node)));
        assert!(!may_pass(&CertError::Forged(Kind::Node)));
        assert!(!may_pass(&CertError::OtherNetwork));
        let unknown = !is_synchronised().unwrap();
        assert_eq!(may_pass(&CertError::Expired(Kind::Node)), unknown);
    }
}
