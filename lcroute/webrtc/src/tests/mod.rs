//! Overlays in memory, on virtual time.

mod hidden;
mod links;
mod media;
mod membership;
mod net;
mod panics;
mod records;
mod relay;
mod repair;
mod security;
mod versions;
mod wanted;
mod wire;
