//! Live radio in a web page. Stations, packets and the buffer are those of `lcradio-core`; the browser encodes, decodes and plays
//! (WebCodecs, Web Audio), and the member in the same page carries datagrams.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── radio ─┬─ Directory: who announced himself
//!                                                ├─ tuned: Listener, Playout ── frames to decode
//!                                                └─ casting: Caster ── datagrams to send
//! ```
//!
//! Everything but `page` is an ordinary library, so a test on a host runs it as a page does.

pub mod casting;
pub mod frame;
mod page;
pub mod radio;
pub mod tuned;
