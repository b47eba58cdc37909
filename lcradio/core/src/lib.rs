//! Live radio, without I/O and without a codec: stations, casters and listeners.
//!
//! A station is a key ([`StationKey`]). A caster sends Opus (RTP) to a group that follows from the
//! key, and each second a signed [`Beacon`]. A listener has the station's text ([`Station`]).
//!
//! ```text
//! Opus -> Caster -> packets, copies, beacons, announcements -> the network
//! the network -> Listener -> SoundPacket -> Playout -> Frame -> decoder
//!                                        -> Order -> Piece -> recording
//! announcements -> Directory
//! ```
//!
//! # Limits
//!
//! Packets are not signed. On a bare LAN, holders of the read key (on a public station, any host)
//! can send sound in the caster's name, but not forge beacons. `lc0` has no forged sources.
//!
//! # Modules
//!
//! | module | content |
//! |---|---|
//! | `station`, `grant` | keys, groups, the text of a station; further casters |
//! | `clock`, `answers`, `follow` | the caster's clock: messages and estimate; answers of casters; listeners that follow it |
//! | `rtp`, `srtp`, `rtcp`, `opus` | packets on the wire |
//! | `beacon` | a station's description of itself |
//! | `sap`, `sdp`, `directory` | announcements, and announced stations |
//! | `caster`, `listener` | packets to send and their times; packets accepted as the station's |
//! | `call`, `speaking` | a participant of a call: its place, the others; who speaks |
//! | `tuned` | a listener with its groups, and the casters on air |
//! | `loss` | lost packets, and need for the copy |
//! | `ogg_writer` | a stream of Ogg Opus |
//! | `playout`, `step`, `order` | of one caster, the next frame to play, also in step; the next piece to record |
//! | `resample` | sound of one clock for a player with another |

mod answers;
mod beacon;
mod call;
mod caster;
mod clock;
mod directory;
mod drops;
mod follow;
mod grant;
mod listener;
mod loss;
mod ogg_writer;
mod opus;
mod order;
mod packet;
mod playout;
mod resample;
mod rtcp;
mod rtp;
mod sap;
mod sdp;
mod speaking;
mod srtp;
mod station;
mod step;
mod tuned;

pub use beacon::{Beacon, BeaconError, MAX_TEXT, Profile, SessionId, is_showable, showable};
pub use call::{Call, CallConfig, CallEvent, CallKey, Participant, Quality, Standing};
pub use caster::{BEACON_INTERVAL, COPY_DELAY, Caster, CasterConfig, MAX_PAYLOAD, Transmit};
pub use directory::{Directory, Entry, MAX_SHOWN, MAX_SIGNED, MAX_UNSIGNED};
pub use drops::DropReason;
pub use follow::{Aim, Following};
pub use grant::{Grant, GrantError};
pub use listener::{Channel, Event, Listener, MAX_CASTERS, Tuned};
pub use loss::LossCount;
pub use ogg_writer::{OPUS_HEAD, OPUS_TAGS, OggWriter, opus_head, opus_tags};
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
pub use speaking::Speaking;
pub use srtp::{Cipher, MAX_INDEX, NotOpened, TAG};
pub use station::{BEACON_PORT, ClockGroups, MEDIA_PORT, REPORT_PORT, Station, StationKey};
pub use step::StepState;
pub use tuned::{OnAir, Reception, TunedStation};
