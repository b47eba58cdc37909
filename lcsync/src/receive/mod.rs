//! Receiving shares.
//!
//! [`core`] decides, with [`choice`] (of versions), [`assembly`] (of a [`tree`]), [`fetch`] (of
//! blocks) and `changes` (JOINs and PARTs). `fetch` owns `wanted` blocks, `single` joined ones and
//! joined `stretches`, their [`collector`]s and `streams` (symbols), `sources` (trust), the last
//! record (`announced`), and the [`window`] (number of channels). `network` and `transfer` do the
//! I/O; `stats` are its figures. `plan` and `finish` put everything into place, with the
//! permissions of `modes`. `image` writes a file to a device, `in_order` and `standard_output` to
//! a pipe or terminal. `browse` lists
//! shares. `sent` checks files that come under a code.

mod announced;
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
mod single;
mod sources;
#[cfg(feature = "host")]
mod standard_output;
#[cfg(feature = "host")]
pub(crate) mod stats;
mod streams;
mod stretches;
#[cfg(feature = "host")]
pub(crate) mod transfer;
pub mod tree;
mod wanted;
pub mod window;
