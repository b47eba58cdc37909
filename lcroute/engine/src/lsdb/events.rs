//! Outputs of the link state database.

use std::net::Ipv4Addr;

use bytes::Bytes;
use librecast::cert::CertError;
use librecast::id::{LinkId, OriginId, PeerId};
use librecast::revocation::RevocationError;
use thiserror::Error;

use super::lsa::Lsa;
use super::summary::Summary;
use crate::drops::DropReason;

/// An element for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// An LSA element.
    Lsa(Lsa),
    /// A SUMMARY element.
    Summary(Summary),
}

/// A change in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseEvent {
    /// Links lead to this router now.
    RouterUp(OriginId),
    /// No links lead to this router any more, or it lost its credential.
    RouterDown(OriginId),
    /// The router has (re)started as this incarnation. For the own router: use and persist it.
    Incarnation(OriginId, u32),
    /// The router has other certificates than before.
    CredentialChanged(OriginId),
    /// The key no longer counts, by this revocation.
    Revoked(PeerId, Bytes),
    /// This router has another IPv4 address, or none.
    Ipv4Address(Option<Ipv4Addr>),
    /// Rendezvous points or announcers of prefixes have changed.
    RpsChanged,
    /// An LSA that was accepted first was dropped later, or in part.
    Dropped(DropReason),
    /// The neighbour passed on an LSA that its router did not sign.
    Forged(LinkId),
}

/// The reason why this node's certificates are not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OwnChainError {
    /// The certificates do not count.
    #[error(transparent)]
    Chain(#[from] CertError),
    /// The certificates name another node.
    #[error("certificates of another node")]
    OtherNode,
    /// The certificates are for another key than this node's.
    #[error("certificates for another key")]
    OtherKey,
}

/// The reason why a revocation is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddRevocationError {
    /// The revocation does not count.
    #[error(transparent)]
    Invalid(#[from] RevocationError),
    /// As many revocations as [`crate::Limits::revocations`] are needed longer.
    #[error("too many revocations")]
    TooMany,
    /// All its certificates have expired, or it exceeds [`super::lsa::MAX_REVOCATION`].
    #[error("it has expired, or is too long")]
    ExpiredOrTooLong,
}
