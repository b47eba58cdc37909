//! Datagrams and messages of MLD as sockets return them.

use std::net::Ipv6Addr;

use crate::mld::{Message, MldError};

/// A datagram to a group.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Source address of the datagram.
    pub source: Ipv6Addr,
    /// The destination group.
    pub group: Ipv6Addr,
    /// Index of the ingress interface.
    pub interface: u32,
    /// UDP payload.
    pub payload: &'a [u8],
}

/// One received message: its bytes are at the front of the caller's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Bytes of ICMPv6 (the checksum has been verified by the kernel).
    pub length: usize,
    /// Index of the ingress interface.
    pub interface: u32,
    /// Source address; MLD requires a link-local one, which [`crate::mld`] checks.
    pub source: Ipv6Addr,
    /// Its hop limit; MLD requires 1.
    pub hop_limit: u8,
    /// Messages lost between the last received one and this.
    pub lost: u32,
}

/// A version 1 message, and its ingress interface.
#[derive(Debug)]
pub struct ReceivedV1 {
    /// Index of the interface.
    pub interface: u32,
    /// Source and message, with all checks of MLD.
    pub message: Result<(Ipv6Addr, Message), MldError>,
}
