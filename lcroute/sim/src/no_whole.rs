//! Placeholder for `whole.rs` on platforms without a stack for links: no whole node starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use lcroute_engine::Engine;
use librecast::cert::GroupPrefix;
use librecast::time::UnixTime;

use crate::daemon::{Effect, Start};
use crate::population::Identity;
use crate::time::Nanos;

pub fn stun_answer(_: &[u8], _: SocketAddr) -> Option<Bytes> {
    None
}

/// A type without values.
#[derive(Debug)]
pub enum WholeNode {}

impl WholeNode {
    pub fn start(_: &Start<'_>, _: Nanos) -> Option<Self> {
        None
    }

    pub fn engine(&self) -> &Engine {
        match *self {}
    }

    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        match *self {}
    }

    pub fn members(&self) -> impl Iterator<Item = u32> {
        // only for the type of the iterator
        match *self {}
        #[expect(unreachable_code, reason = "says which iterator it is")]
        std::iter::empty()
    }

    pub fn is_expired(&self, _: UnixTime) -> bool {
        match *self {}
    }

    pub fn unknown_neighbor(&self) -> Option<String> {
        match *self {}
    }

    pub fn expired_neighbor(&self, _: UnixTime, _: u64) -> Option<&str> {
        match *self {}
    }

    pub fn epoch(&self) -> [u8; 32] {
        match *self {}
    }

    pub fn presence(&mut self, _: &Identity, _: bool, _: Nanos) {
        match *self {}
    }

    pub fn signal(&mut self, _: &Identity, _: &[u8], _: Nanos) {
        match *self {}
    }

    pub fn datagram(&mut self, _: SocketAddr, _: &[u8], _: Nanos) {
        match *self {}
    }

    pub fn local_packet(&mut self, _: Vec<u8>, _: Nanos) {
        match *self {}
    }

    pub fn announce(&mut self, _: &[GroupPrefix], _: Nanos) {
        match *self {}
    }

    pub fn revoke(&mut self, _: u32, _: UnixTime, _: Nanos) -> Result<(), String> {
        match *self {}
    }

    pub fn goodbye(&mut self, _: Nanos) {
        match *self {}
    }

    pub fn timeout(&mut self, _: Nanos) {
        match *self {}
    }

    pub fn next_timeout(&mut self, _: Nanos) -> Option<Nanos> {
        match *self {}
    }

    pub fn poll(&mut self, _: Nanos) -> Option<Effect> {
        match *self {}
    }
}
