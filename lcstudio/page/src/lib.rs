//! Lectures in a web page. Sessions, tracks, slides and captions are those of `lcstudio-core`, logs
//! those of `librecast-log`. The page's member carries datagrams, and its browser renders.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ── attender ─┬─ Log of each joined track ── datagrams
//!                                                   ├─ screen ── changes of the presenter's screen
//!                                                   ├─ camera ── frames of the presenter's camera
//!                                                   ├─ View ── shown: JSON of the view
//!                                                   └─ notes ── updates for a worker; records
//!   page ── bytes ── presenter_page ── presenter ─┬─ Log of each track ── records, datagrams
//!                                                 ├─ showing ── areas to encode, datagrams
//!                                                 ├─ filming ── frames of the camera, datagrams
//!                                                 └─ Presenting ── JSON of the view
//! ```
//!
//! All modules except `page` and `presenter_page` are an ordinary library; tests run it on hosts.

pub mod attender;
mod camera;
mod disk;
mod filming;
mod following;
mod notes;
mod page;
pub mod presenter;
mod presenter_page;
mod screen;
mod showing;
mod shown;
