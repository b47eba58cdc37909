//! Live radio in a web page. Stations, packets and the buffer are those of `lcradio-core`; the
//! browser encodes, decodes and plays (WebCodecs, Web Audio); the page's member carries datagrams.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── radio ─┬─ Directory: announced stations
//!                                                ├─ listening: TunedStation, Playout
//!                                                └─ casting: Caster ── datagrams to send
//!   Worker (JavaScript) ── bytes ── call_page ── calling: Call, Playout ── datagrams to send
//! ```
//!
//! All modules but `page` and `call_page` form an ordinary library, so a test on a host runs them
//! like a page.

mod call_page;
pub mod calling;
pub mod casting;
pub mod frame;
pub mod listening;
mod page;
pub mod radio;
