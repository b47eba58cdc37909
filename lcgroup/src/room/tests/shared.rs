//! The state that members share.

use super::*;

fn set(lan: &mut Lan, who: usize, key: &str, value: &str) {
    let time = lan.time();
    let value = Some(value.as_bytes().to_vec()).filter(|value| !value.is_empty());
    lan.room(who).set(key, value, time).unwrap();
}

/// The keys with their values on a host.
fn state(lan: &mut Lan, who: usize) -> Vec<(String, Option<String>)> {
    let shared = &lan.room(who).shared;
    let values = shared.keys().map(|key| shared.value(&key.key).unwrap());
    values.map(|value| (value.key, value.text)).collect()
}

fn is(lan: &mut Lan, who: usize, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned())))
        .collect();
    assert_eq!(state(lan, who), expected, "{who}");
}

#[test]
fn both_sides_of_a_partition_and_a_restored_copy_have_one_state_and_newcomers_get_it() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    set(&mut lan, 0, "a", "of ann");
    set(&mut lan, 1, "b", "of bob");
    set(&mut lan, 1, "gone", "x");
    lan.run(Duration::from_secs(5));
    for who in 0..3 {
        is(
            &mut lan,
            who,
            &[("a", "of ann"), ("b", "of bob"), ("gone", "x")],
        );
        assert!(lan.said(who).is_empty(), "no messages");
    }
    let copy = lan.folder.path().join("copy");
    std::fs::copy(lan.folder_of(2).join(SHARED), &copy).unwrap();
    // the last writer is the one with more changes, wherever it is
    lan.apart = vec![2];
    set(&mut lan, 0, "a", "once");
    set(&mut lan, 2, "a", "first");
    set(&mut lan, 2, "a", "twice");
    set(&mut lan, 1, "gone", "");
    lan.run(Duration::from_secs(5));
    assert_eq!(state(&mut lan, 2).len(), 3);
    lan.restart(0);
    lan.apart.clear();
    lan.run(Duration::from_secs(90));
    for who in 0..3 {
        is(&mut lan, who, &[("a", "twice"), ("b", "of bob")]);
    }
    // an older file of the state, with the log and the keys: what it lacks was its own
    lan.stop(2);
    std::fs::copy(&copy, lan.folder_of(2).join(SHARED)).unwrap();
    lan.start(2);
    lan.run(Duration::from_secs(10));
    set(&mut lan, 1, "a", "after all");
    lan.run(Duration::from_secs(5));
    for who in 0..3 {
        let all = state(&mut lan, who);
        assert!(
            all.contains(&("a".into(), Some("after all".into()))),
            "{all:?}"
        );
    }
    lan.add("dora", 0);
    lan.run(Duration::from_secs(20));
    is(&mut lan, 3, &[("a", "after all"), ("b", "of bob")]);
}

#[test]
fn a_change_from_before_a_newcomer_needs_no_decision_and_a_removed_member_sets_nothing() {
    let mut lan = Lan::new(&["ann", "bob", "cy"], None);
    lan.apart = vec![1];
    set(&mut lan, 1, "k", "v");
    lan.run(Duration::from_secs(2));
    lan.add("dora", 0);
    lan.run(Duration::from_secs(30));
    lan.apart.clear();
    lan.run(Duration::from_secs(90));
    assert!(lan.room(1).outbox().is_empty());
    for who in 0..4 {
        is(&mut lan, who, &[("k", "v")]);
    }
    lan.remove("bob", 0);
    lan.run(Duration::from_secs(5));
    let time = lan.time();
    let _ = lan.room(1).set("k", Some(b"late".to_vec()), time);
    lan.run(Duration::from_secs(5));
    for who in [0, 2, 3] {
        is(&mut lan, who, &[("k", "v")]);
    }
    let refused = lan.room(0).set("none", None, time).unwrap_err();
    assert!(refused.to_string().contains("no key"), "{refused}");
}
