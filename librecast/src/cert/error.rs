//! Errors of certificates, chains and tokens.

use thiserror::Error;

use crate::text::TextError;
use crate::wire::WireError;

/// The reason why a certificate, a chain or a token is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertError {
    /// The bytes are not a certificate of this version.
    #[error("malformed certificate: {0}")]
    Malformed(#[from] WireError),
    /// A certificate of another network.
    #[error("certificate of another network")]
    OtherNetwork,
    /// A signature does not verify, or the wrong key signed.
    #[error("forged certificate ({0:?} not signed by the one above it)")]
    Forged(Kind),
    /// The kinds do not follow one another.
    #[error("certificates in wrong order")]
    Order,
    /// Too late by the verifier's clock, the tolerance included.
    #[error("{0:?} certificate expired")]
    Expired(Kind),
    /// Too early by the verifier's clock, the tolerance included.
    #[error("{0:?} certificate not valid yet: is the clock right?")]
    NotYetValid(Kind),
    /// Grants more than the certificate above it.
    #[error("{0:?} certificate grants more than its issuer has")]
    Widened(Kind),
    /// The node is a leaf, which does not route.
    #[error("certificate of a leaf, which is no router")]
    Leaf,
    /// The text is not a token, or the token cannot be made.
    #[error("{0}")]
    BadToken(#[from] TokenError),
}

/// The reason why a text is not a token, or a token cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The text is something else, too long, or damaged.
    #[error("{0}")]
    Text(TextError),
    /// The network key is not a usable public key.
    #[error("not a token: network key")]
    NetworkKey,
    /// More signalling URLs than the format holds.
    #[error("not a token: too many URLs")]
    TooManyUrls,
    /// Too many or too long signalling URLs for a new token.
    #[error("at most 8 signalling URLs of at most 255 bytes")]
    Urls,
    /// Issuer, invitation and secret key are of different tokens.
    #[error("not a token: its parts do not belong together")]
    Parts,
}

/// The role that a certificate gives its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May invite and renew; signed by the network key.
    Issuer = 1,
    /// A bearer key that makes node certificates until it expires; signed by an issuer.
    Invitation = 2,
    /// A member; signed by an issuer or an invitation.
    Node = 3,
}
