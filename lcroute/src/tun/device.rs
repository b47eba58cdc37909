//! The device: creation, adoption, repair, removal, and its packets.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

use super::coalesce::{self, MAX_PACKETS, Runs};
use super::configure::{self, Extra, Link};
use super::frame::{self, Header, Mac, Skip, TAP_LEN};
use super::ioctl::Offloads;
use super::ipv4::Repaired;
use super::offload::OFFLOAD_LEN;
use super::packets::Packets;
use super::{Error, Mode, Settings, closed, ioctl, ipv4, labels};
use crate::drops::{DropReason, Drops};
use crate::netlink::Connection;

const CLONE_DEVICE: &str = "/dev/net/tun";

/// Bytes of a read buffer: the largest IPv6 packet and its headers.
const LONGEST: usize = 40 + 65_535 + TAP_LEN;

/// The open device. Dropping it leaves the interface as a crash does; see [`Device::close`].
#[derive(Debug)]
pub struct Device {
    port: Port,
    netlink: Connection,
    index: u32,
    /// The last read.
    buffer: Vec<u8>,
    packets: Packets,
    runs: Runs<()>,
    drops: Drops,
    ipv4_overlaps: bool,
}

/// The descriptor with its modes.
#[derive(Debug)]
struct Port {
    file: File,
    mode: Mode,
    mac: Mac,
    /// Whether the kernel accepts super-packets.
    super_packets: bool,
    /// Whether it reads IPv4.
    ipv4: bool,
}

