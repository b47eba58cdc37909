//! Tests of whole runs.

use std::sync::Arc;

use proptest::test_runner::Config;

use crate::library;
use crate::model::Rule;
use crate::population::Population;
use crate::run::{Outcome, explain, run_script};
use crate::scenario::{Defect, Policy, Scenario, Span};
use crate::trace::Trace;
use crate::workload;

fn named(name: &str, nodes: u32, seed: u64) -> Scenario {
    Scenario {
        nodes,
        seed,
        ..library::find(name).unwrap()
    }
}

fn run(scenario: Scenario) -> Outcome {
    run_on(1, scenario)
}

fn run_on(threads: usize, scenario: Scenario) -> Outcome {
    let population = Arc::new(Population::of(&scenario));
    let script = workload::script(&scenario);
    run_script(
        &Arc::new(scenario),
        &population,
        script,
        None,
        threads,
        &mut |_, _| (),
    )
}

/// Runs a scenario; panics with a trace if a rule is broken.
fn holds(scenario: Scenario) -> Outcome {
    let outcome = run(scenario.clone());
    if outcome.violation.is_some() {
        let population = Arc::new(Population::of(&scenario));
        let script = workload::script(&scenario);
        let trace = explain(&Arc::new(scenario), &population, &script, &outcome);
        let trace = trace.map(|t| t.to_toml()).unwrap_or_default();
        panic!("{:?}\n{trace}", outcome.violation);
    }
    outcome
}

/// The same with the least time before the final check, for runs that are only compared.
fn hasty(scenario: Scenario) -> Scenario {
    Scenario {
        settle: Span::seconds(20),
        ..scenario
    }
}

#[test]
fn the_same_seed_gives_the_same_run_bit_for_bit() {
    let run = |seed| run(hasty(named("bad-day", 12, seed)));
    let outcome = run(5);
    assert!(outcome.statistics.events > 10_000, "{outcome:?}");
    assert_eq!(run(5), outcome);
    assert_ne!(run(6).log, outcome.log);
}

#[test]
fn threads_make_no_difference() {
    let scenario = Scenario {
        duration: Span::seconds(30),
        ..hasty(named("bad-day", 30, 3))
    };
    let one = run(scenario.clone());
    for threads in [2, 3] {
        assert_eq!(run_on(threads, scenario.clone()), one);
    }
}

/// Whether all seeds run, and not some of them: as many cases of property tests as in `make test-all`.
fn is_thorough() -> bool {
    Config::default().cases >= 256
}

#[test]
fn every_scenario_holds_with_several_seeds() {
    let every = if is_thorough() { 1 } else { 2 };
    // the longest test by far: a thread for each seed
    std::thread::scope(|scope| {
        for seed in (1..=4).step_by(every) {
            scope.spawn(move || every_scenario_holds(seed));
        }
    });
}

fn every_scenario_holds(seed: u64) {
    let nodes = 2 + seed as u32 * 4;
    // scenarios of whole nodes cost more than all others, and have tests of their own below
    let runs =
        |name: &str, scenario: &Scenario| name != "busy-hour" && (is_thorough() || !scenario.whole);
    for (name, _) in library::all().iter().filter(|(name, all)| runs(name, all)) {
        let outcome = holds(named(name, nodes, seed));
        let s = outcome.statistics;
        let of = format!("{name}, {nodes} nodes, seed {seed}");
        assert!(s.delivered > 50, "{of}: the programs were idle: {s:?}");
        assert!(s.required > 20, "{of}: the rules were idle: {s:?}");
    }
}

/// Each death divides the tree but not the fractal: the rules hold in both.
#[test]
fn every_rule_holds_in_trees_and_fractals() {
    for policy in [Policy::Tree, Policy::Fractal] {
        // with some of them, too, each name has its turn
        for seed in (1..=20).step_by(if is_thorough() { 1 } else { 4 }) {
            let name = ["bad-day", "churn", "mass-death"][seed as usize % 3];
            let mut scenario = Scenario {
                duration: Span::seconds(30),
                ..named(name, 8 + seed as u32, seed)
            };
            scenario.topology.policy = policy;
            println!("{policy}, {name}, seed {seed}");
            let s = holds(scenario).statistics;
            assert!(s.delivered > 50 && s.required > 20, "{s:?}");
        }
    }
}

