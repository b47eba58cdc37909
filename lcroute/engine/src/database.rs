//! The link state: what every router of the network says of itself.

mod advertisement;
mod record;

pub use advertisement::{
    Advertisement, Announced, FLAG_CORE, FLAG_ISSUER, FLAG_UNICAST, MAX_LINKS, MAX_PREFIXES,
    UNKNOWN_CENTRALITY,
};
pub use record::{
    CredentialRecord, KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, MAX_REVOCATION, Record,
    RecordId, Version,
};
