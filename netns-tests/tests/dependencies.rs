//! Permitted dependencies between crates (docs/architecture.md), compared with the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Crates for sockets, kernel and runtime, which cores must not reach, not even transitively.
const IO_CRATES: &[&str] = &[
    "tokio",
    "mio",
    "async-io",
    "socket2",
    "nix",
    "rustix",
    "quinn-udp",
    "rtc",
    "rtnetlink",
    "netlink-sys",
];

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

/// Returns the names of all crates of a build of `package`, with its own features.
fn built_from(package: &str) -> BTreeSet<String> {
    built_from_with(package, &[])
}

/// The same with further arguments of `cargo tree`.
fn built_from_with(package: &str, arguments: &[&str]) -> BTreeSet<String> {
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
fn what_decides_reaches_no_io() {
    for package in [
        "lcroute-engine",
        "lcroute-overlay",
        "lcroute-lane",
        "lcroute-node",
        "librecast-log",
        "lcgroup-core",
        "lcradio-core",
        "lcstudio-core",
    ] {
        let crates = built_from(package);
        let forbidden: Vec<_> = IO_CRATES
            .iter()
            .filter(|name| crates.contains(**name))
            .collect();
        assert!(forbidden.is_empty(), "{package} depends on {forbidden:?}");
    }
    // the layer below has the crate rtc, and no runtime
    let crates = built_from("lcroute-webrtc");
    let forbidden = ["tokio", "mio", "quinn-udp"];
    let forbidden: Vec<_> = forbidden.iter().filter(|c| crates.contains(**c)).collect();
    assert!(
        forbidden.is_empty(),
        "lcroute-webrtc depends on {forbidden:?}"
    );
}

#[test]
fn a_page_hands_in_randomness() {
    for package in [
        "lcroute-node",
        "librecast-log",
        "lcradio-core",
        "lcstudio-core",
        "lcroute-web-get",
    ] {
        let crates = built_from_with(package, &["--target", "wasm32-unknown-unknown"]);
        // any version: each uses the system's randomness in its own way, which pages lack
        assert!(!crates.contains("getrandom"), "{package}");
    }
}

#[test]
fn librecast_depends_on_none_of_ours() {
    assert_eq!(ours()["librecast"], BTreeSet::new());
}

#[test]
fn the_library_for_c_depends_on_librecast_only() {
    let below = BTreeSet::from(["librecast".to_owned()]);
    assert_eq!(ours()["librecast-c"], below);
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
        let built = built_from(name);
        for patched in ["im", "rtc-dtls", "socket-pktinfo"] {
            assert!(!built.contains(patched), "{name} has {patched} in it");
        }
    }
}

#[test]
fn what_programs_share_depends_on_librecast_only() {
    let below = BTreeSet::from(["librecast".to_owned()]);
    assert_eq!(ours()["librecast-program"], below);
}

#[test]
fn the_entry_log_depends_on_librecast_only() {
    let below = BTreeSet::from(["librecast".to_owned()]);
    assert_eq!(ours()["librecast-log"], below);
}

#[test]
fn engine_and_overlay_do_not_know_each_other() {
    let ours = ours();
    let only_librecast = BTreeSet::from(["librecast".to_owned()]);
    assert_eq!(ours["lcroute-engine"], only_librecast);
    assert_eq!(ours["lcroute-overlay"], only_librecast);
    assert_eq!(ours["lcroute-lane"], only_librecast);
    let below = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let webrtc: BTreeSet<String> =
        below(&["librecast", "lcroute-lane", "lcroute-overlay", "rtc-dtls"]);
    assert_eq!(ours["rtc-dtls"], BTreeSet::new());
    assert_eq!(ours["lcroute-webrtc"], webrtc);
    let node: BTreeSet<String> = below(&["librecast", "lcroute-engine", "lcroute-overlay"]);
    assert_eq!(ours["lcroute-node"], node);
    let mut signalling = webrtc;
    signalling.extend(below(&["lcroute-webrtc", "lcroute-tls"]));
    assert_eq!(ours["lcroute-tls"], BTreeSet::new());
    assert_eq!(ours["lcroute-signalling"], signalling);
}

#[test]
fn who_asks_the_router_knows_no_daemon() {
    let ours = ours();
    assert_eq!(ours["lcroute-netlink"], BTreeSet::new());
    let below = ["lcroute-netlink", "librecast"].map(str::to_owned);
    assert_eq!(ours["lcroute-mapping"], BTreeSet::from(below));
}

