//! Lectures in a web page. Sessions, tracks, slides and captions are those of `lcstudio-core`, logs those of `librecast-log`; the
//! member in the same page carries datagrams, and the browser renders as its reader likes.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── attender ─┬─ Log of each track that is joined ── datagrams to send
//!                                                   ├─ View ── shown: JSON of what is shown
//!                                                   └─ notes ── updates of a CRDT, which a worker of the page reads; records for its disk
//!   page ── bytes ── presenter_page ── presenter ─┬─ Log of each track ── disk ── records for the page's disk, then datagrams to send
//!                                                 └─ Presenting ── JSON of what is shown
//! ```
//!
//! Everything but `page` and `presenter_page` is an ordinary library, so a test on a host runs it as a page does.

pub mod attender;
mod disk;
mod notes;
mod page;
pub mod presenter;
mod presenter_page;
mod shown;
