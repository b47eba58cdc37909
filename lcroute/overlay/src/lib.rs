//! Links between nodes: connections to peers, and the proof of their identity.
//!
//! [`Overlay`] is a state machine without sockets and clocks: presence and sealed messages are its
//! inputs, events and sealed messages its outputs. A stack below it makes the [`Connections`].
//!
//! | module | content |
//! |---|---|
//! | `overlay`, `peer`, `parts` | all peers; the state of one; the state that they share |
//! | `presence`, `wanted`, `negotiate` | presence; wanted peers; requests, offers, answers |
//! | `session`, `envelope`, `replay`, `signal_budget` | sealed messages, repetitions, bounds |
//! | `description`, `connections` | ICE and DTLS parameters; the interface to the stack below |
//! | `link`, `link_table`, `auth` | the life of a link, and proof of identities |
//! | `server`, `proof`, `site` | messages of signalling servers; access to relays; bounds by site |
//! | `record`, `sealed`, `dht`, `places`, `leaf_places`, `straight` | signalling without a server |
//! | `text_record`, `helper_offer`, `elsewhere` | networks that a text leads to, and helpers there |
//! | `open_record` | records of open keys, on LANs and in DHTs |
//! | `attestation`, `revocations`, `trust`, `disclosure`, `suspension` | decisions about peers |
//! | `event`, `info`, `outputs`, `drops`, `config` | events, values for users, drops, bounds |
//! | `random` | nonces, ephemeral keys and jitter from the seed |

mod attestation;
mod auth;
mod config;
mod connections;
mod description;
mod dht;
mod disclosure;
mod drops;
mod elsewhere;
mod envelope;
mod event;
mod helper_offer;
mod info;
mod leaf_places;
mod link;
mod link_table;
mod negotiate;
mod open_record;
mod outputs;
mod overlay;
mod parts;
mod peer;
mod places;
mod presence;
pub mod proof;
mod random;
mod record;
mod replay;
mod revocations;
mod sealed;
pub mod server;
mod session;
mod signal_budget;
mod site;
mod straight;
mod suspension;
mod text_record;
mod trust;
mod wanted;

pub use auth::Role;
pub use config::{Identity, Limits, OverlayConfig, SPEAKS, Versions};
pub use connections::{Closing, ConnectionEvent, Connections, Path};
pub use description::{
    Candidate, CandidateKind, Description, Fingerprint, SdpKind, Section, TRACK_SSRC, TRACK_TYPES,
    credentials_of,
};
pub use disclosure::{Disclosure, Trusted};
pub use drops::DropReason;
pub use envelope::{CLOCK_DIFFERS, NO_ROOM};
pub use event::{
    CarrierId, CarrierKind, EndReason, Event, KeyConflict, NotTaken, Presence, Published,
    SendError, Sought,
};
pub use helper_offer::HelperOffer;
pub use info::{Lane, LinkInfo, PathKind, PeerInfo, PeerState, RepairInfo, Traffic};
pub use open_record::OpenRecord;
pub use overlay::Overlay;
pub use random::Random;
pub use record::{MAX_RECORD, PresenceRecord, RECORD_LIFETIME, Rendezvous, RendezvousEpochs};
pub use revocations::Revoked;
pub use site::{Site, SiteSize};
pub use text_record::{MAX_TEXT_RECORD, TEXT_LIFETIME, TextRecord};

/// The overlay itself as a carrier: messages travel over links, from node to node.
pub const OVERLAY_CARRIER: CarrierId = CarrierId(u32::MAX);
/// The user as a carrier, who pastes presence records.
pub const TEXT_CARRIER: CarrierId = CarrierId(u32::MAX - 2);
/// The carrier of sealed messages that came as datagrams from the peer.
const STRAIGHT_CARRIER: CarrierId = CarrierId(u32::MAX - 1);
/// Maximum length of a sealed message in bytes.
pub const MAX_SIGNAL: usize = 32 * 1024;

#[cfg(test)]
mod tests;
