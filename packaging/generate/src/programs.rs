//! The part of each program's contract that its command line does not contain.

/// A program that is packaged.
pub struct Program {
    /// Its name, and the package's.
    pub name: &'static str,
    /// The command before its subcommands.
    pub called: &'static str,
    /// Its command line.
    pub command: fn() -> clap::Command,
    /// Files that it reads or makes.
    pub files: &'static [(&'static str, &'static str)],
    /// Its exit codes.
    pub exit_status: &'static [(&'static str, &'static str)],
    /// Variables of its own that its options do not name.
    pub environment: &'static [(&'static str, &'static str)],
    /// Pages to read next.
    pub see_also: &'static [&'static str],
    /// Foreign works in its package that are not crates.
    pub vendored: &'static [Vendored],
}

/// A foreign work in this source tree: the head of its file has name, version and owner.
pub struct Vendored {
    /// Its file.
    pub file: &'static str,
    /// The content of the file.
    pub text: &'static str,
    /// Its licence, an SPDX expression.
    pub licence: &'static str,
}

impl Program {
    /// Returns whether its package has the page of a subcommand.
    pub fn has_page_of(&self, verb: &str) -> bool {
        let of_others = lcroute_lab::VERBS.iter().chain(&lcroute_web::VERBS);
        let of_others = of_others.chain(&lcroute_streams::VERBS);
        match self.name {
            "lcroute" => !of_others.into_iter().any(|other| *other == verb),
            // lcroute-outside(1) is the page of the program that `lcroute outside` asks
            "lcroute-streams" => verb != "outside",
            "lcstudio" => verb != "notes",
            "lcstudio-notes" => verb == "notes",
            _ => true,
        }
    }
}

/// Makes a table, with a line for each row.
macro_rules! rows {
    ($($name:literal, $meaning:literal;)*) => {
        &[$(($name, $meaning),)*]
    };
}

/// The exit codes, the same for each program.
const EXIT_STATUS: &[(&str, &str)] = rows! {
    "0", "done";
    "1", "failed";
    "2", "wrong usage or configuration";
    "3", "timed out, or not reachable";
    "4", "not permitted: a capability, key or certificate is missing";
    "130, 143", "interrupted by SIGINT or SIGTERM before it was finished; daemons then end with 0";
};

/// Variables of all programs.
pub const COMMON: &[(&str, &str)] = rows! {
    "RUST_LOG", "what is logged, where neither --log nor a configuration says so";
    "NO_COLOR", "set: no colours, no bars of progress";
};

