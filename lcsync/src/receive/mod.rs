//! Receiving shares.
//!
//! [`core`] decides, with [`choice`] (of versions), [`assembly`] (of a [`tree`]), [`fetch`] (of
//! blocks), `stretches`, [`collector`] and `streams` (symbols), [`window`] (number of channels) and
//! `changes` (JOINs and PARTs). `network` and `transfer` do the I/O; `stats` are its figures.
//! `plan` and `finish` put everything into place, with the permissions of `modes`. `image` writes a
//! file to a device, `in_order` to a pipe. `browse` lists shares. `sent`
//! checks what comes under a code.

pub mod assembly;
#[cfg(feature = "host")]
pub(crate) mod browse;
#[cfg(feature = "host")]
pub mod changes;
pub mod choice;
pub mod collector;
pub mod core;
pub mod fetch;
#[cfg(feature = "host")]
mod finish;
#[cfg(feature = "host")]
mod image;
#[cfg(feature = "host")]
mod in_order;
#[cfg(feature = "host")]
pub(crate) mod modes;
#[cfg(feature = "host")]
mod moved;
#[cfg(feature = "host")]
mod network;
#[cfg(feature = "host")]
mod parts;
#[cfg(feature = "host")]
pub(crate) mod plan;
#[cfg(feature = "host")]
pub(crate) mod sent;
#[cfg(feature = "host")]
pub(crate) mod stats;
mod streams;
mod stretches;
#[cfg(feature = "host")]
pub(crate) mod transfer;
pub mod tree;
pub mod window;