impl Device {
    /// Makes the interface, or adopts that of a crashed daemon, and applies `settings`. An adopted
    /// interface keeps the groups that programs have joined on it.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        let mut netlink = connect()?;
        let mut file = match attach(&settings.name, settings.mode) {
            Err(Attach::Mismatch) => replace(&mut netlink, settings)?,
            other => other.map_err(|error| error.explain(settings))?,
        };
        let mut link = configure::find(&mut netlink, &settings.name)?.ok_or(Error::Vanished)?;
        if link.ethernet != (settings.mode == Mode::Tap) {
            // from a version that gave a TUN the type of Ethernet
            ioctl::persist(&file, false).map_err(|e| kernel("remove the old interface", e))?;
            drop(file);
            let made = attach(&settings.name, settings.mode);
            file = made.map_err(|error| error.explain(settings))?;
            link = configure::find(&mut netlink, &settings.name)?.ok_or(Error::Vanished)?;
        }
        let repaired = repair(&mut netlink, link.index, settings, Extra::Remove)?;
        let device = Self::new(file, netlink, &link, (settings, repaired.overlaps))?;
        // Last: a failure before this leaves nothing behind.
        ioctl::persist(&device.port.file, true)
            .map_err(|e| kernel("make the interface persistent", e))?;
        Ok(device)
    }

    /// Adopts the descriptor that [`Device::keep`] gave to the previous program image; `None` if it
    /// is no TUN device. The caller must not have opened a device before.
    ///
    /// A device other than that of `settings` stays as a crash would leave it.
    pub fn inherit(fd: RawFd, settings: &Settings) -> Option<Result<Self, Error>> {
        Some(Self::adopt(ioctl::inherit(fd)?, settings))
    }

    fn adopt(file: File, settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        let found =
            ioctl::attached(&file).map_err(|e| kernel("examine the inherited device", e))?;
        if found.name != settings.name || found.mode != Some(settings.mode) {
            let mode = found
                .mode
                .map_or("of another form".to_owned(), |mode| mode.to_string());
            return Err(Error::Inherited {
                found: format!("{} ({mode})", found.name),
                name: settings.name.clone(),
                mode: settings.mode,
            });
        }
        set_flags(&file, true).map_err(|e| kernel("set the descriptor's flags", e))?;
        let mut netlink = connect()?;
        let link = configure::find(&mut netlink, &settings.name)?.ok_or(Error::Vanished)?;
        let repaired = repair(&mut netlink, link.index, settings, Extra::Remove)?;
        Self::new(file, netlink, &link, (settings, repaired.overlaps))
    }

    /// Opens the interface as [`Device::open`] does, for another process: it lasts as long as the
    /// returned descriptors of device and netlink socket.
    pub fn open_for_another(settings: &Settings) -> Result<(OwnedFd, OwnedFd), Error> {
        let device = Self::open(settings)?;
        ioctl::persist(&device.port.file, false)
            .map_err(|e| kernel("let the interface end with its owner", e))?;
        Ok((device.port.file.into(), device.netlink.into()))
    }

    /// Takes over the descriptors of [`Device::open_for_another`], in whatever namespace.
    pub fn given(file: OwnedFd, netlink: OwnedFd, settings: &Settings) -> Result<Self, Error> {
        let mut netlink = Connection::from(netlink);
        let link = configure::find(&mut netlink, &settings.name)?.ok_or(Error::Vanished)?;
        Self::new(file.into(), netlink, &link, (settings, false))
    }

    fn new(
        file: File,
        netlink: Connection,
        link: &Link,
        (settings, ipv4_overlaps): (&Settings, bool),
    ) -> Result<Self, Error> {
        let offloads = agree(&file, settings.offload).map_err(|e| kernel("set offloads", e))?;
        tracing::debug!(?offloads, "{}", settings.name);
        let port = Port {
            file,
            mode: settings.mode,
            mac: frame::node_mac(settings.link_local),
            super_packets: offloads == Offloads::Datagrams,
            ipv4: settings.ipv4.is_some(),
        };
        Ok(Self {
            port,
            netlink,
            index: link.index,
            buffer: vec![0; LONGEST],
            packets: Packets::default(),
            runs: Runs::default(),
            drops: Drops::default(),
            ipv4_overlaps,
        })
    }

    /// Returns the interface index, for `netlink::Monitor::drain`.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the IPv4 address is missing because another route overlaps the network.
    pub fn ipv4_overlaps(&self) -> bool {
        self.ipv4_overlaps
    }

    /// Returns the drops so far.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Reads once, and passes the packets of programs or the kernel, without the headers around
    /// them, to `each`: one, several, or none.
    ///
    /// Returns false if nothing is ready. An error means that the interface is gone.
    pub fn read(&mut self, each: &mut impl FnMut(Bytes)) -> io::Result<bool> {
        let length = match self.port.file.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        let packets = &mut self.packets;
        let unpacked = frame::packet(self.port.mode, self.port.ipv4, &self.buffer[..length])
            .and_then(|(offload, packet)| {
                let each = &mut |parts: [&[u8]; 2]| each(packets.put(parts));
                let unpacked = offload.unpack(&mut self.buffer[packet], each);
                unpacked.map_err(|_| Skip::BadOffload)
            });
        match unpacked {
            Ok(()) => {}
            Err(Skip::NotIp) => self.drops.count(DropReason::TunNotIpv6),
            Err(Skip::Truncated) => self.drops.count(DropReason::TunTruncated),
            Err(Skip::BadOffload) => self.drops.count(DropReason::TunBadOffload),
        }
        Ok(true)
    }

    /// Writes a packet to the kernel at once, as if it arrived on `lc0`.
    ///
    /// Errors concern this packet: `InvalidInput` if it is not IP, `EIO` while the interface is
    /// down, `EBADFD` when it is gone.
    pub fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.port.write(packet)
    }

    /// As [`Device::write`], but the packet may wait for the next [`Device::flush`], together with
    /// its flow. Counts errors.
    pub fn queue(&mut self, packet: Bytes) {
        let Self {
            port, runs, drops, ..
        } = self;
        if port.super_packets {
            runs.push((), packet, &mut |(), run| port.write_run(run, drops));
        } else {
            port.write_run(&[packet], drops);
        }
    }

    /// Writes all packets queued by [`Device::queue`].
    pub fn flush(&mut self) {
        let Self {
            port, runs, drops, ..
        } = self;
        runs.flush(&mut |(), run| port.write_run(run, drops));
    }

    /// Returns the number of packets towards [`Device::read`] that the kernel has dropped since the
    /// interface was made: the queue was full, or no program had it open. When it grows, joins may
    /// be lost.
    pub fn overruns(&mut self) -> io::Result<u64> {
        configure::transmit_drops(&mut self.netlink, self.index)
    }

    /// Restores the interface (link down and up, addresses flushed) without touching correct
    /// settings. Returns whether it changed anything; then a general query is due.
    ///
    /// [`Error::Vanished`]: the interface is gone; only [`Device::open`] helps.
    pub fn ensure(&mut self, settings: &Settings) -> Result<bool, Error> {
        let repaired = repair(&mut self.netlink, self.index, settings, Extra::Leave)?;
        self.ipv4_overlaps = repaired.overlaps;
        Ok(repaired.changed)
    }

    /// Removes the interface.
    pub fn close(mut self) -> io::Result<()> {
        if let Err(error) = labels::remove(&mut self.netlink, self.index) {
            tracing::debug!("{error}");
        }
        ioctl::persist(&self.port.file, false).map_err(io::Error::from)
    }

    /// Returns the open device for the next program image: it stays open over `exec`.
    pub fn keep(self) -> io::Result<OwnedFd> {
        let file = self.port.file;
        // the next image may not know offloads
        ioctl::set_offloads(&file, Offloads::None)?;
        set_flags(&file, false)?;
        Ok(file.into())
    }
}

