//! No two modules of a crate import each other, not even transitively; every file that a page names
//! exists; `make test-all` runs the tests that name it; examples in comments are tests; a part that
//! opens sockets asks first whether it may.
//!
//! The test reads sources as text: paths outside of tests that begin with `crate`, `super` or
//! `self`; and those that begin with a submodule's name, beside which a submodule may import the
//! modules around it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use sources::root;

use crate::sources;

/// Folders of the workspace's crates with sources.
fn crates() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let names = members.split('"').skip(1).step_by(2);
    let sources = names.filter(|name| root().join(name).join("src").is_dir());
    sources.map(str::to_owned).collect()
}

/// Files that a page names and that stand in another tree, or on a user's host.
const ELSEWHERE: &[&str] = &[
    "membership.toml",
    "lcsync.toml",
    "session.toml",
    "slides.md",
    "chunk/mod.rs",
];

/// Modules of a crate by path, each with its code.
fn modules(src: &Path) -> BTreeMap<Vec<String>, String> {
    let mut found = BTreeMap::new();
    for (file, text) in sources::below(src) {
        let below = file.strip_prefix(src).unwrap().with_extension("");
        let words = below.iter().map(|word| word.to_str().unwrap().to_owned());
        let mut path: Vec<String> = words.collect();
        match path.last().map(String::as_str) {
            Some("mod") => drop(path.pop()),
            Some("lib" | "main") if path.len() == 1 => continue,
            _ => {}
        }
        let code = text.lines().map(|line| line.split("//").next().unwrap());
        found.insert(path, code.collect::<Vec<_>>().join(" "));
    }
    found
}

/// The paths of `use a::{b, c::{d}};` one by one, from `prefix` and the rest of `tree`.
fn expand(prefix: &str, tree: &str, out: &mut Vec<String>) {
    let (mut depth, mut start) = (0_i32, 0);
    let mut parts = Vec::new();
    for (at, c) in tree.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(&tree[start..at]);
            start = at + 1;
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().map(str::trim).filter(|p| !p.is_empty()) {
        match part.split_once('{') {
            Some((before, inner)) => {
                let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
                expand(&format!("{prefix}{}", before.trim()), inner, out);
            }
            None => out.push(format!("{prefix}{}", part.split(' ').next().unwrap())),
        }
    }
}

/// The paths that a module's source names, as absolute module paths with the item's name.
/// `submodules` are its own.
fn imports(module: &[String], submodules: &[&str], code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let own = submodules.iter().map(|name| format!("{name}::"));
    let starts = ["crate::", "super::", "self::"].map(str::to_owned);
    let begins = |at: usize| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    };
    for start in starts.into_iter().chain(own) {
        for (at, _) in code.match_indices(&start).filter(|(at, _)| begins(*at)) {
            let rest = &code[at..];
            if code[..at].ends_with("use ") {
                expand("", rest.split(';').next().unwrap(), &mut paths);
            } else {
                let in_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                let end = rest.find(|c| !in_path(c)).unwrap_or(rest.len());
                paths.push(rest[..end].to_owned());
            }
        }
    }
    paths
        .iter()
        .map(|path| {
            let mut at: Vec<String> = module.to_vec();
            for word in path.split("::").filter(|word| !word.is_empty()) {
                match word {
                    "crate" => at.clear(),
                    "super" => drop(at.pop()),
                    "self" => {}
                    word => at.push(word.to_owned()),
                }
            }
            at
        })
        .collect()
}

