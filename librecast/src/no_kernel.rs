//! Multicast sockets of a system other than Linux: there are none, and a program is a guest.

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::interface::Interface;
use crate::received::{Datagram, Received, ReceivedV1};

fn needs_linux<T>() -> io::Result<T> {
    let message = "multicast of the host needs Linux; elsewhere a token or a code is needed";
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

/// Fails.
pub fn interfaces() -> io::Result<BTreeMap<u32, Interface>> {
    needs_linux()
}

/// A socket that sends.
#[derive(Debug)]
pub enum Sender {}

/// Sockets that receive.
#[derive(Debug)]
pub enum Receiver {}

/// A socket for MLD.
#[derive(Debug)]
pub enum MldSocket {}

/// A socket for MLD version 1.
#[derive(Debug)]
pub enum MldV1Socket {}

impl Sender {
    pub fn open(_interface: u32, _group: Ipv6Addr, _port: u16, _hops: u8) -> io::Result<Self> {
        needs_linux()
    }

    pub fn source(&self) -> io::Result<Ipv6Addr> {
        match *self {}
    }

    pub fn send(&self, _group: Ipv6Addr, _packets: &[u8], _size: usize) -> io::Result<()> {
        match *self {}
    }
}

impl Receiver {
    pub fn open(_port: u16) -> io::Result<Self> {
        needs_linux()
    }

    pub fn join(&mut self, _group: Ipv6Addr, _interface: u32) -> io::Result<usize> {
        match *self {}
    }

    pub fn leave(&self, _group: Ipv6Addr, _interface: u32, _at: usize) {
        match *self {}
    }

    pub fn fds(&self) -> iter::Empty<BorrowedFd<'_>> {
        match *self {}
    }

    pub fn receive(&mut self, _take: impl FnMut(Datagram<'_>)) -> io::Result<bool> {
        match *self {}
    }
}

impl MldSocket {
    pub fn open() -> io::Result<Self> {
        needs_linux()
    }

    pub fn watch(&self, _interface: u32) -> io::Result<()> {
        match *self {}
    }

    pub fn unwatch(&self, _interface: u32) {
        match *self {}
    }

    pub fn receive(&mut self, _buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match *self {}
    }

    pub fn take_lost(&mut self) -> io::Result<u32> {
        match *self {}
    }

    pub fn send(&self, _: u32, _: Ipv6Addr, _: Ipv6Addr, _icmpv6: &[u8]) -> io::Result<()> {
        match *self {}
    }
}

impl AsFd for MldSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

impl MldV1Socket {
    pub fn open(_prefix: u16) -> io::Result<Self> {
        needs_linux()
    }

    pub fn watch(&mut self, _interface: u32) -> io::Result<()> {
        match *self {}
    }

    pub fn unwatch(&mut self, _interface: u32) {
        match *self {}
    }

    pub fn receive(&mut self) -> io::Result<Option<ReceivedV1>> {
        match *self {}
    }

    pub fn take_lost(&mut self) -> io::Result<u32> {
        match *self {}
    }
}

impl AsFd for MldV1Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}
