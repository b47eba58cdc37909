//! docs/reference.md equals the programs' output; `make reference` writes it. The dashboard and the
//! alert rules in packaging/ name existing metrics.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use librecast::events::EVENTS;
use librecast_program::metrics::{Description, PROCESS};

const FILE: &str = "docs/reference.md";
const CATALOG: &str = "systemd/lcroute.catalog";

fn at(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

#[test]
fn the_reference_and_the_journals_catalog_are_what_the_programs_say() {
    for (file, made) in [(FILE, reference()), (CATALOG, catalog())] {
        if std::env::var_os("REFERENCE").is_some_and(|v| v == "write") {
            std::fs::write(at(file), &made).unwrap();
            continue;
        }
        let there = std::fs::read_to_string(at(file)).unwrap_or_default();
        for (n, (made, there)) in made.lines().zip(there.lines()).enumerate() {
            assert_eq!(made, there, "{file}:{}: stale; run `make reference`", n + 1);
        }
        assert!(made == there, "{file} is stale; run `make reference`");
    }
}

#[test]
fn lcroute_lists_the_verbs_of_programs_that_it_executes_with_the_same_words() {
    let lcroute = lcroute::command();
    let programs = [lcroute_web::command(), lcroute_streams::command()];
    for verb in programs.iter().flat_map(clap::Command::get_subcommands) {
        let listed = lcroute.find_subcommand(verb.get_name()).unwrap();
        let about = |verb: &clap::Command| verb.get_about().map(ToString::to_string);
        assert_eq!(about(listed), about(verb));
    }
}

/// Returns the catalog: the texts of `journalctl -x` below entries.
fn catalog() -> String {
    let mut out =
        String::from("# Made by `make reference`; installed in /usr/lib/systemd/catalog.\n");
    for event in EVENTS {
        let fields: Vec<String> = event.fields.iter().map(|f| format!("{f}=@{f}@")).collect();
        let _ = write!(
            out,
            "\n-- {}\nSubject: {}\nDefined-By: lcroute\n\n{}\n\n{}\n",
            event.id,
            event.name,
            event.meaning,
            fields.join("\n"),
        );
    }
    out
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_and_reasons_that_exist() {
    let known: BTreeSet<&str> = tables()
        .iter()
        .flat_map(|(_, t)| t.iter().map(|d| d.name))
        .collect();
    for file in ["packaging/grafana.json", "packaging/alerts.yml"] {
        let text = std::fs::read_to_string(at(file)).unwrap();
        let named = metrics_in(&text);
        assert!(named.len() > 10, "{file}: {named:?}");
        for name in &named {
            assert!(known.contains(name.as_str()), "{file}: there is no {name}");
        }
    }
    let dashboard = std::fs::read_to_string(at("packaging/grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asked = |p: &&serde_json::Value| {
        p["targets"]
            .as_array()
            .is_some_and(|t| t.iter().all(|t| t["expr"].is_string()))
    };
    let rows = panels.iter().filter(|p| p["type"] == "row").count();
    assert_eq!(panels.iter().filter(asked).count() + rows, panels.len());
    // reasons without a pattern
    let text = std::fs::read_to_string(at("packaging/alerts.yml")).unwrap();
    let reasons: BTreeSet<&str> = reasons()
        .iter()
        .flat_map(|(_, list)| list.iter().map(|(name, _)| *name))
        .collect();
    let mut seen = 0;
    for part in text.split("reason=").skip(1) {
        let value = part.trim_start_matches('~').split('"').nth(1).unwrap();
        for reason in value.split('|').filter(|r| !r.contains('*')) {
            assert!(reasons.contains(reason), "no reason {reason}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

/// Returns words that begin like our metrics, and are not parts of other words.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |w: &&str| {
        let prefixes = ["lcroute_", "lcsync_", "lcagent_", "process_"];
        prefixes.iter().any(|p| w.starts_with(p))
    };
    words.filter(ours).map(str::to_owned).collect()
}

fn tables() -> [(&'static str, &'static [Description]); 6] {
    [
        ("lcroute", lcroute::metrics::TABLE),
        ("lcroute signal", lcroute::metrics::signal::TABLE),
        ("lcroute-streams", lcroute_streams::metrics::TABLE),
        ("lcsync share", lcsync::server::metrics::TABLE),
        ("lcagent run", lcagent::agent::metrics::TABLE),
        ("each of them", PROCESS),
    ]
}

type Reasons = Vec<(&'static str, &'static str)>;

fn reasons() -> Vec<(&'static str, Reasons)> {
    vec![
        (
            "lcroute: `lcroute_drops_total{reason}`, `drops` of `lcroute status --json`",
            lcroute::drops::reasons(),
        ),
        (
            "lcroute-streams: `lcroute_streams_refused_total{reason}`",
            lcroute_streams::metrics::Refused::TABLE.to_vec(),
        ),
        (
            "lcroute-outside: `drops` of `lcroute outside --json`, beside those of links",
            librecast::drops::list::<lcroute_outside::drops::DropReason>(),
        ),
        (
            "lcsync: `lcsync_reports_dropped_total{reason}`",
            lcsync::server::metrics::REASONS.to_vec(),
        ),
        (
            "lcagent: `lcagent_commands_refused_total{reason}`",
            lcagent::agent::metrics::REFUSALS.to_vec(),
        ),
        (
            "lcagent: `lcagent_drops_total{reason}`",
            lcagent::agent::metrics::REASONS.to_vec(),
        ),
        (
            "lcgroup: `drops` of `lcgroup status --json`",
            librecast::drops::list::<librecast_log::DropReason>(),
        ),
        (
            "lcradio: `drops` of `lcradio listen --json`",
            librecast::drops::list::<lcradio_core::DropReason>(),
        ),
        (
            "lcstudio: `drops` of `lcstudio attend --json`",
            librecast::drops::list::<lcstudio_core::DropReason>(),
        ),
    ]
}

fn reference() -> String {
    let mut out = String::from(
        "# Reference\n\n\
         Every verb and flag, configuration key, metric, drop reason and journal entry. Made from the programs by `make reference`; a test\n\
         fails when it is not what they say. What to do when something is wrong: [troubleshooting.md](troubleshooting.md).\n\n\
         - [Command lines](#command-lines): [lcroute](#lcroute), [lcsync](#lcsync), [lcagent](#lcagent), [lcgroup](#lcgroup), [lcradio](#lcradio), [lcstudio](#lcstudio)\n\
         - [Configuration](#configuration)\n\
         - [Metrics](#metrics)\n\
         - [Drop reasons](#drop-reasons)\n\
         - [Journal](#journal)\n\
         - [Checks of `lcroute doctor`](#checks-of-lcroute-doctor)\n\n\
         Sizes take `k M G` (powers of 1000) and `Ki Mi Gi`; rates are bits per second; durations are like `500ms 2s 5m 24h 7d`. Exit codes of all:\n\
         0 done, 1 failed, 2 wrong usage or configuration, 3 timed out or not reachable, 4 not permitted, 130 and 143 interrupted.\n\n\
         ## Command lines\n\n",
    );
    // the verbs of lcroute-lab, lcroute-web and lcroute-streams appear under lcroute
    for command in [
        lcroute_lab::lcroute(),
        lcroute_outside::command(),
        lcroute_reach::command(),
        lcsync::command(),
        lcagent::command(),
        lcgroup::command(),
        lcradio::command(),
        lcstudio::command(),
    ] {
        verb(&mut out, &command, "", 3);
    }
    out += "## Configuration\n\nTOML; every key is optional where nothing else is said, an unknown one is an error.\n\n";
    for file in FILES {
        configuration(&mut out, file);
    }
    out += "## Metrics\n\n`[metrics] listen` (or `lcsync share --metrics`; `[streams] metrics` of lcroute-streams) serves these at `/metrics`, as OpenMetrics 1.0, to \
            whoever reaches it. The units of lcsync and lcagent let them use unix sockets and IPv6; that of lcsync talks to this host and its links alone (`IPAddressAllow=` in a \
            drop-in lets others in). `packaging/alerts.yml` has alert rules, `packaging/grafana.json` a dashboard.\n\n";
    for (program, table) in tables() {
        let _ = writeln!(
            out,
            "### {program}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|"
        );
        for d in table {
            let labels = d.labels.join(", ");
            let _ = writeln!(
                out,
                "| `{}` | {} | {labels} | {} |",
                d.name,
                d.kind.name(),
                cell(d.help)
            );
        }
        out.push('\n');
    }
    out += "## Drop reasons\n\n";
    for (title, list) in reasons() {
        let _ = writeln!(out, "### {title}\n\n| reason | what it means |\n|---|---|");
        for (name, meaning) in list {
            let _ = writeln!(out, "| `{name}` | {} |", cell(meaning));
        }
        out.push('\n');
    }
    out += "## Journal\n\n`journalctl MESSAGE_ID=...` finds them; `-o json` shows their fields. What others can cause is told at most once in five seconds in \
            the long run.\n\n| entry | MESSAGE_ID | fields | what it means |\n|---|---|---|---|\n";
    for event in EVENTS {
        let fields: Vec<String> = event.fields.iter().map(|f| format!("`{f}`")).collect();
        let _ = writeln!(
            out,
            "| {} | `{}` | {} | {} |",
            event.name,
            event.id,
            fields.join(" "),
            cell(event.meaning)
        );
    }
    out += "\n## Checks of `lcroute doctor`\n\n`--json`: `{\"ok\": bool, \"checks\": [{\"name\", \"state\", \"detail\", \"remedy\"}]}`; `state` is `ok`, `warn`, `fail` or \
            `skipped`, `remedy` is null where there is nothing to do. Exit code 1 if one fails.\n\n| check | what is looked at |\n|---|---|\n";
    for (name, what) in lcroute::DOCTOR_CHECKS {
        let _ = writeln!(out, "| `{name}` | {} |", cell(what));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Writes a command, its arguments, and its verbs.
fn verb(out: &mut String, command: &clap::Command, above: &str, level: usize) {
    let name = format!("{above}{}", command.get_name());
    let heading = "#".repeat(level);
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let _ = writeln!(out, "{heading} {name}\n\n{}\n", about.replace('\n', " "));
    let arguments: Vec<&clap::Arg> = command
        .get_arguments()
        .filter(|a| !a.is_hide_set() && !matches!(a.get_id().as_str(), "help" | "version"))
        .collect();
    if !arguments.is_empty() {
        out.push_str("| argument | what it says |\n|---|---|\n");
        for a in arguments {
            let _ = writeln!(out, "| `{}` | {} |", cell(&spelled(a)), cell(&told(a)));
        }
        out.push('\n');
    }
    for below in command.get_subcommands() {
        if !below.is_hide_set() && below.get_name() != "help" {
            verb(
                out,
                below,
                &format!("{name} "),
                level.max(3) + 1 - usize::from(level > 3),
            );
        }
    }
}

/// `-i, --interval DURATION`
fn spelled(a: &clap::Arg) -> String {
    let names: Vec<String> = a
        .get_short()
        .map(|s| format!("-{s}"))
        .into_iter()
        .chain(a.get_long().map(|l| format!("--{l}")))
        .collect();
    let values = a.get_value_names().unwrap_or_default();
    let values: Vec<&str> = values.iter().map(|v| v.as_str()).collect();
    let takes = a.get_action().takes_values();
    let many = if matches!(a.get_action(), clap::ArgAction::Append) {
        "..."
    } else {
        ""
    };
    match (names.is_empty(), takes) {
        (true, _) => format!("{}{many}", values.join(" ")),
        (false, true) => format!("{} {}{many}", names.join(", "), values.join(" ")),
        (false, false) => names.join(", "),
    }
}

fn told(a: &clap::Arg) -> String {
    let mut text = a.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = a
        .get_default_values()
        .iter()
        .map(|v| v.to_string_lossy())
        .collect();
    if a.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " [default: {}]", defaults.join(" "));
    }
    if let Some(variable) = a.get_env() {
        let _ = write!(text, " [environment: {}]", variable.to_string_lossy());
    }
    text
}

struct File {
    path: &'static str,
    parse: fn(&str) -> String,
    tables: &'static [Table],
}

/// `[name]`, or `[[name]]`; keys with default and description.
struct Table {
    heading: &'static str,
    /// Other required content of the table.
    with: &'static str,
    keys: &'static [(&'static str, &'static str, &'static str)],
}

const METRICS: Table = Table {
    heading: "[metrics]",
    with: "",
    keys: &[(
        "listen",
        "off",
        "Serve metrics here: `ADDRESS:PORT`, or the absolute path of a unix socket (mode 0660).",
    )],
};

const FILES: &[File] = &[
    File {
        path: "/etc/lcroute/lcroute.toml",
        parse: |text| {
            let read = lcroute_control::config::Config::parse("f", text);
            read.map(drop).map_err(|e| e.to_string()).unwrap_err()
        },
        tables: &[
            Table {
                heading: "",
                with: "",
                keys: &[
                    (
                        "name",
                        "the host's name",
                        "This node's name, for `init` and `join`.",
                    ),
                    (
                        "state_dir",
                        "`/var/lib/lcroute`, or `$XDG_STATE_HOME/lcroute`",
                        "Keys and membership.",
                    ),
                    (
                        "control",
                        "`/run/lcroute/control.sock`, or `$XDG_RUNTIME_DIR/lcroute/control.sock`",
                        "The control socket.",
                    ),
                    (
                        "log",
                        "`info` for daemons, else `warn`",
                        "`error`, `warn`, `info`, `debug`, `trace`, or TARGET=LEVEL with commas between.",
                    ),
                ],
            },
            Table {
                heading: "[tun]",
                with: "",
                keys: &[
                    ("name", "`\"lc0\"`", "Interface name."),
                    (
                        "mode",
                        "`\"tap\"`",
                        "`tap` (Ethernet frames, as on a LAN card) or `tun` (raw IPv6 packets, point to point: programs that want a broadcast interface skip it).",
                    ),
                    ("mtu", "1280", "Bytes, 1280 to 9000."),
                    (
                        "routes",
                        "`true`",
                        "Which groups of programs that name no interface go to it: `true` (scopes 8 and e; of IPv4 239.0.0.0/8 without 239.255.0.0/16), `false` (none), or a list of prefixes.",
                    ),
                    (
                        "offload",
                        "`true`",
                        "Many packets cross in one system call, where the kernel can.",
                    ),
                    (
                        "ipv4",
                        "`false`; `true` with the profile `lan`",
                        "Carry groups of IPv4 as well: `true`, with addresses that follow from the network; `false`; or private addresses that all nodes name, such as `\"10.77.0.0/16\"`.",
                    ),
                ],
            },
            Table {
                heading: "[signal]",
                with: "",
                keys: &[
                    (
                        "servers",
                        "those of the token",
                        "Signalling servers, `ws://HOST:PORT` or `wss://HOST:PORT`; those of the token are used as well.",
                    ),
                    (
                        "listen",
                        "off",
                        "Serve as a signalling server oneself: `ADDRESS:PORT`, TCP, and UDP for STUN.",
                    ),
                    (
                        "lan",
                        "true",
                        "Find nodes on the LANs of this host by multicast DNS, without a server: never on lc0 or tunnels.",
                    ),
                    (
                        "spool",
                        "off",
                        "A folder that other nodes reach, too (Syncthing, NFS, a USB stick): they find each other by files in it.",
                    ),
                    (
                        "dht",
                        "false",
                        "Keep this node's presence record in a DHT, and look there for members that are away; lcroute-reach.service does it. What it shows to whom is in [security.md](security.md).",
                    ),
                    (
                        "dht_bootstrap",
                        "none",
                        "Nodes by which the DHT is entered, `HOST:PORT`, over IPv4; without any the well-known ones of BitTorrent's. Of a DHT of your own name two or three.",
                    ),
                    (
                        "socks",
                        "off",
                        "A SOCKS5 proxy, `ADDRESS:PORT`, such as Tor's, through which signalling servers and relays are reached; it looks up their names, `.onion` too. They are not asked by STUN then.",
                    ),
                    (
                        "https_proxy",
                        "`$https_proxy`",
                        "A web proxy, `http://HOST:PORT`, that passes connections to signalling servers and relays (CONNECT), for networks that nothing else leaves. `$no_proxy` names exceptions from the one of the environment.",
                    ),
                    (
                        "https_proxy_login",
                        "none",
                        "A file with `USER:PASSWORD` for the web proxy.",
                    ),
                    (
                        "per_address",
                        "256",
                        "Most connections that a signalling server takes from one IPv4 address, or one /64 of IPv6; twice as many from a /56, four times from a /24 or /48. Those of the host itself are not bounded.",
                    ),
                ],
            },
            Table {
                heading: "[matrix]",
                with: "",
                keys: &[
                    (
                        "homeserver",
                        "off",
                        "The server of this node's account, `https://HOST` or `https://HOST:PORT`. `http://` shows the access token to whoever is on the way. lcroute-reach.service does the rest; what it shows to whom is in [security.md](security.md).",
                    ),
                    (
                        "room",
                        "that of the token",
                        "The room, `#ALIAS:SERVER` or `!ID:SERVER`. The account must be a member, or invited, or the room public.",
                    ),
                    (
                        "user",
                        "that of the access token",
                        "The account, `@NAME:SERVER`: an access token of another one is not used.",
                    ),
                    (
                        "token-file",
                        "off",
                        "A file with the account's access token, beside this file, or `credential:NAME`; readable by the daemon's user alone. Tokens that expire are not renewed.",
                    ),
                ],
            },
            Table {
                heading: "[relay]",
                with: "",
                keys: &[
                    (
                        "serve",
                        "`true`",
                        "Whether a signalling server (`[signal] listen`, `lcroute signal`) relays by TURN, too.",
                    ),
                    (
                        "private",
                        "`false`",
                        "Whether it relays to private addresses (RFC 1918, unique local, shared, of laboratories), and to hosts that it reaches without a router.",
                    ),
                    (
                        "open",
                        "`false`",
                        "Whether it relays for all who are registered; else for those who show certificates of their network.",
                    ),
                    (
                        "rate",
                        "`\"20M\"`",
                        "Bits a second that one node may send and get over it, headers and at least 256 bytes a packet counted.",
                    ),
                    (
                        "rate_total",
                        "`\"200M\"`",
                        "The same for all nodes together.",
                    ),
                    (
                        "leaf_rate",
                        "`\"20M\"`",
                        "The same for all leaves of one network together, of which each has 1 Mbit/s. They reach relayed addresses of this server alone.",
                    ),
                    (
                        "addresses",
                        "those of the host",
                        "Its public addresses, where a NAT stands before it: one of each family counts.",
                    ),
                    (
                        "ask",
                        "`true`",
                        "Ask signalling servers for their relay: one that relays for members sees this node's certificates (name, labels, groups).",
                    ),
                    (
                        "turn",
                        "none",
                        "Relays to use beside those of the signalling servers: `turn:HOST[:PORT]` (UDP, else TCP; `?transport=udp` or `tcp` for one of them), `turns:HOST[:PORT]` (TLS).",
                    ),
                    ("user", "none", "The user's name there."),
                    ("password_file", "none", "A file with the password."),
                    (
                        "secret_file",
                        "none",
                        "Instead: a file with the secret of which name and password are made (coturn's `use-auth-secret`).",
                    ),
                ],
            },
            Table {
                heading: "[ice]",
                with: "",
                keys: &[
                    (
                        "stun",
                        "none",
                        "More STUN servers, `HOST:PORT`; every signalling server is one already.",
                    ),
                    (
                        "port",
                        "0",
                        "The UDP port of all links; 0 lets the system choose.",
                    ),
                    (
                        "interfaces",
                        "all",
                        "Use the addresses of these interfaces only.",
                    ),
                    (
                        "map_port",
                        "true",
                        "Ask the router to map the port to this host: by PCP, else NAT-PMP, else UPnP. Other hosts then reach it directly, whatever NAT they are behind. Only a router on a LAN is asked, where this host has a private IPv4 address. The same holds for ports of what waits outside: keys with `[outside] dht`, stations, lectures and groups with networks of their own.",
                    ),
                    (
                        "policy",
                        "`\"all\"`",
                        "`relay`: members that `disclose` does not name are linked over relays alone, and learn no address of this host. LAN discovery, the folder, the DHT, the Matrix room and the router are not used then, and STUN servers only if `disclose` names somebody.",
                    ),
                    (
                        "disclose",
                        "nobody",
                        "Members that see this host's addresses although the policy is `relay`: `label:KEY=VALUE`, `book:NAME` or a PeerId.",
                    ),
                ],
            },
            Table {
                heading: "[network]",
                with: "",
                keys: &[
                    (
                        "profile",
                        "none",
                        "`lan`: `unicast = true`, groups of scope 2 by which programs find each other (ff02::1 for UDP, ::5, ::6, ::9, ::c, ::12, ::fb, ::fd, ::1:3, ::1:6, ff12::8384; of IPv4 224.0.0.1 for UDP, .5, .6, .9, .18, .251, .252), `ipv4 = true`, and routes for scope 5. What is set beside it wins.",
                    ),
                    (
                        "unicast",
                        "`false`",
                        "Carry packets between node addresses too: opens this host's ports to the network's members.",
                    ),
                    (
                        "announce",
                        "none",
                        "Groups that this node owns: their tree has its root here. Prefixes, 64 at most.",
                    ),
                    (
                        "watch",
                        "none",
                        "Groups whose listeners programs here want to know of (by MLD reports) before they send. Prefixes, 64 at most.",
                    ),
                    (
                        "link_scope_groups",
                        "none",
                        "Groups of scope 2 that are carried, such as `ff02::fb` and `224.0.0.251` for mDNS; to `ff02::1` and `224.0.0.1` UDP alone.",
                    ),
                    (
                        "upload",
                        "found out",
                        "Bits a second that this host can send, such as `\"20M\"`. Where copies of its own multicast need more than half of it, other nodes carry them. `\"0\"`: one copy, wherever a node carries.",
                    ),
                    (
                        "carry",
                        "`\"joined\"`",
                        "For which senders this node carries: `joined`, of groups that something here listens to, and of neighbours as long as it passes on one copy; `any`; `no`.",
                    ),
                ],
            },
            Table {
                heading: "[[lan]]",
                with: "interface = \"eth0\"\n",
                keys: &[
                    (
                        "interface",
                        "needed",
                        "The interface; of a bridge the bridge, not a port. Or a pattern such as `br-*`: all that match, as they come and go.",
                    ),
                    (
                        "groups",
                        "the routes of `[tun]`",
                        "Groups that are carried, of IPv6 and, where `[tun] ipv4` is on, of IPv4.",
                    ),
                    (
                        "send",
                        "`true`",
                        "Hosts of the LAN may send into the network.",
                    ),
                    ("receive", "`true`", "Hosts of the LAN hear the network."),
                    (
                        "sources",
                        "the prefixes that are on link",
                        "Addresses of hosts that may send. In a segment also of IPv4, and no other hosts of the LAN are reached.",
                    ),
                    (
                        "rate",
                        "`\"100M\"`",
                        "What hosts together may send, in bits a second; each has a fair part.",
                    ),
                    (
                        "rate_out",
                        "`\"100M\"`",
                        "What is sent into the LAN, in bits a second.",
                    ),
                    (
                        "priority",
                        "`0`",
                        "Of several gateways the one with the greatest serves, all else being equal.",
                    ),
                    (
                        "reflect",
                        "none",
                        "`[\"mdns\"]`: multicast DNS goes from and to other links.",
                    ),
                    (
                        "advertise",
                        "`false`",
                        "Hosts of a LAN without a router are given a prefix to make addresses of.",
                    ),
                    (
                        "segment",
                        "none",
                        "All LANs of this name are one LAN for their hosts. The certificate needs the label: `lcroute invite --segment NAME`.",
                    ),
                    (
                        "router",
                        "none",
                        "A free address of the LAN, to which its router has a route for the segment's other subnets.",
                    ),
                    (
                        "broadcast",
                        "`\"5M\"`",
                        "Broadcast and groups of the link that leave this LAN of a segment, in bits a second; each host has a fair part.",
                    ),
                ],
            },
            Table {
                heading: "[[serve]]",
                with: "protocol = \"/x\"\nto = \"[::1]:1\"\n",
                keys: &[
                    (
                        "protocol",
                        "needed",
                        "The name of what is spoken there, such as `/ssh/1`.",
                    ),
                    (
                        "to",
                        "needed",
                        "Where it is served: `ADDRESS:PORT` (TCP) or `unix:/PATH`; each stream of another node is a connection.",
                    ),
                    (
                        "allow",
                        "`[]`",
                        "Nodes that may: names, PeerIds, `label:KEY=VALUE`, `book:NAME`.",
                    ),
                    ("allow_all", "`false`", "All members of the network may."),
                    (
                        "outside",
                        "`false`",
                        "Keys of `allow` may from outside of this host's networks, too ([outside](guide/outside.md)).",
                    ),
                    (
                        "anyone",
                        "`false`",
                        "With `outside`, any key may: whoever has this host's key sees at which address it is.",
                    ),
                ],
            },
            Table {
                heading: "[outside]",
                with: "",
                keys: &[
                    (
                        "meet",
                        "`[]`",
                        "Signalling servers where this host waits and looks for keys outside of its networks: `wss://HOST`, `ws://HOST:PORT` or `HOST`.",
                    ),
                    (
                        "dht",
                        "`false`",
                        "They are found by the DHT of `[signal] dht_bootstrap`, too: its nodes see this host's address. lcroute-outside starts a lcroute-reach for it.",
                    ),
                    ("mbit", "20", "Megabits a second of all of them together."),
                ],
            },
            Table {
                heading: "[streams]",
                with: "",
                keys: &[(
                    "metrics",
                    "off",
                    "`lcroute-streams` serves metrics of its own here: `ADDRESS:PORT`, or the absolute path of a unix socket (mode 0660).",
                )],
            },
            Table {
                heading: "[topology]",
                with: "",
                keys: &[
                    (
                        "policy",
                        "`\"auto\"`",
                        "`auto` (a mesh up to 8 nodes, regular above), `mesh` (to everyone), `regular` (to `degree` others), `fractal` (cells of cells) or `tree` (as few links as there can be). The same on all nodes.",
                    ),
                    (
                        "degree",
                        "8",
                        "How many links a node has under `regular`, 2 to 64.",
                    ),
                ],
            },
            Table {
                heading: "[live]",
                with: "",
                keys: &[
                    (
                        "media",
                        "`true`",
                        "Offer the media lane (SRTP); without it, data channels carry everything.",
                    ),
                    (
                        "queue_ms",
                        "20",
                        "How long a packet may wait for a slow link, in milliseconds.",
                    ),
                    (
                        "repair_ms",
                        "25",
                        "How much later than at its first try a packet may still come by repair, in milliseconds; 0: no repair.",
                    ),
                ],
            },
            Table {
                heading: "[[private]]",
                with: "prefix = \"ff1e:7::/32\"\n",
                keys: &[
                    (
                        "prefix",
                        "needed",
                        "Packets to these groups are sealed from end to end. Of several that contain a group the longest counts. Not with `segment`.",
                    ),
                    (
                        "segment",
                        "none",
                        "In place of `prefix`: the segment of a `[[lan]]`, whose gateways seal all its packets for each other. Needs a `keyfile`.",
                    ),
                    (
                        "keyfile",
                        "none",
                        "What the members of the groups share, as `lcroute keygen` makes it: a file, relative to this one, or `credential:NAME`. Without it nothing of the prefix leaves or enters this host until a program gives keys (`lcgroup protect`).",
                    ),
                    (
                        "next",
                        "none",
                        "The key that follows: what it seals is opened already.",
                    ),
                    (
                        "lans",
                        "false",
                        "Hosts of LANs send to these groups and receive them, in clear.",
                    ),
                ],
            },
            Table {
                heading: "[leaf]",
                with: "",
                keys: &[
                    (
                        "max",
                        "`512`",
                        "Links with leaves at a time, listeners that are no routers; 0: none. A leaf has two, with two routers. Read at the start.",
                    ),
                    (
                        "mbit",
                        "50",
                        "Megabits a second that packets for all leaves together may take; packets beyond are dropped (`leaf_rate`). Read at the start.",
                    ),
                ],
            },
            Table {
                heading: "[web]",
                with: "",
                keys: &[
                    (
                        "listen",
                        "`\"[::1]:7180\"`",
                        "Where `lcroute web` serves its pages: `ADDRESS:PORT`; loopback is for browsers of this host alone.",
                    ),
                    (
                        "names",
                        "none",
                        "Names by which browsers reach the pages, beside `localhost` and addresses; with TLS the first is in the address that is printed.",
                    ),
                    (
                        "report",
                        "false",
                        "While somebody in the network looks at a page, tell the members which groups this node carries over which links, and how much.",
                    ),
                    (
                        "invite",
                        "false",
                        "Make invitations on the dashboard, for who has the code that `lcroute web --code` prints to root and group `lcroute`.",
                    ),
                    (
                        "groups",
                        "false",
                        "Show the conversations of lcgroup on this host to who has the key of the pages, and let them speak there, make groups, join and invite. The pages must be allowed to ask lcgroup (group `lcgroup`).",
                    ),
                    (
                        "tls_cert",
                        "no TLS",
                        "Certificates of the pages, PEM; together with `tls_key`.",
                    ),
                    ("tls_key", "no TLS", "Their key, PEM."),
                ],
            },
            Table {
                heading: "[players]",
                with: "",
                keys: &[
                    (
                        "listen",
                        "off",
                        "Where `lcroute web` serves groups and stations to players, without key and encryption: `ADDRESS:PORT`. It serves nothing else there.",
                    ),
                    (
                        "groups",
                        "none",
                        "Groups of this node's `lc0` that are offered, by name, such as `{ camera = \"[ff1e::42]:5004\" }`; at most 32. No other group can be asked for.",
                    ),
                    (
                        "stations",
                        "none",
                        "Stations that are offered, by name, such as `{ news = \"lcr1...\" }`; at most 32. The text of a private station is secret.",
                    ),
                    (
                        "public",
                        "false",
                        "Offer all public stations that announce themselves in the network.",
                    ),
                    (
                        "clients",
                        "200",
                        "Clients at a time; at most 1,024. Further ones are refused.",
                    ),
                    ("per_address", "16", "Clients of one address at a time."),
                ],
            },
            METRICS,
        ],
    },
    File {
        path: "lcsync.toml (`lcsync share --config`), /etc/lcsync/NAME.toml",
        parse: |text| {
            let file = tempfile(text);
            let read = lcsync::server::config::read(&file);
            let _ = std::fs::remove_file(&file);
            read.map(drop).map_err(|e| e.to_string()).unwrap_err()
        },
        tables: &[
            Table {
                heading: "[[share]]",
                with: "path = \"x\"\n",
                keys: &[
                    ("path", "needed", "File or folder; relative to this file."),
                    (
                        "name",
                        "the last part of the path",
                        "It is fetched as `lc:NAME`.",
                    ),
                    (
                        "keyfile",
                        "open to all",
                        "The shared key that seals everything; relative to this file, or `credential:NAME`.",
                    ),
                    (
                        "sign",
                        "not signed",
                        "The key that signs versions; relative to this file, or `credential:NAME`.",
                    ),
                    (
                        "lcgroup",
                        "none",
                        "A group of lcgroup on this host whose members may fetch it: both keys are the group's, instead of `keyfile` and `sign`.",
                    ),
                    (
                        "interface",
                        "all that are watched",
                        "A name or a list of names: serve on these only.",
                    ),
                    (
                        "bwlimit",
                        "none",
                        "Send no faster than this, in bits per second.",
                    ),
                    (
                        "listed",
                        "false",
                        "Name the share to who asks what is shared, with `lcsync ls`.",
                    ),
                ],
            },
            METRICS,
        ],
    },
    File {
        path: "/etc/lcagent/lcagent.toml",
        parse: |text| {
            let read = lcagent::agent::config::Config::parse("f", text);
            read.map(drop).map_err(|e| e.to_string()).unwrap_err()
        },
        tables: &[
            Table {
                heading: "",
                with: "",
                keys: &[
                    (
                        "name",
                        "the host's name",
                        "This node's name; letters, digits and `-_.:@`, at most 63.",
                    ),
                    (
                        "labels",
                        "none",
                        "What selectors select by, such as `{ role = \"web\" }`; on lc0 those of the node's certificate are added.",
                    ),
                    ("interface", "all", "A name or a list of names."),
                    (
                        "channel",
                        "`\"lcagent\"`",
                        "Agents and operators of other channels do not meet.",
                    ),
                    (
                        "modules",
                        "`/etc/lcagent/modules`",
                        "Folder of the executables that `@NAME` runs.",
                    ),
                ],
            },
            Table {
                heading: "[[allow]]",
                with: "key = \"12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp\"\ncommands = []\n",
                keys: &[
                    ("key", "needed", "The operator's public key."),
                    ("name", "none", "What logs call him."),
                    (
                        "commands",
                        "needed",
                        "Patterns, word by word: `\"uptime\"`, `\"systemctl restart *\"`, `\"@MODULE *\"`, `\"copy:/srv/*\"`, `\"revoke:*\"`, or `\"*\"` for all that can be run. \
                         In a word `*` and `?` stand for characters but `/`, `**` for any, none of them for a part `..` of a path; a word `*` for an argument that is no option, \
                         as the last one for any number of these, a last word `**` for any further arguments. In `copy:` a `*` stands for `/` too.",
                    ),
                    ("user", "the agent's", "As whom it runs."),
                    ("timeout", "the command's own", "Longest time of a job."),
                    (
                        "output",
                        "16777216",
                        "Most output of a job that is kept, in bytes.",
                    ),
                    ("memory", "none", "Most memory of a job."),
                    (
                        "labels",
                        "any",
                        "Only while the node has these labels (globs in the values).",
                    ),
                ],
            },
            METRICS,
        ],
    },
];

fn tempfile(text: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("reference-{}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    file
}

/// Writes the keys of this file, complete by the parser's error for an unknown key.
fn configuration(out: &mut String, file: &File) {
    let _ = writeln!(out, "### {}\n", file.path);
    for table in file.tables {
        let answer = (file.parse)(&format!(
            "{}\n{}no_such_key = 1\n",
            table.heading, table.with
        ));
        let (_, expected) = answer
            .split_once("unknown field `no_such_key`, expected ")
            .unwrap_or_else(|| panic!("{answer}"));
        let known: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
        let tables: BTreeSet<&str> = file
            .tables
            .iter()
            .map(|t| t.heading.trim_matches(['[', ']']))
            .collect();
        let known: BTreeSet<&str> = match table.heading {
            "" => known
                .into_iter()
                .filter(|k| !tables.contains(k) || table.keys.iter().any(|(key, ..)| key == k))
                .collect(),
            _ => known,
        };
        let here: BTreeSet<&str> = table.keys.iter().map(|(key, ..)| *key).collect();
        assert_eq!(here, known, "{} {}", file.path, table.heading);
        let title = if table.heading.is_empty() {
            "at the top"
        } else {
            table.heading
        };
        let _ = writeln!(
            out,
            "| `{title}` | where it is not set | what it says |\n|---|---|---|"
        );
        for (key, default, says) in table.keys {
            let _ = writeln!(out, "| `{key}` | {} | {} |", cell(default), cell(says));
        }
        out.push('\n');
    }
}