/// The modules that each module imports. With `relative`, paths that begin with the name of a
/// submodule count, and imports from the modules around a submodule do not: a folder is one thing
/// to others.
fn graph(
    modules: &BTreeMap<Vec<String>, String>,
    relative: bool,
) -> BTreeMap<&[String], BTreeSet<&[String]>> {
    let deepest = |path: Vec<String>| {
        let longest = (1..=path.len()).rev();
        longest
            .filter_map(|length| modules.get_key_value(&path[..length]))
            .map(|(known, _)| known.as_slice())
            .next()
    };
    let submodules = |module: &[String]| -> Vec<&str> {
        let below = modules.keys().filter(|other| other.starts_with(module));
        below
            .filter(|other| relative && other.len() == module.len() + 1)
            .map(|other| other[module.len()].as_str())
            .collect()
    };
    modules
        .iter()
        .map(|(module, code)| {
            let named = imports(module, &submodules(module), code);
            let named = named.into_iter().filter_map(deepest);
            let counts = |other: &&[String]| match relative {
                true => !module.starts_with(other),
                false => other != module,
            };
            (module.as_slice(), named.filter(counts).collect())
        })
        .collect()
}

/// Modules that reach themselves: those left after all without imports are removed, from both
/// ends.
fn circles<'a>(mut graph: BTreeMap<&'a [String], BTreeSet<&'a [String]>>) -> Vec<String> {
    loop {
        let before = graph.len();
        let imported: BTreeSet<_> = graph.values().flatten().copied().collect();
        graph.retain(|module, others| !others.is_empty() && imported.contains(module));
        let left: BTreeSet<_> = graph.keys().copied().collect();
        for others in graph.values_mut() {
            others.retain(|other| left.contains(other));
        }
        if graph.len() == before {
            let line = |(module, others): (&&[String], &BTreeSet<&[String]>)| {
                let others: Vec<_> = others.iter().map(|other| other.join("::")).collect();
                format!("{} imports {}", module.join("::"), others.join(", "))
            };
            return graph.iter().map(line).collect();
        }
    }
}

