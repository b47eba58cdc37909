//! The daemon as its programs see it: types of the command line, pages, streams and the daemon.
//!
//! | module | content |
//! |---|---|
//! | `request`, `code`, `client` | requests, answers and sockets; a blocking client |
//! | `status` | the JSON forms of answers |
//! | `config`, `settings` | the configuration file; sources of all verbs' settings |
//! | `streams` | permissions and targets of streams |
//! | `pages`, `text` | the address of pages; texts that people exchange |
//! | `system` | signals, open files |

pub mod client;
mod code;
pub mod config;
pub mod pages;
mod request;
pub mod settings;
pub mod status;
pub mod streams;
pub mod system;
pub mod text;

pub use code::Code;
pub use request::{
    Access, Answer, GivenSecret, MAX_PING, REACH_GROUP, Request, keys_of, outside_of, reach_of,
    sign_of, view_of,
};
