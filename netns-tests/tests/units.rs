//! The units in packages: their exposure, and whether systemd accepts them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Bounds for the exposure of `systemd-analyze security`, times ten.
const EXPOSURE: [(&str, u32); 10] = [
    ("lcroute.service", 18),
    ("lcroute-close.service", 11),
    ("lcroute-signal.service", 11),
    ("lcroute-web.service", 11),
    ("lcroute-streams.service", 13),
    ("lcroute-outside.service", 13),
    ("lcroute-reach.service", 11),
    ("lcsync@.service", 13),
    ("lcagent.service", 11),
    ("lcgroup.service", 14),
];

fn units() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.ancestors().nth(2).unwrap();
    workspace.join("systemd")
}

fn analyze(args: &[&str]) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    command.args(args).current_dir(units());
    let out = command.output().expect("systemd-analyze is installed");
    let said = [out.stdout, out.stderr].concat();
    (
        out.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn services_expose_no_more_than_promised() {
    for (unit, most) in EXPOSURE {
        let threshold = format!("--threshold={most}");
        let (fine, said) = analyze(&[
            "security",
            "--offline=yes",
            "--no-pager",
            &threshold,
            &format!("./{unit}"),
        ]);
        assert!(fine, "{unit}: more than {most}/10:\n{said}");
    }
}

/// Rights of each service, as in `docs/security.md`: capabilities, user, group.
const RIGHTS: [(&str, &str, &str, &str); 10] = [
    ("lcroute.service", "CAP_NET_ADMIN", "lcroute", "lcroute"),
    (
        "lcroute-close.service",
        "CAP_NET_ADMIN",
        "lcroute",
        "lcroute",
    ),
    ("lcroute-signal.service", "", "of its own", ""),
    ("lcroute-web.service", "", "of its own", "lcroute-view"),
    (
        "lcroute-streams.service",
        "",
        "lcroute-streams",
        "lcroute-streams",
    ),
    (
        "lcroute-outside.service",
        "",
        "lcroute-outside",
        "lcroute-outside",
    ),
    (
        "lcroute-reach.service",
        "",
        "lcroute-reach",
        "lcroute-reach",
    ),
    ("lcsync@.service", "CAP_NET_RAW", "lcsync", ""),
    ("lcagent.service", "", "lcagent", "lcagent"),
    ("lcgroup.service", "CAP_NET_RAW", "lcgroup", "lcgroup"),
];

#[test]
fn each_service_has_a_user_of_its_own_and_one_capability_or_none() {
    for (unit, capabilities, user, group) in RIGHTS {
        let text = std::fs::read_to_string(units().join(unit)).unwrap();
        let all = |key: &str| -> Vec<String> {
            let lines = text
                .lines()
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            lines.map(str::to_owned).collect()
        };
        // without this line a service has all of them
        assert_eq!(all("CapabilityBoundingSet"), [capabilities], "{unit}");
        let ambient: Vec<_> = [capabilities]
            .into_iter()
            .filter(|c| !c.is_empty())
            .collect();
        assert_eq!(all("AmbientCapabilities"), ambient, "{unit}");
        assert_eq!(all("NoNewPrivileges"), ["yes"], "{unit}");
        let (users, key) = match user {
            "of its own" => (vec!["yes"], "DynamicUser"),
            user => (vec![user], "User"),
        };
        assert_eq!(all(key), users, "{unit}");
        let groups: Vec<_> = [group].into_iter().filter(|g| !g.is_empty()).collect();
        assert_eq!(all("Group"), groups, "{unit}");
        // each further group would permit further sockets
        assert!(all("SupplementaryGroups").is_empty(), "{unit}");
    }
    let services = units_of(&[".service"]);
    let unknown = |name: &&String| RIGHTS.iter().all(|(unit, ..)| unit != name);
    let unknown: Vec<_> = services.iter().filter(unknown).collect();
    // jobs run outside of the agent's sandbox, with the rights of its policy
    assert_eq!(unknown, ["lcagent-job@.service"]);
}

/// `docs/security.md`: "The service ends at 256 MB."
#[test]
fn the_service_of_pages_has_no_more_memory_than_promised() {
    let text = std::fs::read_to_string(units().join("lcroute-web.service")).unwrap();
    assert!(text.lines().any(|line| line == "MemoryMax=256M"));
}

/// Returns names of units of these kinds.
fn units_of(kinds: &[&str]) -> Vec<String> {
    let names = std::fs::read_dir(units()).unwrap();
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    let is_meant = |name: &String| kinds.iter().any(|kind| name.ends_with(kind));
    names.filter(is_meant).collect()
}

#[test]
fn no_service_leaves_its_keys_in_a_core_dump() {
    let services = units_of(&[".service"]);
    assert!(services.len() >= 5, "{services:?}");
    for name in services {
        let text = std::fs::read_to_string(units().join(&name)).unwrap();
        let limit = text
            .lines()
            .find_map(|line| line.strip_prefix("LimitCORE="));
        // jobs of lcagent may raise their limit
        assert_eq!(
            limit.and_then(|limit| limit.split(':').next()),
            Some("0"),
            "{name}"
        );
    }
}

/// Programs cannot send to their groups before the daemon can seal.
#[test]
fn private_prefixes_are_closed_before_the_network_is_up() {
    let unit = "lcroute-close.service";
    let text = std::fs::read_to_string(units().join(unit)).unwrap();
    let has = |line: &str| text.lines().any(|l| l == line);
    for line in [
        "DefaultDependencies=no",
        "Wants=network-pre.target",
        "Before=network-pre.target shutdown.target",
        "ExecStart=/usr/bin/lcroute close",
        "WantedBy=sysinit.target",
    ] {
        assert!(has(line), "{line}");
    }
    let manifest = units().join("../lcroute/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let shipped = manifest.matches("systemd/lcroute-close.service").count();
    assert_eq!(shipped, 2, "in the package of Debian, and in the RPM");
}

#[test]
fn systemd_understands_every_unit() {
    let names = units_of(&[".service", ".socket", ".path"]);
    let names: Vec<String> = names.into_iter().map(|n| format!("./{n}")).collect();
    assert!(names.len() >= 7, "{names:?}");
    let args: Vec<&str> = ["verify", "--man=no"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let (_, said) = analyze(&args);
    // the programs need not be installed; other units of the host are ignored
    let ours = |line: &&str| {
        ["lcroute", "lcsync", "lcagent", "lcgroup"]
            .iter()
            .any(|p| line.starts_with(p) || line.contains(&format!("/{p}")))
    };
    let wrong: Vec<&str> = said
        .lines()
        .filter(ours)
        .filter(|l| !l.contains("is not executable"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