#[test]
fn the_control_socket_needs_no_daemon() {
    let ours = ours();
    let mut below = ours["lcroute-node"].clone();
    below.extend(["lcroute-node", "librecast-program"].map(str::to_owned));
    assert_eq!(ours["lcroute-control"], below);
}

#[test]
fn the_simulator_knows_what_decides_only() {
    let ours = ours();
    let mut below = ours["lcroute-node"].clone();
    let more = ["lcroute-node", "lcroute-lane", "lcroute-webrtc", "rtc-dtls"];
    below.extend(more.map(str::to_owned));
    assert_eq!(ours["lcroute-sim"], below);
}

#[test]
fn the_playground_is_the_simulator_without_what_a_page_lacks() {
    let ours = ours();
    let mut below = ours["lcroute-sim"].clone();
    below.insert("lcroute-sim".to_owned());
    assert_eq!(ours["lcroute-playground"], below);
    let target = ["--target", "wasm32-unknown-unknown"];
    let crates = built_from_with("lcroute-playground", &target);
    let forbidden = ["getrandom", "rtc", "aws-lc-rs", "nix"];
    let forbidden: Vec<_> = forbidden.iter().filter(|c| crates.contains(**c)).collect();
    assert!(forbidden.is_empty(), "in a page: {forbidden:?}");
}

#[test]
fn lcroute_executes_the_lab_and_knows_nothing_of_it() {
    let ours = ours();
    for laboratory in ["lcroute-sim", "lcroute-demo", "lcroute-lab"] {
        assert!(
            !ours["lcroute"].contains(laboratory),
            "lcroute depends on {laboratory}"
        );
    }
    // a newcomer waits for all that the demo knows
    for other in ["lcroute-sim", "lcroute-streams", "lcroute-web"] {
        let reached = &ours["lcroute-demo"];
        assert!(!reached.contains(other), "lcroute-demo depends on {other}");
    }
}

#[test]
fn pages_know_the_router_and_only_lab_tests_and_packages_know_them() {
    let ours = ours();
    let mut below = ours["lcroute-control"].clone();
    // announcements of stations, for names of groups, without a codec
    let more = ["lcroute-control", "lcroute-tls", "lcradio-core"];
    below.extend(more.map(str::to_owned));
    assert_eq!(ours["lcroute-web"], below);
    for library in ["opusic-sys", "alsa"] {
        assert!(!built_from("lcroute-web").contains(library), "{library}");
    }
    for (name, reached) in &ours {
        let may = ["lcroute-lab", "netns-tests", "packaging-generate"].contains(&name.as_str());
        assert!(
            may || !reached.contains("lcroute-web"),
            "{name} depends on lcroute-web"
        );
    }
}

#[test]
fn streams_know_what_the_router_answers_and_the_router_knows_nothing_of_quic() {
    let ours = ours();
    let mut below = ours["lcroute-control"].clone();
    below.insert("lcroute-control".to_owned());
    assert_eq!(ours["lcroute-streams"], below);
    assert!(!built_from("lcroute-streams").contains("rtc"), "WebRTC");
    for name in ["lcroute", "lcroute-web", "lcsync", "lcagent"] {
        assert!(!built_from(name).contains("quinn"), "{name} has QUIC in it");
    }
}

#[test]
fn who_links_with_strangers_knows_no_router_and_no_streams() {
    let ours = ours();
    let below = [
        "lcroute-lane",
        "lcroute-mapping",
        "lcroute-netlink",
        "lcroute-overlay",
        "lcroute-signalling",
        "lcroute-tls",
        "lcroute-webrtc",
        "librecast",
        "librecast-program",
        "rtc-dtls",
    ];
    assert_eq!(
        ours["lcroute-outside"],
        BTreeSet::from(below.map(str::to_owned))
    );
    assert!(!built_from("lcroute-outside").contains("quinn"), "QUIC");
}

#[test]
fn who_reads_the_whole_internet_knows_librecast_only_and_the_router_knows_no_dht() {
    let ours = ours();
    let below = ["librecast", "librecast-program"].map(str::to_owned);
    assert_eq!(ours["lcroute-reach"], BTreeSet::from(below));
    for name in [
        "lcroute",
        "lcroute-lab",
        "lcroute-streams",
        "lcroute-web",
        "lcsync",
    ] {
        assert!(
            !built_from(name).contains("n0-mainline"),
            "{name} has a DHT in it"
        );
    }
}

