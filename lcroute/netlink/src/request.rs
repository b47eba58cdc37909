//! Requests to the kernel and their answers.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use netlink_packet_route::RouteNetlinkMessage;
use nix::libc;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Receive buffer in bytes: twice the kernel's maximum of 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Most attempts to read a table that changes during the dump.
const DUMP_ATTEMPTS: usize = 8;

/// Index of the loopback interface: the first of each network namespace.
const LOOPBACK: u32 = 1;

/// Flag of an answer: the table changed while it was dumped.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A connection to the kernel's routing tables.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// State of an answer.
enum Progress {
    /// More messages follow.
    More,
    /// The answer is complete.
    Done,
    /// The answer is complete but the table changed during the dump.
    Interrupted,
}

impl From<OwnedFd> for Connection {
    /// Takes over a connection of another process, to the tables of its network namespace.
    fn from(socket: OwnedFd) -> Self {
        // SAFETY: the descriptor is open, and owned by the new socket alone
        let socket = unsafe { Socket::from_raw_fd(socket.into_raw_fd()) };
        Self::over(socket)
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        // SAFETY: the descriptor is open, and the socket gives up its ownership
        unsafe { Self::from_raw_fd(connection.socket.into_raw_fd()) }
    }
}

impl Connection {
    /// Opens the connection; needs no permission.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Lets the kernel filter dumps by table and interface (a full Internet routing table has
        // 200,000 entries). Kernels before 4.20 lack it; answers are filtered on this side as well.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self::over(socket))
    }

    fn over(socket: Socket) -> Self {
        Self {
            socket,
            sequence: 0,
            buffer: vec![0; RECEIVE_BUFFER],
        }
    }

    /// Brings up the loopback interface of this network namespace.
    pub fn bring_up_loopback(&mut self) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(LOOPBACK).up().build();
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sends a request that changes something; `flags` are `NLM_F_CREATE` and the like.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, flags | NLM_F_ACK).map(drop)
    }

    /// Asks for one object.
    pub fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut answers = self.exchange(message, NLM_F_ACK)?;
        answers
            .pop()
            .ok_or_else(|| io::Error::other("the kernel gave no answer over netlink"))
    }

    /// Asks for all objects of a kind.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_DUMP)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::InnerMessage(message),
        );
        message.header.flags = flags | NLM_F_REQUEST;
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            message.header.sequence_number = self.sequence;
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            self.socket.send(&bytes, 0)?;
            let mut answers = Vec::new();
            match self.receive(&mut answers)? {
                Progress::Interrupted => continue,
                Progress::Done | Progress::More => return Ok(answers),
            }
        }
        Err(io::Error::other(
            "the kernel's tables change too fast to be read",
        ))
    }

    /// Receives the whole answer to the request just sent.
    fn receive(&mut self, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<Progress> {
        let mut interrupted = false;
        loop {
            // With MSG_TRUNC the result is the message's own length, even if it did not fit.
            let length = match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let received = self.buffer.get(..length).ok_or_else(|| {
                io::Error::other(format!("a netlink answer of {length} bytes is too long"))
            })?;
            for message in messages(received) {
                match digest(message, self.sequence, &mut interrupted, answers)? {
                    Progress::More => {}
                    complete => return Ok(complete),
                }
            }
        }
    }
}

/// Takes one message of an answer.
fn digest(
    message: &[u8],
    sequence: u32,
    interrupted: &mut bool,
    answers: &mut Vec<RouteNetlinkMessage>,
) -> io::Result<Progress> {
    let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
        Ok(message) => message,
        Err(error) => {
            // One unknown interface must not hide all others.
            tracing::debug!(%error, "skipped a netlink message that does not parse");
            return Ok(Progress::More);
        }
    };
    if message.header.sequence_number != sequence {
        return Ok(Progress::More); // of an earlier, failed request
    }
    *interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => answers.push(inner),
        NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
        NetlinkPayload::Error(_) => return Ok(Progress::Done),
        NetlinkPayload::Done(_) if *interrupted => return Ok(Progress::Interrupted),
        NetlinkPayload::Done(done) if done.code < 0 => {
            return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
        }
        NetlinkPayload::Done(_) => return Ok(Progress::Done),
        _ => {}
    }
    Ok(Progress::More)
}

/// Splits a `recv` into netlink messages (RFC 3549 §2.3.2).
pub fn messages(received: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = received;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.first_chunk::<4>().copied()?);
        let length = usize::try_from(length)
            .ok()
            .filter(|&length| length >= 16)?;
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_by_dump() {
        let mut netlink = Connection::open().unwrap();
        let question = LinkUnspec::new_with_name("lo").build();
        let RouteNetlinkMessage::NewLink(by_name) =
            netlink.get(RouteNetlinkMessage::GetLink(question)).unwrap()
        else {
            panic!("no link");
        };
        let all = netlink
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .unwrap();
        assert!(all.iter().any(|message| matches!(
            message,
            RouteNetlinkMessage::NewLink(link) if link.header.index == by_name.header.index
        )));
    }

    #[test]
    fn an_error_is_an_errno_and_the_connection_goes_on() {
        let mut netlink = Connection::open().unwrap();
        let question = LinkUnspec::new_with_name("no-such-link").build();
        let error = netlink
            .get(RouteNetlinkMessage::GetLink(question))
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        let question = LinkUnspec::new_with_name("lo").build();
        netlink.get(RouteNetlinkMessage::GetLink(question)).unwrap();
    }

    #[test]
    fn messages_are_split_at_their_lengths() {
        let mut bytes = vec![0; 20 + 16];
        bytes[..4].copy_from_slice(&17u32.to_ne_bytes()); // padded to 20
        bytes[20..24].copy_from_slice(&16u32.to_ne_bytes());
        let lengths: Vec<usize> = messages(&bytes).map(<[u8]>::len).collect();
        assert_eq!(lengths, [17, 16]);
    }

    #[test]
    fn impossible_lengths_end_the_split() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(messages(&bytes).count(), 0);
        assert_eq!(messages(&[1, 0]).count(), 0);
    }
}
