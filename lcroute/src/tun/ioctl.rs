//! The ioctls of the TUN driver: the only `unsafe` of the interface.

use std::fs::File;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use nix::errno::Errno;
use nix::libc;

use super::Mode;
use super::offload::OFFLOAD_LEN;

mod raw {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(get_interface, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr_bad!(set_header_size, libc::TUNSETVNETHDRSZ, libc::c_int);
}

/// An interface, as reported by the driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) name: String,
    /// `None` if its frame format differs from that of [`attach`].
    pub(super) mode: Option<Mode>,
}

/// Makes the interface, or adopts a persistent one that no process has open. Packets always have
/// packet information (no `IFF_NO_PI`) and an offload header (`IFF_VNET_HDR`), even without
/// offloads.
pub(super) fn attach(file: &File, name: &str, mode: Mode) -> nix::Result<()> {
    let mut request = empty_request();
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let kind = match mode {
        Mode::Tun => libc::IFF_TUN,
        Mode::Tap => libc::IFF_TAP,
    };
    request.ifr_ifru.ifru_flags = flag(kind | libc::IFF_VNET_HDR);
    // SAFETY: the descriptor is open for the call's duration and TUNSETIFF reads and writes one
    // `ifreq`, which `request` is, fully initialised, with its name ended by a zero.
    unsafe { raw::set_interface(file.as_raw_fd(), &request) }.map(drop)
}

/// Adopts the descriptor of the previous program image. `None` if it is not an open TUN device.
pub(super) fn inherit(fd: RawFd) -> Option<File> {
    let mut request = empty_request();
    // SAFETY: TUNGETIFF writes one `ifreq`; on a closed or other descriptor it only fails.
    unsafe { raw::get_interface(fd, &mut request) }.ok()?;
    // SAFETY: the descriptor is an open TUN device, and this process has opened none yet: only the
    // previous image owned it.
    Some(unsafe { File::from_raw_fd(fd) })
}

/// Returns the interface of an open descriptor.
pub(super) fn attached(file: &File) -> nix::Result<Attached> {
    let mut request = empty_request();
    // SAFETY: the descriptor is open for the call's duration and TUNGETIFF writes one `ifreq`.
    unsafe { raw::get_interface(file.as_raw_fd(), &mut request) }?;
    // SAFETY: TUNGETIFF fills the flags member of the union; any bits are a valid `c_short`.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let has = |bits: libc::c_int| flags & flag(bits) != 0;
    let mode = match (has(libc::IFF_TUN), has(libc::IFF_TAP)) {
        // IFF_NO_PI is not detectable: its bit has another meaning in the answer.
        _ if !has(libc::IFF_VNET_HDR) => None,
        (true, false) => Some(Mode::Tun),
        (false, true) => Some(Mode::Tap),
        _ => None,
    };
    let name = request.ifr_name.iter().map(|&byte| byte.to_ne_bytes()[0]);
    let name = name.take_while(|&byte| byte != 0).collect::<Vec<u8>>();
    Ok(Attached {
        name: String::from_utf8_lossy(&name).into_owned(),
        mode,
    })
}

/// Sets whether the interface outlives the descriptor.
pub(super) fn persist(file: &File, persist: bool) -> nix::Result<()> {
    // SAFETY: the descriptor is open for the call's duration; the argument is a plain integer.
    unsafe { raw::set_persist(file.as_raw_fd(), libc::c_int::from(persist)) }.map(drop)
}

/// Work that the kernel and this program leave to each other. The kernel takes super-packets of
/// TCP without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offloads {
    /// Packets are as on the wire.
    None,
    /// Checksums of packets that are read may be partial, and segments of TCP come in
    /// super-packets.
    Checksums,
    /// UDP datagrams also cross in super-packets, in both directions.
    Datagrams,
}

/// Sets the offloads. The interface keeps them beyond the descriptor, so each opening must set
/// them. `EINVAL`: this kernel lacks them.
pub(super) fn set_offloads(file: &File, offloads: Offloads) -> nix::Result<()> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let bits = match offloads {
        Offloads::None => 0,
        Offloads::Checksums => tcp,
        // the driver takes both or none
        Offloads::Datagrams => tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6,
    };
    let size = libc::c_int::try_from(OFFLOAD_LEN).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open for the call's duration and TUNSETVNETHDRSZ reads one `c_int`.
    unsafe { raw::set_header_size(file.as_raw_fd(), &raw const size) }?;
    // SAFETY: the descriptor is open for the call's duration; the argument is a plain integer.
    unsafe { raw::set_offload(file.as_raw_fd(), bits.cast_signed()) }.map(drop)
}

fn empty_request() -> libc::ifreq {
    // SAFETY: `ifreq` is plain old data of C, for which all zeroes is a valid value.
    unsafe { mem::zeroed() }
}

/// Converts flags to the 16 bits of `ifreq`; the highest is its sign.
fn flag(bits: libc::c_int) -> libc::c_short {
    let [low, high, ..] = bits.to_le_bytes();
    libc::c_short::from_le_bytes([low, high])
}