impl Port {
    fn write(&self, packet: &[u8]) -> io::Result<()> {
        let header = Header::of(self.mode, packet, self.mac).ok_or_else(not_ipv6)?;
        self.write_parts(&[IoSlice::new(header.as_bytes()), IoSlice::new(packet)])
    }

    /// Writes the packets of a run; in one call if the kernel supports it.
    fn write_run(&mut self, run: &[Bytes], drops: &mut Drops) {
        if run.len() > 1 && self.super_packets {
            match self.write_super_packet(run) {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    tracing::warn!("the kernel takes no super-packets: {error}");
                    self.super_packets = false;
                }
                Err(error) => {
                    tracing::debug!("write to the interface: {error}");
                    drops.add(DropReason::TunWriteError, run.len() as u64);
                    return;
                }
            }
        }
        for packet in run {
            if let Err(error) = self.write(packet) {
                tracing::debug!("write to the interface: {error}");
                drops.count(DropReason::TunWriteError);
            }
        }
    }

    fn write_super_packet(&self, run: &[Bytes]) -> io::Result<()> {
        let (headers, shape) = coalesce::headers(run).ok_or_else(not_ipv6)?;
        // a run's size is bounded
        let segment = (run[0].len() - headers.len()) as u16;
        let header = Header::of(self.mode, &headers, self.mac)
            .ok_or_else(not_ipv6)?
            .with_offload(shape.offload(segment));
        let mut parts = [IoSlice::new(&[]); 2 + MAX_PACKETS];
        parts[0] = IoSlice::new(header.as_bytes());
        parts[1] = IoSlice::new(&headers);
        for (part, packet) in parts[2..].iter_mut().zip(run) {
            *part = IoSlice::new(&packet[headers.len()..]);
        }
        self.write_parts(&parts[..2 + run.len()])
    }

    fn write_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        loop {
            match (&self.file).write_vectored(parts) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map(drop), // the driver takes a packet whole or not at all
            }
        }
    }
}

/// Brings the interface to its settings, both families; first closes private prefixes.
fn repair(
    netlink: &mut Connection,
    index: u32,
    settings: &Settings,
    extra: Extra,
) -> Result<Repaired, Error> {
    let mut changed = closed::repair(netlink, &settings.name, &settings.closed)?;
    changed |= configure::repair(netlink, index, settings, extra)?;
    let repaired = ipv4::repair(netlink, index, settings)?;
    Ok(Repaired {
        changed: changed | repaired.changed,
        ..repaired
    })
}