#[test]
#[ignore = "long: `make test-all`"]
fn two_hundred_nodes_hold() {
    let mut scenario = Scenario {
        starts: Span::seconds(1),
        duration: Span::seconds(30),
        ..named("churn", 200, 1)
    };
    // flooding costs the square of the degree; tests are not optimized
    scenario.topology.degree = 4;
    scenario.churn.restarts_per_node_hour = 12.0;
    scenario.churn.away = Span::seconds(5);
    let s = holds(scenario).statistics;
    assert!(
        s.stops >= 5 && s.links_broken >= 5 && s.required > 1_000,
        "{s:?}"
    );
}

/// In the final check each node sends its first packet at the same moment.
#[test]
fn all_are_heard_though_all_begin_at_once() {
    let s = holds(Scenario {
        duration: Span::seconds(20),
        settle: Span::seconds(120),
        leave: false,
        ..named("discovery", 60, 1)
    });
    assert!(s.statistics.required >= 60 * 59, "{:?}", s.statistics);
}

#[test]
fn the_bad_day_is_bad() {
    let s = holds(named("bad-day", 16, 3)).statistics;
    assert!(
        s.stops >= 5 && s.links_broken >= 20 && s.lost >= 100,
        "{s:?}"
    );
}

/// Asserts that the checks find a defect, and that the trace reproduces it.
fn is_found(defect: Defect, rules: &[Rule]) {
    let scenario = Arc::new(Scenario {
        defect: Some(defect),
        duration: Span::seconds(30),
        ..named("chat", 6, 1)
    });
    let population = Arc::new(Population::of(&scenario));
    let script = workload::script(&scenario);
    let outcome = run(Scenario::clone(&scenario));
    let violation = outcome.violation.clone().expect("the defect is found");
    assert!(rules.contains(&violation.rule), "{violation:?}");
    let trace = explain(&scenario, &population, &script, &outcome).expect("it is explained");
    let text = trace.to_toml();
    let read = Trace::parse("trace.toml", &text).unwrap();
    let (short, until) = (read.script().unwrap(), read.until().ok());
    assert!(
        short.len() * 2 < script.len(),
        "{} of {}\n{text}",
        short.len(),
        script.len()
    );
    let again = run_script(
        &Arc::new(read.scenario),
        &population,
        short,
        until,
        1,
        &mut |_, _| (),
    );
    assert_eq!(again.violation.expect("it replays").rule, violation.rule);
}

#[test]
fn a_double_delivery_is_found() {
    is_found(Defect::DoubleDelivery, &[Rule::DeliveredTwice]);
}

#[test]
fn a_packet_that_goes_three_times_over_a_link_is_found() {
    is_found(Defect::Echo, &[Rule::Loop]);
}

#[test]
fn lost_control_messages_are_found() {
    is_found(
        Defect::LostControl,
        &[Rule::Missed, Rule::Leftover, Rule::Protocol],
    );
}

fn whole(name: &str, nodes: u32, seed: u64) -> Scenario {
    Scenario {
        whole: true,
        ..named(name, nodes, seed)
    }
}

#[test]
fn the_same_seed_gives_whole_nodes_the_same_run_too() {
    for name in ["churn", "bad-links"] {
        let run = |seed| run(hasty(whole(name, 6, seed)));
        let outcome = run(5);
        assert!(outcome.statistics.events > 5_000, "{outcome:?}");
        assert_eq!(run(5), outcome, "{name}");
        assert_ne!(run(6).log, outcome.log);
    }
}

#[test]
fn whole_nodes_hold_as_routers_do() {
    for name in ["zipf", "lcsync", "churn", "partition"] {
        let s = holds(whole(name, 6, 2)).statistics;
        assert!(s.links_made >= 15 && s.required > 100, "{name}: {s:?}");
    }
}

#[test]
fn whole_nodes_find_each_other_over_bad_links() {
    for (nodes, seed) in [(6, 1), (14, 2)] {
        let s = holds(whole("bad-links", nodes, seed)).statistics;
        assert!(s.lost > 1_000 && s.links_broken > 5, "{s:?}");
        assert!(s.required > 50 && s.delivered > 1_000, "{s:?}");
    }
}