#[test]
fn groups_know_librecast_only_and_no_other_program_knows_them() {
    let ours = ours();
    let below = BTreeSet::from(["librecast".to_owned()]);
    assert_eq!(ours["lcgroup-core"], below);
    let below = [
        "lcgroup-core",
        "librecast",
        "librecast-log",
        "librecast-log-host",
        "librecast-program",
    ];
    assert_eq!(ours["lcgroup"], BTreeSet::from(below.map(str::to_owned)));
    for program in ["lcroute", "lcroute-lab", "lcsync", "lcagent"] {
        let groups = ours[program]
            .iter()
            .find(|name| name.starts_with("lcgroup"));
        assert_eq!(groups, None, "{program} knows groups");
        let crates = built_from(program);
        assert!(!crates.contains("mls-rs"), "{program} has MLS in it");
    }
}

#[test]
fn radio_knows_librecast_only_and_no_other_program_has_a_codec() {
    let ours = ours();
    let below = BTreeSet::from(["librecast".to_owned()]);
    assert_eq!(ours["lcradio-core"], below);
    let below = ["lcradio-core", "librecast", "librecast-program"];
    assert_eq!(ours["lcradio"], BTreeSet::from(below.map(str::to_owned)));
    assert_eq!(
        ours["lcroute-web-page"],
        BTreeSet::from(["librecast".to_owned()])
    );
    let below = ["lcradio-core", "lcroute-web-page", "librecast"];
    let in_a_page = &ours["lcroute-web-radio"];
    assert_eq!(*in_a_page, BTreeSet::from(below.map(str::to_owned)));
    for program in ["lcroute", "lcsync", "lcagent", "lcgroup", "lcroute-lab"] {
        let built_from = built_from(program);
        for library in ["opusic-sys", "alsa"] {
            assert!(!built_from.contains(library), "{program}: {library}");
        }
    }
}

#[test]
fn the_page_that_receives_has_of_lcsync_what_decides() {
    let built_from = built_from("lcroute-web-get");
    for host in ["librecast-program", "aws-lc-rs", "clap", "nix", "rustix"] {
        assert!(!built_from.contains(host), "{host}");
    }
}

#[test]
fn studio_knows_what_radio_calls_a_station_and_no_other_program_knows_studio() {
    let ours = ours();
    let below = ["librecast", "librecast-log"];
    assert_eq!(
        ours["lcstudio-core"],
        BTreeSet::from(below.map(str::to_owned))
    );
    let below = [
        "lcradio-core",
        "lcstudio-core",
        "librecast",
        "librecast-log",
        "librecast-log-host",
        "librecast-program",
    ];
    assert_eq!(ours["lcstudio"], BTreeSet::from(below.map(str::to_owned)));
    let below = [
        "lcroute-web-page",
        "lcstudio-core",
        "librecast",
        "librecast-log",
    ];
    let in_a_page = &ours["lcroute-web-studio"];
    assert_eq!(*in_a_page, BTreeSet::from(below.map(str::to_owned)));
    for program in [
        "lcroute",
        "lcroute-lab",
        "lcsync",
        "lcagent",
        "lcgroup",
        "lcradio",
    ] {
        let studio = ours[program]
            .iter()
            .find(|name| name.starts_with("lcstudio"));
        assert_eq!(studio, None, "{program} knows Studio");
    }
}

#[test]
fn nobody_but_tests_and_packages_depends_on_the_lab() {
    for (name, reached) in ours() {
        let may = ["netns-tests", "packaging-generate"].contains(&name.as_str());
        assert!(
            may || !reached.contains("lcroute-lab"),
            "{name} depends on lcroute-lab"
        );
    }
}

#[test]
fn programs_do_not_know_each_other() {
    let ours = ours();
    for program in ["lcsync", "lcagent"] {
        let below = BTreeSet::from(["librecast", "librecast-program"].map(str::to_owned));
        assert_eq!(ours[program], below, "{program}");
    }
    for program in ["lcsync", "lcagent"] {
        assert!(
            !ours["lcroute"].contains(program),
            "lcroute depends on {program}"
        );
    }
}

#[test]
fn nobody_depends_on_the_tests_or_the_packages() {
    for (name, reached) in ours() {
        for last in ["netns-tests", "packaging-generate"] {
            assert!(!reached.contains(last), "{name} depends on {last}");
        }
    }
}

#[test]
fn programs_carry_no_tables_that_they_never_ask() {
    for program in ["lcroute", "lcsync", "lcagent"] {
        let crates = built_from(program);
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
