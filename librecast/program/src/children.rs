//! The ends of this process's children.

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// Lets this process learn how its children end. A supervisor that ignores or blocks SIGCHLD hands
/// that down, and the kernel then forgets each child at its end. Precedes other threads.
pub fn expect_children() {
    // SAFETY: no handler is installed, and no handler of this process is replaced
    let reset = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    let unblocked = SigSet::from(Signal::SIGCHLD).thread_unblock();
    debug_assert!(
        reset.is_ok() && unblocked.is_ok(),
        "a catchable signal: {reset:?} {unblocked:?}"
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// Marks the second run of the test, in a process of its own.
    const AGAIN: &str = "LIBRECAST_TEST_SIGCHLD";

    #[test]
    fn a_program_learns_how_its_children_end_although_its_supervisor_ignores_that() {
        if std::env::var_os(AGAIN).is_some() {
            expect_children();
            let ended = Command::new("/bin/sh").args(["-c", "exit 7"]).status();
            assert_eq!(ended.unwrap().code(), Some(7));
            return;
        }
        let this = std::env::current_exe().unwrap();
        let name = "children::tests::a_program_learns_how_its_children_end_although_its_supervisor_ignores_that";
        let mut again = Command::new(this);
        again.args([name, "--exact"]).env(AGAIN, "1");
        // SAFETY: between fork and exec; makes system calls only
        unsafe {
            again.pre_exec(|| {
                signal(Signal::SIGCHLD, SigHandler::SigIgn)?;
                SigSet::from(Signal::SIGCHLD).thread_block()?;
                Ok(())
            });
        }
        let ended = again.output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let told = String::from_utf8_lossy(&ended.stdout);
        assert!(told.contains("1 passed"), "{told}");
    }
}
