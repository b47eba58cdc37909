//! The metrics of an agent, served by `[metrics] listen`.

use std::collections::BTreeMap;

use librecast_program::metrics::Page;
use librecast_program::metrics_table;

use super::core::Agent;
use super::reasons::{Dropped, Reason, Refused};

metrics_table! {
    BUILD = gauge("lcagent_build_info", &["version"], "Always 1; the label tells the version");
    INTERFACES = gauge("lcagent_interfaces", &[], "Interfaces on which it listens");
    RECEIVED = counter("lcagent_commands_received_total", &[], "Commands for this node that were verified and read, executed or not");
    REFUSED = counter("lcagent_commands_refused_total", &["reason"], "Commands that were not executed, by reason");
    STARTED = counter("lcagent_jobs_started_total", &[], "Jobs that were begun");
    JOBS = gauge("lcagent_jobs", &["state"], "Jobs that run, and those that have ended and whose output is kept");
    DROPS = counter("lcagent_drops_total", &["reason"], "Datagrams that went no further, by reason");
}

/// Reasons for refusing commands, with their meanings.
pub const REFUSALS: &[(&str, &str)] = Refused::TABLE;

/// Reasons for dropping datagrams, with their meanings.
pub const REASONS: &[(&str, &str)] = Dropped::TABLE;

/// Returns the metrics of an agent with `interfaces` interfaces.
pub fn page(agent: &Agent, interfaces: usize) -> Page {
    let mut page = Page::of_this_process();
    page.put_with(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    page.put(&INTERFACES, interfaces as u64);
    page.put(&RECEIVED, agent.received());
    let mut counts = BTreeMap::new();
    for (reason, count) in agent.counters() {
        let name = match reason {
            Reason::Refused(reason) => reason.name(),
            Reason::Dropped(reason) => reason.name(),
        };
        counts.insert(name, *count);
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    for (reason, _) in REFUSALS {
        page.put_with(&REFUSED, &[reason], count(reason));
    }
    page.put(&STARTED, agent.begun());
    let running = agent.running();
    page.put_with(&JOBS, &["running"], running as u64);
    let ended = agent.known_jobs().saturating_sub(running);
    page.put_with(&JOBS, &["ended"], ended as u64);
    for (reason, _) in REASONS {
        page.put_with(&DROPS, &[reason], count(reason));
    }
    page
}

#[cfg(test)]
mod tests {
    use librecast_program::metrics::check;

    use super::*;

    #[test]
    fn names_keep_to_the_rules_and_reasons_are_told_apart() {
        assert_eq!(check("lcagent", TABLE), Ok(()));
        for list in [REFUSALS, REASONS] {
            assert!(list.windows(2).all(|two| two[0].0 < two[1].0));
        }
        assert!(
            REFUSALS
                .iter()
                .all(|(name, _)| REASONS.iter().all(|(other, _)| other != name))
        );
    }
}
