//! Receiving shares.
//!
//! [`core`] decides, with [`choice`] (of versions), [`assembly`] (of a [`tree`]), [`fetch`] (of
//! blocks), `stretches`, [`collector`] and `streams` (symbols), [`window`] (number of channels) and
//! [`changes`] (JOINs and PARTs). `network` and `transfer` do the I/O; `stats` are its figures.
//! `plan` and `finish` put everything into place, with the permissions of `modes`. `image` writes a
//! file to a device, `in_order` to a pipe. `browse` lists shares. `sent`
//! checks what comes under a code.

pub mod assembly;
pub(crate) mod browse;
pub mod changes;
pub mod choice;
pub mod collector;
pub mod core;
pub mod fetch;
mod finish;
mod image;
mod in_order;
pub(crate) mod modes;
mod moved;
mod network;
mod parts;
pub(crate) mod plan;
pub(crate) mod sent;
pub(crate) mod stats;
mod streams;
mod stretches;
pub(crate) mod transfer;
pub mod tree;
pub mod window;
