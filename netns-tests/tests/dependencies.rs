//! Permitted dependencies between crates (docs/architecture.md), compared with the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// All of our crates that a crate reaches, by any kind of dependency. `+` stands for another crate
/// with all that it reaches.
const REACHES: &str = "
librecast:
librecast-c: librecast
librecast-program: librecast
librecast-log: librecast
lcroute-engine: librecast
lcroute-overlay: librecast
lcroute-lane: librecast
rtc-dtls:
lcroute-webrtc: librecast lcroute-lane lcroute-overlay rtc-dtls
lcroute-node: librecast lcroute-engine lcroute-overlay
lcroute-tls:
lcroute-signalling: +lcroute-webrtc lcroute-tls
lcroute-netlink:
lcroute-mapping: lcroute-netlink librecast
lcroute-control: +lcroute-node librecast-program
lcroute-sim: +lcroute-node lcroute-lane lcroute-webrtc rtc-dtls
lcroute-playground: +lcroute-sim
lcroute-web: +lcroute-control lcroute-tls lcradio-core
lcroute-streams: +lcroute-control
lcroute-outside: +lcroute-signalling +lcroute-mapping librecast-program
lcroute-reach: librecast librecast-program
lcgroup-core: librecast
lcgroup: lcgroup-core librecast librecast-log librecast-log-host librecast-program
lcradio-core: librecast
lcradio: lcradio-core librecast librecast-program
lcroute-web-page: librecast
lcroute-web-radio: lcradio-core lcroute-web-page librecast
lcstudio-core: librecast librecast-log
lcstudio: lcradio-core lcstudio-core librecast librecast-log librecast-log-host librecast-program
lcstudio-notes: lcstudio-core librecast librecast-log librecast-program
lcroute-web-studio: lcroute-web-page lcstudio-core librecast librecast-log
lcsync: librecast librecast-program
lcagent: librecast librecast-program
";

/// Crates of ours that others must not reach, as the beginnings of their names. A newcomer waits for
/// all that the demo knows.
const UNKNOWN_TO: &str = "
lcroute: lcroute-sim lcroute-demo lcroute-lab lcsync lcagent
lcroute-demo: lcroute-sim lcroute-streams lcroute-web
lcroute lcroute-lab lcsync lcagent: lcgroup lcstudio
lcgroup lcradio: lcstudio
";

/// Crates that only these crates reach.
const KNOWN_TO: &str = "
lcroute-web: lcroute-lab netns-tests packaging-generate
lcroute-lab: netns-tests packaging-generate
netns-tests packaging-generate lcstudio-notes:
";

/// Crates that builds must not contain: sockets, kernel and runtime in cores, QUIC, DHT, MLS, codecs.
const BUILT_WITHOUT: &str = "
lcroute-engine lcroute-overlay lcroute-lane lcroute-node librecast-log lcgroup-core lcradio-core lcstudio-core: \
tokio mio async-io socket2 nix rustix quinn-udp rtc rtnetlink netlink-sys
lcroute-webrtc: tokio mio quinn-udp
lcroute-streams: rtc
lcroute lcroute-web lcsync lcagent lcroute-outside: quinn
lcroute lcroute-lab lcroute-streams lcroute-web lcsync: n0-mainline
lcroute lcroute-lab lcsync lcagent: mls-rs
lcroute lcroute-lab lcroute-web lcsync lcagent lcgroup: opusic-sys alsa
lcstudio: loro
lcroute-web-get: librecast-program aws-lc-rs clap nix rustix
";

/// The same for pages, which hand in randomness.
const PAGES_WITHOUT: &str = "
lcroute-node librecast-log lcradio-core lcstudio-core lcroute-web-get lcroute-playground: getrandom
lcroute-playground: rtc aws-lc-rs nix
";

/// Returns the rows of a table: for each crate in front the crates behind.
fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    rows.flat_map(|(names, others)| {
        let others: Vec<_> = others.split_whitespace().collect();
        names
            .split_whitespace()
            .map(move |name| (name, others.clone()))
    })
}

/// Returns cargo's output for this workspace; cargo may fetch crates of other targets.
fn cargo(args: &[&str]) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.ancestors().nth(2).unwrap();
    let out = Command::new(env!("CARGO"))
        .args(args)
        .arg("--locked")
        .current_dir(workspace)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "cargo {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Returns our crates, each with those of ours that it reaches, by any kind of dependency.
