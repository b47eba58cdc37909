//! The presenter's camera: moving pictures in layers, each of which is a group.
//!
//! ```text
//! frames of VP8 -> CameraSender -> base:   frames on which later ones depend, a state each second
//!                               -> repair: parity of each frame of base, 40 ms later
//!                               -> smooth: frames on which none depends
//! frames of a larger picture    -> large, and repair of large
//! joined groups -> CameraWatch -> CameraFrame -> a player, or a file
//!                  Layers chooses the groups by loss: down at once, up slowly
//! ```
//!
//! Nothing here decodes pictures. It reads headers: [`Vp8`] names the size of a key frame, and
//! whether later frames depend on a frame.

mod ivf;
mod layers;
mod packet;
mod sending;
mod stream;
mod vp8;
mod watching;

pub use ivf::{IVF_FRAME_HEADER, IVF_HEADER, Ivf, IvfError, ivf_frame, ivf_header};
pub use layers::{CameraSize, Layer, Layers};
pub use packet::{CameraPacket, CameraSpace, MAX_FRAME, Piece};
pub use sending::{CameraError, CameraSender};
pub use stream::CameraFrame;
pub use vp8::{MAX_CAMERA_SIDE, Vp8, Vp8Error, Vp8Layers};
pub use watching::CameraWatch;

#[cfg(test)]
mod tests;
