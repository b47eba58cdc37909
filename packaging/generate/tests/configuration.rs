//! The configuration files that packages install: every key is in them, and no other.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// A program's parser of its configuration.
type Parser = fn(&str) -> Result<(), String>;

fn lcroute(text: &str) -> Result<(), String> {
    let read = lcroute_control::config::Config::parse("f", text);
    read.map(drop).map_err(|e| e.to_string())
}

fn lcagent(text: &str) -> Result<(), String> {
    let read = lcagent::agent::config::Config::parse("f", text);
    read.map(drop).map_err(|e| e.to_string())
}

fn lcsync(text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    std::fs::write(&file, text).unwrap();
    let read = lcsync::server::config::read(&file);
    read.map(drop).map_err(|e| e.to_string())
}

const FILES: &[(&str, Parser)] = &[
    ("lcroute.toml", lcroute),
    ("lcagent.toml", lcagent),
    ("example.toml.sample", lcsync),
];

fn text(file: &str) -> String {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    std::fs::read_to_string(folder.join(file)).unwrap()
}

/// Uncomments `#key = value` and `#[table]`; `# words` are words.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the keys of the table at a path; of a list, those of all its tables.
fn keys(root: &Table, path: &[String]) -> BTreeSet<String> {
    let keys = |table: &Table| table.keys().cloned().collect::<Vec<_>>();
    let Some((last, before)) = path.split_last() else {
        return keys(root).into_iter().collect();
    };
    match &at(&mut root.clone(), before)[last] {
        Value::Array(list) => list
            .iter()
            .flat_map(|one| keys(one.as_table().unwrap()))
            .collect(),
        one => keys(one.as_table().unwrap()).into_iter().collect(),
    }
}

/// Returns the table at a path; of a list, its first.
fn at<'a>(root: &'a mut Table, path: &[String]) -> &'a mut Table {
    path.iter().fold(root, |table, key| match &mut table[key] {
        Value::Table(below) => below,
        Value::Array(list) => list[0].as_table_mut().unwrap(),
        other => panic!("{key} is {other}"),
    })
}

/// Returns all tables of a file, as paths.
fn tables(table: &Table, path: &[String], found: &mut Vec<Vec<String>>) {
    found.push(path.to_vec());
    for (key, value) in table {
        let below = match value {
            Value::Table(below) => Some(below),
            Value::Array(list) => list.first().and_then(Value::as_table),
            _ => None,
        };
        if let Some(below) = below {
            tables(below, &[path, std::slice::from_ref(key)].concat(), found);
        }
    }
}

/// Returns the keys of a table, from the error for an unknown one. None if any is valid.
fn known(parse: Parser, root: &Table, path: &[String]) -> Option<BTreeSet<String>> {
    let mut asked = root.clone();
    at(&mut asked, path).insert("no_such_key".into(), Value::String("x".into()));
    let answer = parse(&asked.to_string()).err()?;
    let (_, expected) = answer.split_once("unknown field `no_such_key`, expected")?;
    let words = expected.split('`').skip(1).step_by(2);
    Some(words.map(str::to_owned).collect())
}

#[test]
fn as_installed_they_say_nothing() {
    for (file, parse) in FILES {
        let read: Table = text(file).parse().unwrap();
        assert!(read.is_empty(), "{file}: {read}");
        // lcsync must have something to share: its file is a sample, and no service runs with it
        if *file != "example.toml.sample" {
            assert_eq!(parse(&text(file)), Ok(()), "{file}");
        }
    }
}

#[test]
fn uncommented_they_are_valid_and_have_every_key() {
    for (file, parse) in FILES {
        let text = uncommented(&text(file));
        assert_eq!(parse(&text), Ok(()), "{file}");
        let root: Table = text.parse().unwrap();
        let mut paths = Vec::new();
        tables(&root, &[], &mut paths);
        assert!(paths.len() > 1, "{file}: {paths:?}");
        for path in &paths {
            let Some(known) = known(*parse, &root, path) else {
                continue;
            };
            assert_eq!(keys(&root, path), known, "{file}, [{}]", path.join("."));
        }
    }
}

#[test]
fn what_holds_where_a_key_is_not_set_is_what_the_file_says() {
    // all but keys with a described default
    let examples = [
        "name",
        "state_dir",
        "control",
        "ipv4",
        "log",
        "servers",
        "meet",
        "listen",
        "spool",
        "dht",
        "dht_bootstrap",
        "socks",
        "https_proxy",
        "https_proxy_login",
        "homeserver",
        "room",
        "token-file",
        "addresses",
        "turn",
        "user",
        "password_file",
        "secret_file",
        "stun",
        "interfaces",
        "disclose",
        "sources",
        "reflect",
        "segment",
        "router",
        "keyfile",
        "next",
        "allow",
        "names",
        "metrics",
        "tls_cert",
        "tls_key",
        "mbit",
        "groups",
        "stations",
    ];
    let of_network = [
        "profile",
        "unicast",
        "link_scope_groups",
        "announce",
        "watch",
        "upload",
        "pass_on",
    ];
    let examples = [&examples[..], &of_network].concat();
    let lines: Vec<String> = uncommented(&text("lcroute.toml"))
        .lines()
        .scan(String::new(), |table, line| {
            if line.starts_with('[') {
                *table = line.to_owned();
            }
            let key = line.split(" =").next().unwrap_or_default();
            // lc0's own name has a default, as the pages' address; for IPv4 the profile decides
            let has_default = match table.as_str() {
                "[tun]" => key != "ipv4",
                "[web]" => key == "listen",
                // a sealed segment has both
                "[[private]]" => line.contains("home"),
                _ => false,
            };
            let example = examples.contains(&key) && !has_default;
            Some(if example {
                String::new()
            } else {
                line.to_owned()
            })
        })
        .collect();
    let set = lcroute_control::config::Config::parse("f", &lines.join("\n")).unwrap();
    // a LAN exists only if its interface is named, a private prefix or a sealed segment if it has
    // one; a protocol is served if it has a name and a server
    let named = "[[lan]]\ninterface = \"eth0\"\n[[private]]\nprefix = \"ff1e:7::/32\"\n\
                 [[private]]\nsegment = \"home\"\nkeyfile = \"home.key\"\n\
                 [[serve]]\nprotocol = \"/ssh/1\"\nto = \"127.0.0.1:22\"\n";
    let expected = lcroute_control::config::Config::parse("f", named);
    assert_eq!(set, expected.unwrap());
}
