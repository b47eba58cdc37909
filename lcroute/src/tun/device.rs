//! The device's life (made, adopted, kept, removed) and its packets.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

use super::configure::{self, Link};
use super::frame::{self, ETHERNET_LEN, Header, INFO_LEN, Mac, Skip};
use super::{Error, Mode, Settings, ioctl};
use crate::netlink::Connection;

const CLONE_DEVICE: &str = "/dev/net/tun";

/// Bytes that hold whatever [`Device::read`] may read: the largest IPv6 packet and its headers.
pub const READ_BUFFER: usize = 40 + 65_535 + ETHERNET_LEN + INFO_LEN;

/// Reads that may be passed over in one call of [`Device::read`], lest a flood of IPv4 hold up
/// everything else.
const SKIP_LIMIT: usize = 64;

/// What [`Device::read`] has passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets of other protocols than IPv6.
    pub not_ipv6: u64,
    /// Packets longer than the buffer that was given.
    pub truncated: u64,
}

/// The open device. Dropping it leaves the interface as a crash does; see [`Device::close`].
#[derive(Debug)]
pub struct Device {
    file: File,
    netlink: Connection,
    index: u32,
    mode: Mode,
    mac: Mac,
    counters: Counters,
}

impl Device {
    /// Makes the interface, or adopts the one that a crashed daemon left, and brings it up as
    /// `settings` say. An adopted one keeps the groups that programs have joined on it.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        let mut netlink = connect()?;
        let file = match attach(&settings.name, settings.mode) {
            Err(Attach::Mismatch) => replace(&mut netlink, settings)?,
            other => other.map_err(|error| error.explain(settings))?,
        };
        let link = configure::find(&mut netlink, &settings.name)?.ok_or(Error::Vanished)?;
        if settings.mode == Mode::Tun && !link.ethernet {
            if link.up {
                // A persistent device that somebody else has made: there is no other way.
                configure::take_down(&mut netlink, link.index)?;
            }
            ioctl::claim_ethernet(&file).map_err(|e| kernel("set the link type", e))?;
        }
        configure::repair(&mut netlink, link.index, settings, configure::Extra::Remove)?;
        // Last, so that a failure before this leaves nothing behind.
        ioctl::persist(&file, true).map_err(|e| kernel("make the interface persistent", e))?;
        Ok(Self::new(file, netlink, &link, settings))
    }

    /// Goes on with the descriptor that [`Device::keep`] gave to the previous program image. `None` if it is
    /// not one. To be called before any other device is opened.
    ///
    /// If it is not the device that `settings` name it is left as it is, as a crash would leave it.
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
        configure::repair(&mut netlink, link.index, settings, configure::Extra::Remove)?;
        Ok(Self::new(file, netlink, &link, settings))
    }

    fn new(file: File, netlink: Connection, link: &Link, settings: &Settings) -> Self {
        Self {
            file,
            netlink,
            index: link.index,
            mode: settings.mode,
            mac: frame::node_mac(settings.link_local),
            counters: Counters::default(),
        }
    }

    /// Interface index: what `netlink::Monitor::drain` is to call `device`.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What [`Device::read`] has passed over so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// One IPv6 packet that a program or the kernel has sent, without the headers around it.
    ///
    /// `None`: nothing more for now, poll again. `buffer` takes packet and headers; one of
    /// [`READ_BUFFER`] bytes takes any. An error means that the interface is gone.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        for _ in 0..SKIP_LIMIT {
            let length = match self.file.read(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match frame::packet(self.mode, &buffer[..length]) {
                Ok(packet) => return Ok(Some(&buffer[packet])),
                Err(Skip::NotIpv6) => self.counters.not_ipv6 += 1,
                Err(Skip::Truncated) => self.counters.truncated += 1,
            }
        }
        Ok(None)
    }

    /// Gives an IPv6 packet to the kernel, as if it had come in on `lc0`.
    ///
    /// Errors concern this packet: `InvalidInput` if it is not IPv6, `EIO` while an administrator
    /// holds the interface down, `EBADFD` when it is gone.
    pub fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        let header = Header::of(self.mode, packet, self.mac).ok_or_else(not_ipv6)?;
        self.write_frame(header, packet)
    }

    /// Gives an MLD message to the kernel and, on a TUN, once more with an Ethernet header to
    /// programs that watch MLD on packet sockets and expect one. The kernel ignores the second.
    pub fn write_mld(&mut self, packet: &[u8]) -> io::Result<()> {
        self.write(packet)?;
        match self.mode {
            Mode::Tap => Ok(()),
            Mode::Tun => {
                let header = Header::for_taps(packet, self.mac).ok_or_else(not_ipv6)?;
                self.write_frame(header, packet)
            }
        }
    }

    fn write_frame(&mut self, header: Header, packet: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(packet)];
        loop {
            match self.file.write_vectored(&parts) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop), // the driver takes a packet whole or not at all
            }
        }
    }

    /// How many packets towards [`Device::read`] the kernel has dropped since the interface was
    /// made, because the queue was full or nobody had it open. When it grows, joins may be lost.
    pub fn overruns(&mut self) -> io::Result<u64> {
        configure::transmit_drops(&mut self.netlink, self.index)
    }

    /// Brings back what somebody has taken from the interface (link down and up, addresses
    /// flushed) without touching what is right. Says whether anything had to be repaired; then
    /// a general query is due.
    ///
    /// [`Error::Vanished`]: the interface itself is gone, only [`Device::open`] helps.
    pub fn ensure(&mut self, settings: &Settings) -> Result<bool, Error> {
        configure::repair(
            &mut self.netlink,
            self.index,
            settings,
            configure::Extra::Leave,
        )
    }

    /// Removes the interface.
    pub fn close(self) -> io::Result<()> {
        ioctl::persist(&self.file, false).map_err(io::Error::from)
    }

    /// The open device for the next program image: it stays open over `exec`.
    pub fn keep(self) -> io::Result<OwnedFd> {
        set_flags(&self.file, false).map_err(io::Error::from)?;
        Ok(self.file.into())
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Why a name could not be attached to.
enum Attach {
    /// The name is taken by an interface that is not a device of this mode.
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

/// Makes the device anew where a crashed daemon left one of the other mode; refuses to touch
/// any other interface.
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
    // Attaching succeeds only if nobody else has it open.
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
