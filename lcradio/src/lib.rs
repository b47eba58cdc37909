//! Live radio over multicast: the program around `lcradio-core`.
//!
//! | module | content |
//! |---|---|
//! | `cli`, `values` | the command line, values of its options |
//! | `cast`, `listen`, `stations`, `keys` | its subcommands; keys |
//! | `call` | a participant of a call |
//! | `helper` | a helper of a station in a network of its own |
//! | `network` | sockets on all interfaces |
//! | `source` | sound from files, pipes and microphones: Ogg Opus, WAV, plain samples |
//! | `icecast`, `icecast_request` | sound of programs that send to an Icecast server |
//! | `pace` | send times of a caster |
//! | `device` | microphones and loudspeakers, by ALSA |
//! | `codec` | libopus; the only unsafe code |
//! | `ogg_opus`, `ogg_pages` | Opus in Ogg: headers, packets and pages |
//! | `wav`, `encoded` | the head of a WAV file; encoded sound, which is refused as samples |
//! | `mixer` | the casters of a station as one sound |
//! | `tracks`, `recording`, `pipe` | output of sound |
//! | `archive` | sharing of a recording |
//! | `outside` | stations in a network of their own |
//! | `level` | the level of sound |
//! | `talk` | push to talk: signals, the space bar |
//! | `process` | signals, time, and dropped rights |

mod archive;
mod call;
mod cast;
mod cli;
mod codec;
mod device;
mod encoded;
mod helper;
mod icecast;
mod icecast_request;
mod keys;
mod level;
mod listen;
mod mixer;
mod network;
mod ogg_opus;
mod ogg_pages;
mod outside;
mod pace;
mod pipe;
mod process;
mod recording;
mod source;
mod stations;
mod talk;
mod tracks;
mod values;
mod wav;

pub use cli::{command, main};