/// Members renew in time; nodes that were away too long, or expelled, get no link.
#[test]
fn certificates_are_renewed_and_their_end_counts() {
    let scenario = whole("certificates", 8, 1);
    let away = (scenario.nodes as f64 * 0.2).round() as u64;
    let s = holds(scenario.clone()).statistics;
    // two came back too late, and did not start
    assert_eq!((s.starts, s.stops), (8, away), "{s:?}");
    assert!(s.required > 5_000, "{s:?}");
    // without renewal all certificates would expire
    let end = crate::scenario::Event::Clocks {
        at: Span::seconds(5),
        by: Span::seconds(32 * 86_400),
    };
    let s = run(Scenario {
        duration: Span::seconds(60),
        events: vec![end],
        ..scenario
    });
    assert_eq!(s.violation, None);
    assert!(s.statistics.links_broken >= 28, "{:?}", s.statistics);
}

/// Expels nodes while the network is in two pieces and some nodes are away. All members learn the
/// new epoch, the expelled nodes do not (`Rule::Epoch`).
#[test]
fn members_on_both_sides_of_a_partition_learn_the_new_epoch_and_the_expelled_do_not() {
    use crate::scenario::Event;
    let at = Span::seconds;
    for seed in 1..=if is_thorough() { 2 } else { 1 } {
        let mut scenario = whole("partition", 9, seed);
        scenario.duration = at(200);
        // it ends before the rule for links with expelled nodes applies
        let lasts = at(18);
        scenario.events = vec![
            Event::Absence {
                at: at(10),
                share: 0.25,
                lasts: at(80),
            },
            Event::Partition {
                at: at(15),
                share: 0.5,
                lasts,
            },
            Event::Revoke {
                at: at(30),
                share: 0.25,
            },
            Event::Revoke {
                at: at(110),
                share: 0.15,
            },
        ];
        let outcome = holds(scenario);
        assert!(!outcome.expelled.is_empty(), "seed {seed}");
        assert!(outcome.statistics.starts > 9, "seed {seed}");
    }
}

/// All nodes that fit the token's bound stay members while nodes, including the issuer, restart.
#[test]
fn a_token_for_as_many_nodes_as_there_are_expels_none() {
    let token = |nodes: u32, uses| {
        let mut scenario = whole("churn", nodes, 3);
        scenario.certificates.token = Some(uses);
        scenario.churn.restarts_per_node_hour = 100.0;
        scenario
    };
    let all = holds(token(6, 5));
    assert!(all.statistics.starts > 10, "{:?}", all.statistics);
    assert_eq!(all.expelled.len(), 0);
    // and nodes beyond the bound lose their links
    let beyond = holds(token(8, 5));
    assert_eq!(beyond.expelled.len(), 2, "{:?}", beyond.statistics);
}

/// Nodes restart, and a third dies: live members stay known, and dead ones leave no state.
#[test]
fn ephemeral_members_are_forgotten_when_they_have_gone_and_not_before() {
    let ephemeral = |ephemeral, settle| {
        let mut scenario = whole("churn", 9, 3);
        scenario.certificates.token = Some(8);
        scenario.certificates.ephemeral = ephemeral;
        scenario.churn.restarts_per_node_hour = 100.0;
        scenario.settle = Span::seconds(settle);
        scenario.events = vec![crate::scenario::Event::Kill {
            at: Span::seconds(20),
            share: 0.34,
        }];
        scenario
    };
    let s = holds(ephemeral(true, 400)).statistics;
    assert!(s.starts > 10 && s.stops >= 3, "{s:?}");
    // a minute before they are forgotten, the rule finds them
    let early = run(ephemeral(true, 240)).violation;
    assert_eq!(early.map(|v| v.rule), Some(Rule::Leftover));
}

#[test]
fn defects_of_whole_nodes_are_found() {
    let scenario = Scenario {
        defect: Some(Defect::DoubleDelivery),
        duration: Span::seconds(30),
        ..whole("chat", 6, 1)
    };
    let violation = run(scenario).violation.expect("the defect is found");
    assert_eq!(violation.rule, Rule::DeliveredTwice);
}
