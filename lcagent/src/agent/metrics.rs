//! What `[metrics] listen` shows of an agent.

use librecast_program::metrics::Page;
use librecast_program::metrics_table;

use super::core::Agent;

metrics_table! {
    BUILD = gauge("lcagent_build_info", &["version"], "Always 1; the label tells the version");
    INTERFACES = gauge("lcagent_interfaces", &[], "Interfaces on which it listens");
    RECEIVED = counter("lcagent_commands_received_total", &[], "Commands for this node that were verified and read, obeyed or not");
    REFUSED = counter("lcagent_commands_refused_total", &["reason"], "Commands that were not obeyed, by reason");
    STARTED = counter("lcagent_jobs_started_total", &[], "Jobs that were begun");
    JOBS = gauge("lcagent_jobs", &["state"], "Jobs that run, and those that have ended and whose output is kept");
    DROPS = counter("lcagent_drops_total", &["reason"], "Datagrams that went no further, by reason");
}

/// Why commands are not obeyed, and what that means.
pub const REFUSALS: &[(&str, &str)] = &[
    (
        "below_window",
        "Older than the commands that are remembered: it could be a replay.",
    ),
    (
        "certificate",
        "The operator's certificate does not count for it.",
    ),
    (
        "clock_ahead",
        "From further in the future than clocks may differ.",
    ),
    (
        "expired",
        "Its time is over: it was held up, or clocks differ.",
    ),
    ("lifetime", "Valid for longer than any command may be."),
    (
        "no_such_job",
        "It is about a job that is not known, or does not run.",
    ),
    (
        "not_started",
        "The job could not be started; the log says why.",
    ),
    (
        "not_understood",
        "A request of a kind that this version does not know.",
    ),
    ("payload_hash", "What was sent is not what was signed."),
    (
        "policy",
        "The configuration does not allow this to this key.",
    ),
    ("replayed", "It came before."),
    ("revoked", "By a key that was revoked."),
    ("sealed", "It asks in the open for what was sealed."),
    ("selector", "The nodes it is for cannot be understood."),
    ("signature", "A forged signature."),
    ("still_runs", "It asks for the result of a job that runs."),
    (
        "too_many_forged",
        "Too many signatures of its source, or of all, did not verify of late: it is not looked at.",
    ),
    ("too_many_jobs", "As many jobs run as may."),
    ("too_many_keys", "More operators than are remembered."),
    ("too_many_revoked", "More revoked keys than are remembered."),
    (
        "unknown_key",
        "By a key that the configuration does not name.",
    ),
];

/// Why datagrams are dropped, and what that means.
pub const REASONS: &[(&str, &str)] = &[
    (
        "answers_evicted",
        "Answers that nobody fetched made room for newer ones.",
    ),
    ("malformed", "It cannot be read."),
    (
        "not_kept_open",
        "A command that is not told to nodes that come up later: there is no room.",
    ),
    ("too_long", "Longer than any command."),
    (
        "too_many_payloads",
        "More commands in several datagrams at a time than are collected.",
    ),
    ("unreadable", "An acknowledgement that cannot be read."),
];

/// The figures of an agent that listens on so many interfaces.
pub fn page(agent: &Agent, interfaces: usize) -> Page {
    let mut page = Page::of_this_process();
    page.put_with(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    page.put(&INTERFACES, interfaces as u64);
    page.put(&RECEIVED, agent.received());
    let counters = agent.counters();
    debug_assert!(
        counters.keys().all(|name| {
            let mut known = REFUSALS.iter().chain(REASONS);
            known.any(|(known, _)| known == name)
        }),
        "{counters:?}"
    );
    let count = |name: &str| counters.get(name).copied().unwrap_or(0);
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
