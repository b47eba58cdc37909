//! Lectures over multicast that each listener renders: the program around `lcstudio-core`.
//!
//! | module | content |
//! |---|---|
//! | `cli` | the command line |
//! | `present`, `invite`, `attend`, `caption`, `screen`, `camera`, `watch`, `notes`, `hold`, `export`, `keys` | its verbs |
//! | `outside` | sessions in a network of their own |
//! | `folder` | the folder of a session |
//! | `followed` | a session's index, for `screen`, `camera` and `watch` |
//! | `tracks` | logs of tracks: files, sockets, time |
//! | `input`, `said` | lines of standard input; lines of standard output, and hints |
//! | `waiting` | explanations of long waits |
//! | `stills` | pictures of a pipe, for `screen` |
//! | `canvas` | a screen as it is drawn from its changes, for `watch` |
//! | `kept_screen`, `kept_camera` | files of a screen and a camera, for `hold` |
//! | `webm` | files of WebM |
//! | `sound` | lcradio, which plays or records the sound of a session |

mod attend;
mod camera;
mod canvas;
mod caption;
mod cli;
mod export;
mod folder;
mod followed;
mod hold;
mod input;
mod invite;
mod kept_camera;
mod kept_screen;
mod keys;
mod notes;
mod outside;
mod present;
mod said;
mod screen;
mod sound;
mod stills;
mod tracks;
mod waiting;
mod watch;
mod webm;

pub use cli::{command, main};
