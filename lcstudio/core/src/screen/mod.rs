//! The presenter's screen: still pictures of its changes, in two groups, without a codec's state.
//!
//! ```text
//! looks at the screen -> changes -> ScreenSender -> live group: each change once, a state each second
//!                                                -> carousel:   a whole picture and the changes since,
//!                                                               round and round
//! live group, and the carousel while something lacks -> ScreenWatch -> Change -> drawn, or stored
//! ```
//!
//! A change replaces one area, or all, and needs no other one: a lost one leaves an old area. The
//! live group names the last change each second, so a receiver knows what it lacks. It joins the
//! carousel until it has that, and leaves.

mod changed;
mod part;
mod sending;
mod watching;

pub use changed::{MAX_AREAS, changed};
pub use part::{Area, MAX_SIDE, Part, ScreenError, ScreenPacket, ScreenSpace, screen_size};
pub use sending::{NewChange, ScreenSender};
pub use watching::{ScreenChange, ScreenWatch};

#[cfg(test)]
mod tests;
