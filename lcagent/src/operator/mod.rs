//! The operator's side: [`core`] decides, with [`assembly`] (a node's answer put together).
//!
//! Around it: [`shell`] (sockets and time), [`known`] (nodes that were met), [`rolling`] (one group of them
//! after the other), [`mod@print`] (what the user sees).

pub mod assembly;
pub mod core;
pub mod known;
pub mod print;
pub mod rolling;
pub mod shell;
