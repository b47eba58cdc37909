//! The one question that no crate asks of the kernel for us: adjtimex(2).

use std::io;

use nix::libc;

/// Whether somebody keeps the kernel's clock in time.
pub(super) fn is_synchronised() -> io::Result<bool> {
    // SAFETY: timex is plain integers, for which zero is valid; `modes` 0 only reads
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex of ours that outlives the call
    let state = unsafe { libc::adjtimex(&mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_answers() {
        super::is_synchronised().unwrap();
    }
}
