//! Lectures in a web page. Sessions, tracks, slides and captions are those of `lcstudio-core`, logs those of `librecast-log`; the
//! member in the same page carries datagrams, and the browser renders as its reader likes.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── attender ─┬─ Log of each track that is joined ── datagrams to send
//!                                                   ├─ View ── shown: JSON of what is shown
//!                                                   └─ notes ── updates of a CRDT, which a worker of the page reads; records for its disk
//! ```
//!
//! Everything but `page` is an ordinary library, so a test on a host runs it as a page does.

pub mod attender;
mod notes;
mod page;
mod shown;
