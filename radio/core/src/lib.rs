//! Live radio, without I/O and without a codec: stations, what a caster sends, what a listener takes and plays.
//!
//! A station is a key ([`StationKey`]). Who casts sends packets of Opus (RTP) to a multicast group that follows from the key,
//! and each second a signed [`Beacon`]. Who listens has the station's text ([`Station`]).
//!
//! ```text
//! Opus -> Caster -> packets, copies, beacons, announcements -> the network
//! the network -> Listener -> SoundPacket -> Playout -> Frame -> decoder
//!                                        -> Order -> Piece -> recording
//! announcements -> Directory
//! ```
//!
//! # What it does not do
//!
//! A packet is not signed. On `lc0` no member can send under another's address; on a bare LAN who has the read key of a
//! private station, and on a public one everybody, can send sound in the caster's name. Beacons cannot be forged.
//!
//! # Modules
//!
//! | module | what it holds |
//! |---|---|
//! | `station`, `grant` | keys, groups, the text of a station; who else may cast for it |
//! | `rtp`, `srtp`, `rtcp`, `opus` | packets on the wire |
//! | `beacon` | what a station says of itself |
//! | `sap`, `sdp`, `directory` | announcements, and who announced himself |
//! | `caster`, `listener` | what is sent when; what is taken for the station's sound |
//! | `loss` | what was lost, and whether the copy is wanted |
//! | `playout`, `order` | of one caster, what is played next; what is recorded next |
//! | `resample` | sound of one clock for a player with another |

mod beacon;
mod caster;
mod directory;
mod drops;
mod grant;
mod listener;
mod loss;
mod opus;
mod order;
mod packet;
mod playout;
mod resample;
mod rtcp;
mod rtp;
mod sap;
mod sdp;
mod srtp;
mod station;

pub use beacon::{Beacon, BeaconError, MAX_TEXT, Profile, SessionId, is_showable, showable};
pub use caster::{BEACON_INTERVAL, COPY_DELAY, Caster, CasterConfig, MAX_PAYLOAD, Transmit};
pub use directory::{Directory, Entry, MAX_SHOWN, MAX_SIGNED, MAX_UNSIGNED};
pub use drops::DropReason;
pub use grant::{Grant, GrantError};
pub use listener::{Channel, Event, Listener, MAX_CASTERS, Tuned};
pub use loss::LossCount;
pub use opus::{MAX_SAMPLES, samples};
pub use order::{Order, Piece, WAIT};
pub use packet::SoundPacket;
pub use playout::{FRAME, Frame, Latency, MAX_BUFFERED, Playout, PlayoutStats};
pub use resample::Resampler;
pub use rtcp::REPORT_INTERVAL;
pub use rtp::{
    CLOCK_RATE, HEADER, MAX_PACKET, PAYLOAD_TYPE, RtpHeader, extend_sequence, extend_timestamp,
};
pub use sap::{ANNOUNCE_INTERVAL, Announcement, SAP_GROUP, SAP_PORT};
pub use sdp::{Description, MAX_SDP, SdpError, describe, read as read_description};
pub use srtp::{Cipher, MAX_INDEX, NotOpened, TAG};
pub use station::{BEACON_PORT, MEDIA_PORT, REPORT_PORT, Station, StationKey};