#[test]
fn no_two_modules_import_each_other() {
    let mut found = Vec::new();
    for name in crates() {
        let of_crate = modules(&root().join(&name).join("src"));
        for relative in [false, true] {
            let lines = circles(graph(&of_crate, relative));
            found.extend(lines.into_iter().map(|line| format!("{name}: {line}")));
        }
    }
    assert!(found.is_empty(), "circles:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_seen() {
    let read = |sources: &[(&str, &str)]| -> BTreeMap<Vec<String>, String> {
        let sources = sources.iter().map(|(name, code)| {
            let path = name.split("::").map(str::to_owned).collect();
            (path, (*code).to_owned())
        });
        sources.collect()
    };
    let sources = read(&[
        ("a", "use crate::{b::{B, C}, d};"),
        ("b", "fn f() { crate::c::g() }"),
        ("c", "use super::a::A;"),
        ("d", "use crate::b::B;"),
        ("e", "use crate::a::A;"),
    ]);
    let expected = [
        "a imports b, d",
        "b imports c",
        "c imports a",
        "d imports b",
    ];
    assert_eq!(circles(graph(&sources, false)), expected);
    let sources = read(&[
        ("a", "mod b; fn f() { b::g() }"),
        ("a::b", "use super::A; use crate::c::C;"),
        ("c", "use crate::a::A;"),
        ("d", "mod e; use e::E;"),
        ("d::e", "use super::D;"),
    ]);
    let expected = ["a imports a::b", "a::b imports c", "c imports a"];
    assert_eq!(circles(graph(&sources, true)), expected);
}

#[test]
fn a_path_that_is_not_from_the_root_is_beside_the_file_before_it() {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut wrong = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let mut folder: Option<PathBuf> = None;
        let named = row.split('`').skip(1).step_by(2);
        for name in named.filter(|name| name.ends_with(".rs") || name.ends_with(".js")) {
            let from_root = root().join(name);
            let beside = folder.as_ref().map(|folder| folder.join(name));
            if from_root.is_file() {
                folder = from_root.parent().map(Path::to_owned);
            } else if beside.is_some_and(|beside| !beside.is_file()) {
                wrong.push(format!("{name}: {row}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_pages_name_exist() {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(out.stdout).unwrap();
    let files: Vec<&str> = listed.lines().collect();
    let exists = |name: &str| {
        let end = format!("/{name}");
        files
            .iter()
            .any(|file| *file == name || file.ends_with(&end))
    };
    let mut dead = Vec::new();
    for page in files.iter().filter(|file| file.ends_with(".md")) {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let named = text.split('`').skip(1).step_by(2).filter(|name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            let (_, extension) = name.rsplit_once('.').unwrap_or_default();
            ["rs", "toml", "py"].contains(&extension)
                && name.chars().all(plain)
                && !name.starts_with('/')
                && !ELSEWHERE.contains(name)
        });
        dead.extend(
            named
                .filter(|name| !exists(name))
                .map(|name| format!("{page}: {name}")),
        );
        let folder = Path::new(page).parent().unwrap();
        // a path within a fence is not a link of the page
        let outside: String = text.split("```").step_by(2).collect();
        let links = outside
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let local = links
            .filter_map(|link| link.split('#').next())
            .filter(|link| !link.is_empty() && !link.contains(':'));
        for link in local.filter(|link| !root().join(folder).join(link).exists()) {
            dead.push(format!("{page}: link to {link}"));
        }
    }
    assert!(dead.is_empty(), "not there:\n{}", dead.join("\n"));
}

/// The page of the library shows examples, which tests compile and run, word for word.
#[test]
fn the_page_of_the_library_shows_its_examples() {
    let page = std::fs::read_to_string(root().join("docs/guide/library.md")).unwrap();
    let mut shown = 0;
    for (language, extension) in [("rust", "rs"), ("c", "c"), ("python", "py")] {
        let file = format!("librecast/examples/time_server.{extension}");
        let example = std::fs::read_to_string(root().join(&file)).unwrap();
        for code in page.split(&format!("```{language}\n")).skip(1) {
            let code = code.split("```").next().unwrap();
            assert!(example.contains(code), "{file} differs from\n{code}");
            shown += 1;
        }
    }
    assert_eq!(shown, 3);
}

/// A crate without examples compiles none: `doctest = false`.
#[test]
fn examples_in_comments_are_tests() {
    let mut left_out = Vec::new();
    for name in crates() {
        let folder = root().join(&name);
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        if !manifest.contains("\ndoctest = false") {
            continue;
        }
        for (file, text) in sources::below(&folder.join("src")) {
            let comments = text.lines().map(str::trim_start).filter_map(|line| {
                let comment = line
                    .strip_prefix("///")
                    .or_else(|| line.strip_prefix("//!"))?;
                comment.trim_start().strip_prefix("```")
            });
            let examples = comments
                .step_by(2)
                .filter(|kind| !["text", "console", "toml", "json"].contains(kind));
            left_out.extend(examples.map(|_| file.clone()));
        }
    }
    assert!(
        left_out.is_empty(),
        "examples that nobody runs: {left_out:?}"
    );
}

#[test]
fn no_page_has_the_marks_of_a_merge() {
    let out = Command::new("git")
        .args([
            "grep",
            "-lE",
            "^(<{7} |>{7} )",
            "--",
            "*.md",
            "*.toml",
            "Makefile",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let files = String::from_utf8(out.stdout).unwrap();
    assert_eq!((out.status.code(), files.as_str()), (Some(1), ""));
}

/// If an ignored test names `make test-all`, the list of the Makefile has it.
#[test]
fn make_test_all_runs_what_says_so() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let list = makefile
        .lines()
        .find_map(|line| line.strip_prefix("LONG = "));
    let list: Vec<&str> = list.unwrap().split_whitespace().collect();
    let tests = root().join("netns-tests/tests/netns");
    let (mut found, mut left_out) = (0, Vec::new());
    for (file, text) in sources::below(&tests) {
        let module = file.strip_prefix(&tests).unwrap().with_extension("");
        let module = module.to_str().unwrap().replace('/', "::");
        for ignored in text.split("#[ignore = \"").skip(1) {
            let (reason, rest) = ignored.split_once('"').unwrap();
            let name = rest.split_once("fn ").unwrap().1;
            let name = format!("{module}::{}", name.split('(').next().unwrap());
            if reason.contains("make test-all") {
                found += 1;
                left_out.extend((!list.iter().any(|word| name.contains(word))).then_some(name));
            }
        }
    }
    assert!(found > 50, "{found}");
    assert!(left_out.is_empty(), "not in LONG: {left_out:?}");
}

#[test]
fn every_decision_is_listed() {
    let folder = root().join("docs/adr");
    let list = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_listed = |name: &String| name == "README.md" || list.contains(&format!("({name})"));
    let missing: Vec<_> = names.filter(|name| !is_listed(name)).collect();
    assert!(missing.is_empty(), "not in the list: {missing:?}");
}

/// Parts of lcroute that open sockets or look up names. Each has the method of `Exposure` that lets
/// it, or the reason why it asks none. The section "Who learns a host's address" of
/// `docs/security.md` holds for each.
const SPEAKERS: &[(&str, &str)] = &[
    ("control/src/pages.rs", "this host"),
    ("mapping/src/http.rs", "Exposure::router"),
    ("mapping/src/protocols.rs", "Exposure::router"),
    ("mapping/src/upnp.rs", "Exposure::router"),
    ("netlink/src/request.rs", "this host"),
    ("outside/src/program.rs", "Exposure::outside"),
    ("reach/src/cli.rs", "no socket: the name of a crate"),
    ("reach/src/dht.rs", "Exposure::dht"),
    ("reach/src/matrix/mod.rs", "Exposure::matrix"),
    ("signalling/src/client.rs", "signalling servers"),
    ("signalling/src/ice_servers.rs", "Exposure::stun"),
    ("signalling/src/lan.rs", "Exposure::lans"),
    ("signalling/src/lookup.rs", "this host"),
    ("signalling/src/proxy.rs", "signalling servers and relays"),
    ("signalling/src/relay.rs", "a server for others"),
    ("signalling/src/server.rs", "a server for others"),
    ("signalling/src/sockets.rs", "its owner, by `Sockets::new`"),
    ("src/commands/selftest.rs", "this host"),
    ("src/control_thread.rs", "this host"),
    ("src/doctor/network.rs", "Exposure::stun"),
    ("src/doctor/relay.rs", "signalling servers and relays"),
    ("src/guest/leaf.rs", "Exposure::direct"),
    ("src/inbound_probe.rs", "this host"),
    ("src/lan/programs.rs", "a gateway's LANs"),
    ("src/lan/socket.rs", "a gateway's LANs"),
    ("src/netlink/monitor.rs", "this host"),
    ("src/udp.rs", "Disclosure, for each member"),
    ("streams/src/daemon.rs", "this host"),
    ("streams/src/network.rs", "lc0, and servers of this host"),
];

/// How a part begins to speak.
const SPEAKING: &[&str] = &[
    "UdpSocket::bind",
    "Sockets::new(",
    "TcpStream::connect",
    "lookup_host",
    "look_up(",
    "to_socket_addrs",
    "Socket::new(",
    "ServiceDaemon::new",
    "packet::open",
    "crab_nat",
    "n0_mainline",
    "hyper_util::client",
];

#[test]
fn a_part_that_speaks_with_others_is_known() {
    let lcroute = root().join("lcroute");
    let exposure = lcroute.join("control/src/config/exposure.rs");
    let exposure = std::fs::read_to_string(exposure).unwrap();
    let mut found = BTreeSet::new();
    for (file, text) in sources::below(&lcroute) {
        let file = file.strip_prefix(&lcroute).unwrap().to_str().unwrap();
        // cores open nothing: clippy.toml of each
        if SPEAKING.iter().any(|word| text.contains(word)) && !file.starts_with("sim/") {
            found.insert(file.to_owned());
        }
    }
    let known: BTreeSet<_> = SPEAKERS
        .iter()
        .map(|(file, _)| (*file).to_owned())
        .collect();
    assert_eq!(found, known, "no rule lets it speak, or it speaks no more");
    for (file, rule) in SPEAKERS {
        let method = rule.strip_prefix("Exposure::");
        let exists = method.is_none_or(|name| exposure.contains(&format!("pub fn {name}(self)")));
        assert!(exists, "{file}: {rule}");
    }
}