/// Sets the widest offloads that are permitted and that the driver supports.
fn agree(file: &File, permitted: bool) -> nix::Result<Offloads> {
    if permitted {
        for offloads in [Offloads::Datagrams, Offloads::Checksums] {
            match ioctl::set_offloads(file, offloads) {
                Err(Errno::EINVAL) => {}
                other => return other.map(|()| offloads),
            }
        }
    }
    ioctl::set_offloads(file, Offloads::None).map(|()| Offloads::None)
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.file.as_fd()
    }
}

/// Why attaching to a name failed.
enum Attach {
    /// An interface of another kind has the name.
    Mismatch,
    /// Another process has it open.
    Busy,
    /// Anything else.
    Other(Error),
}

impl Attach {
    fn explain(self, settings: &Settings) -> Error {
        match self {
            Self::Mismatch => Error::OtherKind {
                name: settings.name.clone(),
                kind: "another interface".to_owned(),
                mode: settings.mode,
            },
            Self::Busy => Error::InUse {
                name: settings.name.clone(),
            },
            Self::Other(error) => error,
        }
    }
}

fn attach(name: &str, mode: Mode) -> Result<File, Attach> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(CLONE_DEVICE)
        .map_err(|error| Attach::Other(open_error(error)))?;
    match ioctl::attach(&file, name, mode) {
        Ok(()) => Ok(file),
        Err(Errno::EINVAL) => Err(Attach::Mismatch),
        Err(Errno::EBUSY) => Err(Attach::Busy),
        Err(errno) => Err(Attach::Other(kernel("make the interface", errno))),
    }
}

/// Bytes before the Ethernet header of a frame on a tap: packet information, offload header.
pub(crate) const TAP_HEADERS: usize = 4 + OFFLOAD_LEN;

/// Opens a tap that lasts as long as the file; returns its name. `%d` in `template` becomes a
/// number.
pub(crate) fn open_tap(template: &str) -> Result<(File, String), Error> {
    let file = match attach(template, Mode::Tap) {
        Ok(file) => file,
        Err(Attach::Other(error)) => return Err(error),
        Err(Attach::Mismatch | Attach::Busy) => return Err(Error::Vanished),
    };
    let attached = ioctl::attached(&file).map_err(|e| kernel("examine a tap", e))?;
    Ok((file, attached.name))
}

/// Replaces the device of a crashed daemon with the other mode; refuses any other interface.
fn replace(netlink: &mut Connection, settings: &Settings) -> Result<File, Error> {
    let refuse = |kind: String| Error::OtherKind {
        name: settings.name.clone(),
        kind,
        mode: settings.mode,
    };
    let link =
        configure::find(netlink, &settings.name)?.ok_or_else(|| refuse("reserved".into()))?;
    if !link.ours {
        return Err(refuse(link.kind));
    }
    let other = match settings.mode {
        Mode::Tun => Mode::Tap,
        Mode::Tap => Mode::Tun,
    };
    // Attaching succeeds only if no other process has it open.
    let left = attach(&settings.name, other).map_err(|error| error.explain(settings))?;
    ioctl::persist(&left, false).map_err(|e| kernel("remove the old interface", e))?;
    drop(left);
    attach(&settings.name, settings.mode).map_err(|error| error.explain(settings))
}

fn open_error(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::NoDriver,
        Some(libc::EACCES | libc::EPERM) => Error::DriverDenied,
        _ => Error::Io {
            action: "open /dev/net/tun",
            source: error,
        },
    }
}

fn connect() -> Result<Connection, Error> {
    Connection::open().map_err(|source| Error::Io {
        action: "open a netlink socket",
        source,
    })
}

fn kernel(action: &'static str, errno: Errno) -> Error {
    Error::kernel(action, errno.into())
}

fn set_flags(file: &File, close_on_exec: bool) -> nix::Result<()> {
    let flags = if close_on_exec {
        FdFlag::FD_CLOEXEC
    } else {
        FdFlag::empty()
    };
    fcntl(file, FcntlArg::F_SETFD(flags)).map(drop)
}

fn not_ipv6() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not an IPv6 packet")
}