/// All programs.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "lcroute",
        called: "lcroute",
        command: lcroute_lab::lcroute,
        files: rows! {
            "/etc/lcroute/lcroute.toml", "configuration; every key is in it, commented out";
            "/etc/lcroute/signal.env", "LISTEN= and OPTIONS= of lcroute-signal.service";
            "/var/lib/lcroute/", "the node's key, its membership, revocations: back it up, show it to nobody; of others than root $XDG_STATE_HOME/lcroute";
            "/run/lcroute/control.sock", "where the daemon answers root and the group lcroute; of others than root $XDG_RUNTIME_DIR/lcroute/control.sock";
            "/run/lcroute/view.sock", "where it answers root and the group lcroute-view what shows how things stand: status, peers, groups, lan";
            "/run/lcroute/keys.sock", "where it takes keys of private prefixes from root and the group lcroute-keys (lcgroup protect)";
        },
        exit_status: EXIT_STATUS,
        environment: &[],
        see_also: &["lcsync(1)", "lcagent(1)", "systemctl(1)", "ip-maddress(8)"],
        vendored: &[],
    },
    Program {
        name: "lcroute-lab",
        called: "lcroute",
        command: lcroute_lab::command,
        files: rows! {
            "/usr/lib/lcroute/lcroute-lab", "the program that lcroute executes for this verb";
        },
        exit_status: rows! {
            "0", "done";
            "1", "failed; a rule was broken in a simulation";
            "2", "wrong usage";
            "130, 143", "interrupted by SIGINT or SIGTERM";
        },
        environment: &[],
        see_also: &["lcroute(1)"],
        vendored: &[],
    },
    Program {
        name: "lcroute-web",
        called: "lcroute",
        command: lcroute_web::command,
        files: rows! {
            "/etc/lcroute/lcroute.toml", "configuration: [web] says where pages are served, by which names, and with which certificate";
            "/run/lcroute-web/web.url", "the address of the pages of lcroute-web.service, with their key: for root and the group lcroute; of others web.url beside the control socket";
            "/usr/share/lcroute/web/", "the pages";
            "/usr/lib/lcroute/lcroute-web", "the program that lcroute executes for this verb";
        },
        exit_status: EXIT_STATUS,
        environment: &[],
        see_also: &["lcroute(1)", "systemctl(1)"],
        vendored: &[
            Vendored {
                file: "web/pages/vendor/d3-force.js",
                text: include_str!("../../../web/pages/vendor/d3-force.js"),
                licence: "ISC",
            },
            Vendored {
                file: "web/pages/vendor/loro.js",
                text: include_str!("../../../web/pages/vendor/loro.js"),
                licence: "MIT",
            },
        ],
    },
    Program {
        name: "lcroute-streams",
        called: "lcroute",
        command: lcroute_streams::command,
        files: rows! {
            "/etc/lcroute/lcroute.toml", "configuration: each [[serve]] is a protocol that other nodes may speak with a server of this host";
            "/run/lcroute/streams.sock", "where root and the group lcroute ask for streams; of others than root $XDG_RUNTIME_DIR/lcroute/streams.sock";
            "/run/lcroute/sign.sock", "where the daemon signs handshakes of streams, for root and the group lcroute-streams";
            "/usr/lib/lcroute/lcroute-streams", "the program that lcroute executes for this verb";
        },
        exit_status: rows! {
            "0", "done; the stream ended on both sides";
            "1", "failed; no protocol in common, or the stream broke off";
            "2", "wrong usage or configuration";
            "3", "the node cannot be reached, or has no program for streams";
            "4", "the node does not allow this one, or this user may not ask";
            "130, 143", "interrupted by SIGINT or SIGTERM; serve, forward and streams then end with 0";
        },
        environment: &[],
        see_also: &["lcroute(1)", "systemctl(1)", "ssh(1)"],
        vendored: &[],
    },
    Program {
        name: "lcroute-outside",
        called: "lcroute-outside",
        command: lcroute_outside::command,
        files: rows! {
            "/run/lcroute/outside.sock", "where the program for streams says who may call and who is sought, for root and the group lcroute-streams";
            "/usr/lib/lcroute/lcroute-outside", "this program, as lcroute-outside.service runs it";
        },
        exit_status: EXIT_STATUS,
        environment: &[],
        see_also: &["lcroute(1)", "lcroute-streams(1)", "systemctl(1)"],
        vendored: &[],
    },
    Program {
        name: "lcroute-reach",
        called: "lcroute-reach",
        command: lcroute_reach::command,
        files: rows! {
            "/run/lcroute/reach.sock", "where the daemon says what to keep in a DHT and a Matrix room, for root and the group lcroute-reach";
            "/usr/lib/lcroute/lcroute-reach", "this program, as lcroute-reach.service runs it";
        },
        exit_status: EXIT_STATUS,
        environment: &[],
        see_also: &["lcroute(1)", "systemctl(1)"],
        vendored: &[],
    },
    Program {
        name: "lcsync",
        called: "lcsync",
        command: lcsync::command,
        files: rows! {
            "/etc/lcsync/NAME.toml", "what lcsync@NAME.service shares; example.toml.sample has every key";
            "/var/cache/lcsync/", "what was hashed: a restart reads only what has changed; of others than root $XDG_CACHE_HOME/lcsync or ~/.cache/lcsync";
            "/var/lib/lcsync/", "which version of each signed or sealed share this host has had: none before it is taken; of others than root $XDG_STATE_HOME/lcsync or ~/.local/state/lcsync";
            "/run/lcsync/", "sockets where servers answer `lcsync status`, those of services in /run/lcsync/NAME/; of who has one in $XDG_RUNTIME_DIR/lcsync";
            "DEST/.lcsync-partial*", "what has come of files that are not whole yet: a fetch that was interrupted goes on from there";
        },
        exit_status: EXIT_STATUS,
        environment: rows! {
            "XDG_CACHE_HOME, XDG_STATE_HOME, XDG_RUNTIME_DIR", "where folders of lcsync are made, see FILES; in a service CACHE_DIRECTORY, STATE_DIRECTORY and RUNTIME_DIRECTORY name them themselves";
        },
        see_also: &["lcroute(1)", "rsync(1)", "systemctl(1)"],
        vendored: &[],
    },
    Program {
        name: "lcagent",
        called: "lcagent",
        command: lcagent::command,
        files: rows! {
            "/etc/lcagent/lcagent.toml", "the agent's configuration; every key is in it, commented out";
            "/etc/lcagent/modules/", "executables that operators run as @NAME";
            "/var/lib/lcagent/", "the agent's: agent.key; audit.log, what lcagent-log(1) shows; jobs/; replay, the commands seen; revoked, the keys whose commands are executed no more; of others than root $XDG_STATE_HOME/lcagent";
            "$XDG_CONFIG_HOME/lcagent/operator.key", "an operator's key, readable by him alone; operator.key.pub, which nodes list; operator.key.cert, what another operator has given him by lcagent-certify(1)";
            "$XDG_STATE_HOME/lcagent/known_agents", "the nodes that an operator has met, and which of them he has accepted: a line of JSON each";
        },
        exit_status: rows! {
            "0", "done; every selected node has done it, with exit code 0";
            "1", "failed; a node failed, refused, or does not know the key (this wins over 3)";
            "2", "wrong usage or configuration";
            "3", "a node that is known did not answer in time, nobody matched, or no interface can be used";
            "4", "not permitted: no key, one that others can read, or a node that --encrypt may not seal for";
            "130, 143", "interrupted by SIGINT or SIGTERM, and the jobs ended with it; the agent then ends with 0";
        },
        environment: rows! {
            "XDG_CONFIG_HOME, XDG_STATE_HOME", "where an operator's files are; without them ~/.config and ~/.local/state";
        },
        see_also: &["lcroute(1)", "lcsync(1)", "systemctl(1)"],
        vendored: &[],
    },
    Program {
        name: "lcgroup",
        called: "lcgroup",
        command: lcgroup::command,
        files: rows! {
            "/var/lib/lcgroup/groups/NAME/", "a group: state, its keys; log, the entries of all members; messages, what was said, a line of JSON each; of others than root $XDG_STATE_HOME/lcgroup";
            "/var/lib/lcgroup/held/NAME/", "a group that is held for others: key, which opens its packets and no message; log";
            "/run/lcgroup/control.sock", "where the service answers root and the group lcgroup; of others than root $XDG_RUNTIME_DIR/lcgroup/control.sock";
        },
        exit_status: rows! {
            "0", "done";
            "1", "failed";
            "2", "wrong usage";
            "3", "no lcgroup runs here";
            "4", "not permitted";
            "130, 143", "interrupted by SIGINT or SIGTERM; lcgroup run then ends with 0";
        },
        environment: rows! {
            "XDG_STATE_HOME, XDG_RUNTIME_DIR", "where groups and the socket of others than root are";
        },
        see_also: &["lcroute(1)", "lcsync(1)", "lcagent(1)", "systemctl(1)"],
        vendored: &[],
    },
    Program {
        name: "lcradio",
        called: "lcradio",
        command: lcradio::command,
        files: rows! {
            "FILE of keygen", "a station's key: who has it casts; back it up, show it to nobody";
            "FILE.gaps", "beside a recording that lacks something: where each gap begins and how long it is, in seconds, and how many packets are missing";
        },
        exit_status: rows! {
            "0", "done; the station has ended";
            "1", "failed; another caster has the same key";
            "2", "wrong usage";
            "3", "nothing came for --timeout, or no such station announced itself";
            "4", "not permitted; someone sends here, and this key does not open it";
            "130, 143", "interrupted by SIGINT or SIGTERM";
        },
        environment: &[],
        see_also: &["lcroute(1)", "lcsync(1)", "ffmpeg(1)"],
        vendored: &[],
    },
    Program {
        name: "lcstudio",
        called: "lcstudio",
        command: lcstudio::command,
        files: rows! {
            "FILE of keygen", "a session's key: who has it presents; back it up, show it to nobody. FILE.pub is for who lets others write captions";
            "DIR/session.toml, slides.md, images/", "what is presented: title, languages, who writes captions; slides; pictures";
            "DIR/session", "the session's text, lcs1...: who has it attends";
            "DIR/log/", "what was presented, an entry after the other; of who presents and of who holds";
            "$XDG_STATE_HOME/lcstudio/", "captions that were written on this host";
        },
        exit_status: rows! {
            "0", "done; the session has ended";
            "1", "failed";
            "2", "wrong usage or session.toml";
            "3", "nobody was heard for --timeout";
            "4", "not permitted; the presenter lets this key write no captions";
            "130, 143", "interrupted by SIGINT or SIGTERM; present and hold then end with 0";
        },
        environment: rows! {
            "XDG_STATE_HOME, LCSTUDIO_STATE_DIR", "where captions are kept that were written";
            "LC_ALL, LC_MESSAGES, LANG", "the language of captions and sound that is chosen";
        },
        see_also: &["lcroute(1)", "lcradio(1)", "lcsync(1)"],
        vendored: &[],
    },
    Program {
        name: "lcstudio-notes",
        called: "lcstudio",
        command: lcstudio::command,
        files: rows! {
            "$XDG_STATE_HOME/lcstudio/", "notes of each session, with what was written on this host and is not with others yet";
            "/usr/lib/lcroute/lcstudio-notes", "the program that lcstudio executes for this verb";
        },
        exit_status: EXIT_STATUS,
        environment: &[],
        see_also: &["lcstudio(1)"],
        vendored: &[],
    },
];
