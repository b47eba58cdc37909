//! The receiving end of a media lane: a host's, and a page's, where the browser opens SRTP.
//!
//! State machines without I/O. The sending end and SRTP are in `lcroute-webrtc`.
//!
//! | module | content |
//! |---|---|
//! | `payload` | messages in packets, whole or in pieces |
//! | `feedback` | reports of arrivals |
//! | `replay` | indices of packets: windows, and extension of their low bits |
//! | `recovery` | repaired packets: once, and in time |
//! | `window_code` | symbols over the last packets, and solving for lost ones |
//! | `receiver` | all of them for one direction of a link |
//! | `track` | the lane as an RTP track into a page |

mod feedback;
mod payload;
mod receiver;
mod recovery;
mod replay;
mod track;
mod window_code;

pub use feedback::{Report, Reporter, Sample, micros};
pub use payload::{CHUNK_HEADER, MAX_PIECES, PIECE_HEADER, put_piece, put_resent, put_whole};
pub use receiver::{Fault, Receiver};
pub use replay::{INDEX_BITS, ReplayWindow, extend};
pub use track::{REPORT, TRACK_REPAIR, TrackReceiver, track_timestamp};
pub use window_code::{CODE_OVERHEAD, MAX_SOURCES, MAX_SPAN, put_symbol};
