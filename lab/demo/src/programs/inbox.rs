//! Receiving in batches: one system call for up to 64 datagrams or `UDP_GRO` trains.

use std::io;
use std::mem;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::ptr;

use nix::libc;
use socket2::Socket;

/// Number of datagrams per system call, and the buffer of each in bytes.
const BATCH: usize = 64;
const UNIT: usize = 65_536;
/// Room for two control messages of one integer each.
const CONTROL: usize = 64;

/// A datagram, with the kernel's information about it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The content.
    pub bytes: &'a [u8],
    /// Its source.
    pub from: Ipv6Addr,
    /// Its hop limit, if the socket requests it.
    pub hops: Option<i32>,
}

/// Buffers for a batch.
pub struct Inbox {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    headers: Vec<libc::mmsghdr>,
}

#[repr(C, align(8))]
struct Slot {
    control: [u8; CONTROL],
    from: libc::sockaddr_in6,
    part: libc::iovec,
}

impl Inbox {
    pub fn new() -> Inbox {
        // SAFETY: plain old data of C, for which all zeroes is a valid value.
        let slot = || unsafe { mem::zeroed::<Slot>() };
        // SAFETY: as above.
        let header = || unsafe { mem::zeroed::<libc::mmsghdr>() };
        Inbox {
            bytes: vec![0; BATCH * UNIT],
            slots: (0..BATCH).map(|_| slot()).collect(),
            headers: (0..BATCH).map(|_| header()).collect(),
        }
    }

    /// Waits for datagrams, up to the socket's timeout, and passes each to `each`, also within
    /// trains.
    pub fn receive(&mut self, socket: &Socket, mut each: impl FnMut(Received)) -> io::Result<()> {
        let units = self.bytes.chunks_exact_mut(UNIT);
        for ((header, slot), unit) in self.headers.iter_mut().zip(&mut self.slots).zip(units) {
            slot.part.iov_base = unit.as_mut_ptr().cast();
            slot.part.iov_len = unit.len();
            let message = &mut header.msg_hdr;
            message.msg_name = (&raw mut slot.from).cast();
            message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            message.msg_iov = &raw mut slot.part;
            message.msg_iovlen = 1;
            message.msg_control = slot.control.as_mut_ptr().cast();
            message.msg_controllen = CONTROL as _;
        }
        // SAFETY: every header was just made to point at a name, a part and a control buffer of
        // this inbox with their true lengths; all of them outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let units = self.bytes.chunks_exact(UNIT);
        for ((header, slot), unit) in self.headers[..count].iter().zip(&self.slots).zip(units) {
            let (hops, train) = control(&header.msg_hdr);
            let from = Ipv6Addr::from(slot.from.sin6_addr.s6_addr);
            let bytes = &unit[..(header.msg_len as usize).min(UNIT)];
            let size = train.unwrap_or(bytes.len()).max(1);
            if bytes.is_empty() {
                each(Received { bytes, from, hops });
            }
            for bytes in bytes.chunks(size) {
                each(Received { bytes, from, hops });
            }
        }
        Ok(())
    }
}

/// Returns the hop limit, and the size of the datagrams in a train.
fn control(message: &libc::msghdr) -> (Option<i32>, Option<usize>) {
    let (mut hops, mut train) = (None, None);
    // SAFETY: the kernel has filled `message`; its buffer and length are still those that it was
    // given: the macros walk within them, and both kinds of message hold one integer.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(part) = at.as_ref() {
            let value = || libc::CMSG_DATA(at).cast::<libc::c_int>().read_unaligned();
            match (part.cmsg_level, part.cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => hops = Some(value()),
                (libc::SOL_UDP, libc::UDP_GRO) => train = usize::try_from(value()).ok(),
                _ => {}
            }
            at = libc::CMSG_NXTHDR(message, at);
        }
    }
    (hops, train)
}