fn ours() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<String> = packages.iter().map(|p| text(&p["name"])).collect();
    let mut reached: BTreeMap<String, BTreeSet<String>> = packages
        .iter()
        .map(|p| {
            let direct = p["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .map(|d| text(&d["name"]));
            (
                text(&p["name"]),
                direct.filter(|name| names.contains(name)).collect(),
            )
        })
        .collect();
    // as many rounds as crates are enough for the transitive closure
    for _ in 0..names.len() {
        for name in &names {
            let further: BTreeSet<String> = reached[name]
                .iter()
                .flat_map(|direct| reached[direct].clone())
                .collect();
            reached.get_mut(name).unwrap().extend(further);
        }
    }
    reached
}

/// Returns the names of all crates of a build of `package`, with further arguments of `cargo tree`.
fn built_from(package: &str, arguments: &[&str]) -> BTreeSet<String> {
    let tree = [
        "tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}",
    ];
    let tree = cargo(&[&tree, arguments].concat());
    let names: BTreeSet<String> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(
        names.contains(package),
        "cargo tree did not name {package} itself: {tree}"
    );
    names
}

#[test]
fn each_crate_reaches_the_crates_of_its_row() {
    let ours = ours();
    for (name, others) in rows(REACHES) {
        let mut expected = BTreeSet::new();
        for other in others {
            let whole = other.strip_prefix('+');
            expected.insert(whole.unwrap_or(other).to_owned());
            expected.extend(whole.iter().flat_map(|whole| ours[*whole].clone()));
        }
        assert_eq!(ours[name], expected, "{name}");
    }
}

/// A registry refuses a dependency without a version, and a crate without description, licence or
/// repository. A patched crate would be another one there.
#[test]
fn a_registry_takes_the_library_and_the_entry_log() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let published: Vec<_> = packages.iter().filter(|p| p["publish"].is_null()).collect();
    let mut names: Vec<_> = published
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["librecast", "librecast-log"]);
    for package in &published {
        let name = package["name"].as_str().unwrap();
        for field in ["description", "license", "repository", "rust_version"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let (other, version) = (&dependency["name"], &dependency["req"]);
            assert_ne!(version, "*", "{name} depends on {other}");
            if dependency["path"].is_string() {
                let own = format!("^{}", package["version"].as_str().unwrap());
                assert!(names.contains(&other.as_str().unwrap()), "{name}: {other}");
                assert_eq!(version.as_str(), Some(own.as_str()), "{name}: {other}");
            }
        }
        let built = built_from(name, &[]);
        for patched in ["im", "rtc-dtls", "socket-pktinfo"] {
            assert!(!built.contains(patched), "{name} has {patched} in it");
        }
    }
}

#[test]
fn programs_do_not_know_each_other_and_nothing_depends_on_the_tests() {
    let ours = ours();
    for (name, others) in rows(UNKNOWN_TO) {
        for other in others {
            let parts = format!("{other}-");
            let known = |known: &&String| *known == other || known.starts_with(&parts);
            assert_eq!(ours[name].iter().find(known), None, "{name} depends on it");
        }
    }
    for (name, knowing) in rows(KNOWN_TO) {
        for (other, reached) in &ours {
            let may = knowing.contains(&other.as_str());
            assert!(may || !reached.contains(name), "{other} depends on {name}");
        }
    }
}

#[test]
fn builds_and_pages_contain_no_crate_that_they_must_not() {
    let (host, page): (&[&str], &[&str]) = (&[], &["--target", "wasm32-unknown-unknown"]);
    for (table, target) in [(BUILT_WITHOUT, host), (PAGES_WITHOUT, page)] {
        for (name, forbidden) in rows(table) {
            let crates = built_from(name, target);
            let found: Vec<_> = forbidden.iter().filter(|f| crates.contains(**f)).collect();
            assert!(found.is_empty(), "{name} depends on {found:?}");
        }
    }
}

#[test]
fn programs_carry_no_tables_that_they_never_ask() {
    for program in ["lcroute", "lcsync", "lcagent"] {
        let crates = built_from(program, &[]);
        // For host names in other scripts, in URLs that only rtc reads: `idna` takes the tables
        // from its adapter, of which Cargo.lock has version 1.0, without tables. To restore that
        // after an update: cargo update -p idna_adapter --precise 1.0.0
        let unicode = crates.iter().find(|name| name.starts_with("icu_"));
        assert_eq!(unicode, None, "{program} carries tables of Unicode");
        // lcsync's patterns of names become regular expressions, without tables
        let regular = crates.iter().any(|name| name.starts_with("regex"));
        assert_eq!(
            regular,
            program == "lcsync",
            "{program}: regular expressions"
        );
    }
}
