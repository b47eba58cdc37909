//! A channel by name or key: sends to its group, receives, and sees whether somebody listens.
//!
//! A server that sends only while somebody listens:
//!
//! ```no_run
//! use librecast::group::{Channel, Options};
//!
//! # fn main() -> std::io::Result<()> {
//! let watches = Options { watches: true, ..Options::default() };
//! let channel = Channel::open("example.org/time", &watches)?;
//! while channel.wait_for_listener(None)? {
//!     channel.send(b"now")?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! All methods may be called from several threads. If the interface goes away, they fail, and the
//! program opens the channel again.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, SockaddrIn6, recvmsg};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::channel::{MAX_CHANNEL_NAME, TALK_PORT, program_group};
use crate::guest_socket;
use crate::listeners::Listeners;
use crate::socket::{SendSocket, multicast_interfaces};
use crate::socket_option::enlarge_receive_buffer;

/// Bytes of datagrams that may wait while the program is busy.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Time between two checks of the interface, and of members on this host.
const INTERFACE_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the interface.
    pub interface: String,
    /// UDP port of the datagrams.
    pub port: u16,
    /// Number of links that a datagram may pass, beside links of lcroute.
    pub hop_limit: u8,
    /// Joins the group, for [`Channel::receive`].
    pub receives: bool,
    /// Watches joins of others, for [`Channel::wait_for_listener`]. Needs CAP_NET_RAW.
    pub watches: bool,
}

impl Default for Options {
    /// Returns the settings of `lcroute listen` and `lcroute say`, without join and watch.
    fn default() -> Self {
        Self {
            interface: "lc0".to_owned(),
            port: TALK_PORT,
            hop_limit: 64,
            receives: false,
            watches: false,
        }
    }
}

/// A channel on one interface.
#[derive(Debug)]
pub struct Channel {
    group: Ipv6Addr,
    interface: u32,
    sender: SendSocket,
    receiver: Option<Socket>,
    watch: Option<Watch>,
    /// Readable once the channel is closed.
    closed: EventFd,
}

/// The sight of joins.
#[derive(Debug)]
struct Watch {
    interface: String,
    reports: Mutex<Reports>,
    /// The socket of `reports`, to wait without the lock.
    readable: OwnedFd,
}

/// Reports of listeners, and the time of the last check of the interface.
#[derive(Debug)]
struct Reports {
    listeners: Listeners,
    checked_at: Option<Instant>,
}

