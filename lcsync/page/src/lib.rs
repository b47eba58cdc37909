//! Files of `lcsync` in web pages: receiver and server are those of hosts (`lcsync::receive`,
//! `lcsync::server`). Their datagrams come by the leaf or member in the page, and the browser keeps
//! complete files, or has the chosen ones.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ─┬─ link: words or token ── a token for the leaf
//!                                       ├─ get: beacons, then a share ── joins
//!                                       └─ files: verified blocks ── pieces of files
//!                     ── bytes ── sending ─┬─ words: new words ── a token for the member
//!                                          ├─ send: beacons, records, symbols
//!                                          └─ cutting: slices of files ── blocks
//! ```
//!
//! All modules but `page` and `sending` form an ordinary library, so a test on a host runs them like
//! a page.

pub mod cutting;
pub mod files;
pub mod get;
pub mod link;
mod page;
pub mod send;
mod sending;
pub mod words;
