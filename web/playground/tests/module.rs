//! Tests that the page's module computes the same results as the code on a host, bit for bit.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lcroute_playground::World;
use serde_json::{Value, json};

/// Twenty routers in five rows, in places of the unit square.
fn scenario() -> String {
    let place = |n: u32| {
        format!(
            "[{:.3}, {:.3}]",
            f64::from(n % 5) / 5.1,
            f64::from(n / 5) / 4.3
        )
    };
    let places: Vec<String> = (0..20).map(place).collect();
    format!(
        "nodes = 20\nseed = 3\n[topology]\npolicy = \"regular\"\ndegree = 6\n[limits]\nsmall_network = 0\n\
         [links.latency]\nkind = \"places\"\nside = \"31ms\"\nfloor = \"1ms\"\nplaces = [{}]\n",
        places.join(", ")
    )
}

/// The end time, the actions before it, and a stream: node, group, period.
type Step = (f64, Vec<String>, Option<(u32, &'static str, f64)>);

/// Joins, packets, a crash and a cut, and the repair of both.
fn steps() -> Vec<Step> {
    let line = |text: &str| vec![text.to_owned()];
    let join = |node| format!("join {node} ff1e::1 all");
    vec![
        (
            30_000.0,
            (0..20).map(|n| format!("start {n}")).collect(),
            None,
        ),
        (30_100.0, [3, 8, 19].map(join).into(), None),
        (30_516.7, Vec::new(), Some((11, "ff1e::1", 33.3))),
        (33_000.0, line("crash 8"), None),
        (34_000.0, line("cut 11 12"), None),
        (40_000.0, line("start 8"), None),
        (
            41_000.0,
            line("leave 3 ff1e::1"),
            Some((11, "ff1e::1", 0.0)),
        ),
        (55_000.0, line("mend 12 11"), None),
    ]
}

fn on_this_host() -> Value {
    let mut world = World::new(&scenario()).unwrap();
    let mut seen = Vec::new();
    let parse = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    for (until, lines, stream) in steps() {
        for line in lines {
            world.act(&line).unwrap();
        }
        if let Some((node, group, period)) = stream {
            world.stream(node, group, period).unwrap();
        }
        world.run_until(until);
        seen.push(parse(&world.events()));
        seen.push(parse(&world.network()));
        seen.push(parse(&world.group("ff1e::1").unwrap()));
    }
    let refused = world.act("dance 3").unwrap_err();
    json!({ "log": world.log(), "trace": world.trace(), "seen": seen, "refused": refused })
}

fn in_the_module() -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let wasm = target.join("web/playground/playground.wasm");
    assert!(
        wasm.exists(),
        "{} is missing: `make web` makes it, after `rustup target add wasm32-unknown-unknown`",
        wasm.display()
    );
    let mut node = Command::new("node")
        .arg(root.join("web/playground/tests/play.mjs"))
        .arg(root.join("web/pages/playground/module.js"))
        .arg(&wasm)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs modules outside of browsers: apt-get install nodejs");
    let play = json!({ "scenario": scenario(), "steps": steps() });
    serde_json::to_writer(node.stdin.take().unwrap(), &play).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "node: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Makes all numbers floating point, as in JavaScript.
fn unify_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => *value = json!(number.as_f64()),
        Value::Array(values) => values.iter_mut().for_each(unify_numbers),
        Value::Object(fields) => fields.values_mut().for_each(unify_numbers),
        _ => {}
    }
}

#[test]
#[ignore = "needs the module: make web"]
fn the_module_does_what_the_host_does() {
    let (mut host, mut module) = (on_this_host(), in_the_module());
    unify_numbers(&mut host);
    unify_numbers(&mut module);
    let list = |value: &Value| value.as_array().unwrap().clone();
    for (step, (here, there)) in list(&host["seen"])
        .iter()
        .zip(&list(&module["seen"]))
        .enumerate()
    {
        if let (Value::Array(here), Value::Array(there)) = (here, there) {
            let differs = here.iter().zip(there).find(|(a, b)| a != b);
            assert_eq!(differs, None, "step {}", step / 3);
        }
        assert_eq!(here, there, "step {}", step / 3);
    }
    assert_eq!(host, module);
    assert!(host["trace"].as_str().unwrap().contains("mend 12 11"));
}
