//! Options of sockets that Linux alone has, and its counters of lost packets.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

/// Sets a receive buffer of `bytes`: beyond the system's limit if permitted, else up to it.
pub fn enlarge_receive_buffer(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

/// Returns the losses above `last`, and sets `last` to `total`.
pub fn lost_since(last: &mut u32, total: u32) -> u32 {
    let lost = total.wrapping_sub(*last);
    // a message that waited in the queue has an older count
    if lost > u32::MAX / 2 {
        return 0;
    }
    *last = total;
    lost
}

/// Returns the packets that found the socket's queue full (Linux: SO_MEMINFO, SK_MEMINFO_DROPS).
pub fn drops_of(socket: &Socket) -> io::Result<u32> {
    /// Fields that the kernel returns (`SK_MEMINFO_VARS`, linux/sock_diag.h).
    const FIELDS: usize = 9;
    /// The index of dropped packets among them (`SK_MEMINFO_DROPS`).
    const DROPS: usize = 8;
    let mut fields = [0_u32; FIELDS];
    let mut length = size_of_val(&fields) as libc::socklen_t;
    // SAFETY: the pointer is to `fields`, `length` is its size, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(fields[DROPS])
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets an option that the crates do not support.
pub fn set_option<T: Copy>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: pointer and length are those of `value`, which outlives the call; only read
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said_once_and_an_older_count_says_none() {
        let mut last = u32::MAX - 1;
        let said: Vec<u32> = [u32::MAX, 3, 2, 3, 4]
            .into_iter()
            .map(|total| lost_since(&mut last, total))
            .collect();
        assert_eq!(said, [1, 4, 0, 0, 1]);
    }
}
