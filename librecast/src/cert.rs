//! Membership of a network: certificates, chains and invitation tokens.
//!
//! ```text
//! network key --signs--> issuer --signs--> invitation --signs--> node
//!                              \----------signs----------------> node
//! ```
//!
//! A certificate narrows the one above it: its time and group prefixes lie inside, it is `core`
//! only if the other is, and labels only add up.
//!
//! Any issuer can renew a node ([`Chain::renew`]). The new certificate hangs directly under the
//! issuer, lasts as long as the invitation allows ([`Grant::renew_for`]), and lists the keys above
//! the old one: revoking one expels renewed nodes too. Token holders sign node certificates as
//! well; so earlier keys and length of renewals count only under an issuer's signature.
//!
//! An invitation may limit its number of nodes ([`Grant::uses`]). One chain does not show an
//! excess: issuers count (`lcroute-node`), and routers bound their state (`lcroute-engine`).
//!
//! A label marks members as ephemeral ([`EPHEMERAL`]): nodes soon drop their state of such members.

mod certificate;
mod chain;
mod error;
#[cfg(test)]
mod fixture;
mod member;
mod prefix;
mod text;
mod token;

pub use certificate::{CLOCK_SKEW, Certificate, Grant, MAX_CERTIFICATE, MAX_ENTRIES};
pub use chain::{Chain, MAX_CHAIN};
pub use error::{CertError, Kind, TokenError};
pub use member::{
    EPHEMERAL, EPHEMERAL_FORGOTTEN_AFTER, KeysAbove, MAX_PREVIOUS, Member, SEGMENT, TokenBound,
    is_ephemeral,
};
pub use prefix::{GroupPrefix, SourcePrefix};
pub use text::{MAX_NAME, MAX_USES, is_node_name};
pub use token::{MAX_TOKEN, MAX_URLS, Token};