impl Channel {
    /// Opens the channel of this name, key or group: see [`program_group`].
    ///
    /// # Errors
    /// No channel has such a name, the interface does not exist, or a permission is missing.
    pub fn open(name: &str, options: &Options) -> io::Result<Self> {
        let group = program_group(name).ok_or_else(|| bad_name(name))?;
        if options.port == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "port 0"));
        }
        if guest_socket::pair()?.is_some() {
            let message = "a guest without a namespace has no channels";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let interface = index_of(&options.interface)?;
        let receiver = match options.receives {
            true => Some(receiver(group, options, interface)?),
            false => None,
        };
        let watch = match options.watches {
            true => Some(Watch::open(
                &options.interface,
                group,
                options.receives.into(),
            )?),
            false => None,
        };
        Ok(Self {
            group,
            interface,
            sender: SendSocket::open(interface, group, options.port, options.hop_limit)?,
            receiver,
            watch,
            closed: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        })
    }

    /// Returns the group.
    #[must_use]
    pub fn group(&self) -> Ipv6Addr {
        self.group
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// It is empty or too long, or the interface is gone.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        if datagram.is_empty() {
            let message = "a datagram has at least one byte";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.sender.send(self.group, datagram, datagram.len())
    }

    /// Waits for a datagram; returns its length and source. Without `timeout` it waits for ever.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], [`io::ErrorKind::Interrupted`] by a signal, or
    /// [`io::ErrorKind::BrokenPipe`] once the channel is closed. A datagram that is longer than the
    /// buffer is lost (EMSGSIZE).
    pub fn receive(
        &self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> io::Result<(usize, SocketAddrV6)> {
        let socket = self.receiver.as_ref().ok_or_else(|| {
            let message = "the channel was opened without `receives`";
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let until = deadline(timeout);
        loop {
            match receive_one(socket, buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.wait(socket.as_fd(), until)?;
        }
    }

    /// Waits until another program of the network listens; false after `timeout`. The first answer
    /// takes up to 0.3 s: present listeners are asked.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn wait_for_listener(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let watch = self.watch.as_ref().ok_or_else(|| {
            let message = "the channel was opened without `watches`";
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let until = deadline(timeout);
        loop {
            let (has_listener, next) = watch.look(self.interface, self.group)?;
            if has_listener {
                return Ok(true);
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(false);
            }
            let next = until.map_or(next, |until| until.min(next));
            self.wait(watch.readable.as_fd(), Some(next))?;
        }
    }

    /// Closes the channel: threads that wait in it return with an error.
    pub fn close(&self) {
        // a full counter is readable, too
        let _ = self.closed.write(1);
        self.leave();
    }

    /// Returns the descriptor for poll(2): readable while a datagram waits. None without `receives`.
    #[must_use]
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.receiver.as_ref().map(AsFd::as_fd)
    }

    fn wait(&self, fd: BorrowedFd<'_>, until: Option<Instant>) -> io::Result<()> {
        let mut fds = [fd, self.closed.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        ppoll(&mut fds, left.map(TimeSpec::from_duration), None)?;
        match fds[1].any() {
            Some(true) => {
                let message = "the channel is closed";
                Err(io::Error::new(io::ErrorKind::BrokenPipe, message))
            }
            _ => Ok(()),
        }
    }

    /// Leaves the group: a copy of the descriptor may keep the socket open.
    fn leave(&self) {
        if let Some(receiver) = &self.receiver {
            // fails if the interface is gone, and the membership with it
            let _ = receiver.leave_multicast_v6(&self.group, self.interface);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Watch {
    /// `own`: sockets of this channel that join the group.
    fn open(interface: &str, group: Ipv6Addr, own: u32) -> io::Result<Self> {
        let listeners = Listeners::open([(group, own)]).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => {
                let message =
                    "watching joins needs CAP_NET_RAW: setcap cap_net_raw+ep PROGRAM, or root";
                io::Error::new(e.kind(), message)
            }
            _ => e,
        })?;
        Ok(Self {
            interface: interface.to_owned(),
            readable: listeners.as_fd().try_clone_to_owned()?,
            reports: Mutex::new(Reports {
                listeners,
                checked_at: None,
            }),
        })
    }

    /// Returns whether somebody listens now, and when to look again at the latest.
    fn look(&self, interface: u32, group: Ipv6Addr) -> io::Result<(bool, Instant)> {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let lately = |at| now.saturating_duration_since(at) < INTERFACE_INTERVAL;
        if !reports.checked_at.is_some_and(lately) {
            let mut found = multicast_interfaces(std::slice::from_ref(&self.interface))?;
            found.retain(|index, _| *index == interface);
            if found.is_empty() {
                return Err(no_interface(&self.interface));
            }
            reports.listeners.set_interfaces(&found, now);
            reports.checked_at = Some(now);
        }
        reports.listeners.turn(now)?;
        let again = reports.checked_at.unwrap_or(now) + INTERFACE_INTERVAL;
        let due = reports.listeners.next_timeout();
        let has_listener = reports.listeners.has_listener(interface, group, now);
        Ok((has_listener, due.map_or(again, |due| due.min(again))))
    }
}

/// Returns the end of a timeout; none if it is beyond all clocks.
fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

fn bad_name(name: &str) -> io::Error {
    let shown: String = name
        .chars()
        .take(40)
        .flat_map(char::escape_default)
        .collect();
    let message = format!(
        "`{shown}` ({} bytes) names no channel: a name has 1 to {MAX_CHANNEL_NAME} bytes without control characters, \
         and an address is a group's",
        name.len()
    );
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn no_interface(name: &str) -> io::Error {
    let message =
        format!("no interface {name} that is up and carries multicast: `lcroute up` makes lc0");
    io::Error::new(io::ErrorKind::NotFound, message)
}

fn index_of(name: &str) -> io::Result<u32> {
    let found = multicast_interfaces(&[name.to_owned()])?;
    let index = found.keys().next().copied();
    index.ok_or_else(|| no_interface(name))
}

/// Opens a socket that receives datagrams to the group on this interface, and nothing else.
fn receiver(group: Ipv6Addr, options: &Options, interface: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    // other programs may listen, too
    socket.set_reuse_address(true)?;
    // other programs may have joined on other interfaces
    socket.set_multicast_all_v6(false)?;
    socket.bind_device(Some(options.interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    enlarge_receive_buffer(&socket, RECEIVE_BUFFER);
    // bound to the group: no unicast arrives
    let address = SocketAddrV6::new(group, options.port, 0, interface);
    socket.bind(&SockAddr::from(address))?;
    socket.join_multicast_v6(&group, interface)?;
    Ok(socket)
}

fn receive_one(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV6)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let message = recvmsg::<SockaddrIn6>(fd, &mut parts, None, flags)?;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(nix::Error::EMSGSIZE.into());
    }
    let unknown = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
    let source = message.address.map_or(unknown, SocketAddrV6::from);
    Ok((message.bytes, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_channel_or_interface_is_refused_in_words() {
        let long = "x".repeat(10_000);
        for bad in ["", "fe80::1", "a\u{7}b", &long] {
            let error = Channel::open(bad, &Options::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().len() < 300, "{error}");
        }
        let nowhere = Options {
            interface: "nowhere0".into(),
            ..Options::default()
        };
        let error = Channel::open("weather", &nowhere).unwrap_err();
        assert!(error.to_string().contains("nowhere0"), "{error}");
    }

    #[test]
    fn a_timeout_beyond_all_clocks_is_none() {
        assert_eq!(deadline(Some(Duration::MAX)), None);
        assert_eq!(deadline(None), None);
        assert!(deadline(Some(Duration::ZERO)).is_some());
    }
}
