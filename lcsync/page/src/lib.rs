//! Files of `lcsync` in a web page: the receiver is that of hosts (`lcsync::receive`), its
//! datagrams come by the leaf in the page, and the browser keeps complete files.
//!
//! ```text
//!   page (JavaScript) ── bytes ── page ─┬─ link: words or token ── a token for the leaf
//!                                       ├─ get: beacons, then a share ── joins
//!                                       └─ files: verified blocks ── pieces of files
//! ```
//!
//! All modules but `page` form an ordinary library, so a test on a host runs them like a page.

pub mod files;
pub mod get;
pub mod link;
mod page;
