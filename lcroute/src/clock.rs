//! The host's clock, on which a membership depends: a host without a battery boots in 1970, and NTP
//! sets its clock a minute later.

use std::io;
use std::time::Duration;

use lcroute_control::system::{SystemRequest, SystemSignals};
use librecast::cert::CertError;
use librecast::time::UnixTime;
use librecast_program::service;
use nix::libc;

use crate::inbox::End;
use crate::state::{Identity, StateDir};

/// Time between looks at the clock while a membership waits for it. Chosen: a look is cheap.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Extension of the start's timeout with each look. Chosen: more than a busy host needs.
const MORE_TIME: Duration = Duration::from_secs(20);

/// Result of waiting for the clock.
#[derive(Debug)]
pub enum Waited {
    /// The membership is valid now.
    Good(Box<Identity>),
    /// A signal ends the process, or executes it anew.
    End(End),
}

/// Whether a time service keeps the kernel's clock (adjtimex).
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

/// Whether a membership may become valid by itself: it begins later, or it has expired by an
/// unsynchronised clock.
pub fn may_pass(error: &CertError) -> bool {
    match error {
        CertError::NotYetValid(_) => true,
        // without permission to ask the kernel: unsynchronised
        CertError::Expired(_) => !is_synchronised().unwrap_or(false),
        _ => false,
    }
}

/// Waits until the membership is valid: after a clock change, or with another membership.
///
/// # Errors
/// The membership cannot become valid by itself.
pub async fn wait(state: &StateDir, signals: &mut SystemSignals) -> anyhow::Result<Waited> {
    let mut told = None;
    loop {
        let error = match state.identity_now(UnixTime::now())? {
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
                librecast::time::utc(UnixTime::now().as_secs())
            );
            told = Some(text);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            request = signals.next() => match request {
                SystemRequest::Stop => return Ok(Waited::End(End::Stop)),
                SystemRequest::Exec => return Ok(Waited::End(End::Exec)),
                // the start reads everything anyway
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
