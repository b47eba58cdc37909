//! The network simulator: routers of `lcroute-engine` on virtual time, beside a reference model.
//!
//! [`scenario`] has the parameters; `workload` makes a script of `action`s, such as joins, packets
//! and crashes. `simulation` runs hosts (`node`) and `links` through it, in parallel shards
//! (`shard`), and checks the rules of `model` and `ledger` at every step. After a violation
//! `minimize` shortens the script and `trace` writes it down. The same scenario gives the same run,
//! bit for bit. The command line is in `lcroute-lab`. `live` is an interactive run with observable
//! events (`sight`): the playground of web pages.
//!
//! | module | content |
//! |---|---|
//! | [`scenario`], `library`, `workload`, `action` | scenario files, named ones, their scripts |
//! | `simulation`, `shard`, `crew`, `calendar`, `time` | virtual time, in shards on threads |
//! | `node`, `daemon`, `router`, `whole`, `terrain` | hosts; routers and whole nodes; terrain |
//! | `link`, `links`, `packet`, `population`, `random` | links, datagrams, keys, the seed |
//! | `model`, `ledger`, `check`, `minimize`, `trace` | rules, and scripts that break them |
//! | `run`, `live`, `sight` | a run; an interactive one, and its events |
//! | `measure`, `compare`, `audience`, `crowd` | measurements |
//! | `statistics`, `table` | counts of a run; a table of measurements |
//! | `services`, `fast` | the engine's requests to its host; hash tables that are never iterated |

#![cfg_attr(
    target_family = "wasm",
    allow(
        dead_code,
        reason = "whole nodes are missing there, and what leads to them leads nowhere"
    )
)]

mod action;
mod audience;
mod calendar;
mod check;
mod compare;
mod crew;
#[cfg(test)]
mod crowd;
mod daemon;
mod fast;
mod ledger;
pub mod library;
mod link;
mod links;
mod live;
mod measure;
mod minimize;
mod model;
mod node;
mod packet;
mod population;
mod random;
mod router;
mod run;
pub mod scenario;
mod services;
mod shard;
mod sight;
mod simulation;
mod statistics;
mod table;
mod terrain;
#[cfg(test)]
mod tests;
mod time;
mod trace;
// a page has no stack for whole nodes: there are none
#[cfg_attr(target_family = "wasm", path = "no_whole.rs")]
mod whole;
mod workload;

pub use action::{Action, SourceFilter};
pub use audience::{AudienceFigures, RouterBytes, audience, max_leaves};
pub use compare::{Comparing, Comparison, Joined, Part, compare, comparison_table};
pub use live::{GroupView, LinkView, Live};
pub use measure::{Outage, Subject, measure};
pub use model::{Rule, Violation};
pub use population::Population;
pub use run::{Outcome, explain, run_script};
pub use sight::{Sight, What};
pub use table::table;
pub use time::{At, Nanos, SECOND};
pub use trace::Trace;
pub use workload::script;
