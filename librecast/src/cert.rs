//! Who belongs to a network: certificates, chains and invitation tokens.
//!
//! ```text
//! network key --signs--> issuer --signs--> invitation --signs--> node
//!                              \----------signs----------------> node
//! ```
//!
//! A certificate narrows what the one above it allows: its time and its group prefixes lie inside, it is not
//! `core` unless the other is, labels only add up.
//!
//! Any issuer can renew a node ([`Chain::renew`]): the new certificate hangs directly under the issuer, lasts as
//! long as the invitation says ([`Grant::renew_for`]), and remembers the keys that the old one stood on, so that
//! who loses one of them loses the renewed ones too. A token holder signs node certificates as well: what would
//! favour the signer (earlier keys, how long renewals last) counts only where an issuer has signed it.
//!
//! An invitation may say for how many nodes it is ([`Grant::uses`]). Nobody can tell from one chain whether it is one
//! too many: issuers count (`lcroute-node`), and routers bound what they keep (`lcroute-engine`).
//!
//! A label says of members that they are ephemeral ([`EPHEMERAL`]): who keeps anything of members forgets those soon.

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
    EPHEMERAL, EPHEMERAL_FORGOTTEN_AFTER, KeysAbove, MAX_PREVIOUS, Member, TokenBound, is_ephemeral,
};
pub use prefix::{GroupPrefix, SourcePrefix};
pub use text::{MAX_NAME, MAX_USES, is_node_name};
pub use token::{MAX_TOKEN, MAX_URLS, Token};
