//! A TUN with the virtio header, so that whole trains go through it in one system call.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// Bytes of `struct virtio_net_hdr` before each packet.
pub const VIRTIO: usize = 10;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: the packet is a train of UDP datagrams of `gso_size`.
const UDP_TRAIN: u8 = 5;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the kernel completes the checksum.
const NEEDS_CHECKSUM: u8 = 1;

mod raw {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
}

/// Makes the interface, which ends with the file.
pub fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain old data of C, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    unsafe { raw::set_interface(file.as_raw_fd(), &raw const request) }?;
    // Kernels before 6.2 do not support trains of UDP.
    let trains = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    [libc::TUN_F_CSUM | trains, libc::TUN_F_CSUM]
        .into_iter()
        // SAFETY: the argument is a plain integer.
        .find(|&offload| unsafe { raw::set_offload(file.as_raw_fd(), offload as _) }.is_ok());
    Ok(file)
}

/// Returns the size of the datagrams, if the packet behind this header is a train of them.
pub fn train(header: &[u8]) -> Option<usize> {
    (*header.get(1)? == UDP_TRAIN).then_some(())?;
    let size = u16::from_ne_bytes(header.get(4..6)?.try_into().ok()?);
    (size > 0).then_some(usize::from(size))
}

/// Returns the header of a UDP packet with the checksum of its pseudo header only; with `train`, of
/// a train of datagrams of this size.
pub fn header(train: Option<u16>) -> [u8; VIRTIO] {
    let mut header = [0; VIRTIO];
    header[0] = NEEDS_CHECKSUM;
    if let Some(size) = train {
        header[1] = UDP_TRAIN;
        header[2..4].copy_from_slice(&48_u16.to_ne_bytes());
        header[4..6].copy_from_slice(&size.to_ne_bytes());
    }
    header[6..8].copy_from_slice(&40_u16.to_ne_bytes());
    header[8..10].copy_from_slice(&6_u16.to_ne_bytes());
    header
}
