//! The command line: what can be said.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use lcroute_control::config::{Config, signal_url};
use lcroute_control::settings::{Common, Overrides};
use lcroute_signalling::server::{PUBLIC_PER_ADDRESS, Strangers};
use librecast::cert::{GroupPrefix, MAX_USES, SourcePrefix};
use librecast::id::NetworkId;
use librecast::reach::Room;
use librecast_program::book;
use librecast_program::cli::{self, Exit, init_logging};
use librecast_program::keygen::{KeyKind, keygen};
use librecast_program::metrics::Listen;
use librecast_program::page_link;
use librecast_program::units;

use crate::commands;
use crate::commands::query::{Shape, What};
use crate::commands::words::GOOD_FOR;
use crate::private;
use crate::servers::served_relay;

const EXAMPLES: &str = "\
Examples:
  sudo lcroute up                           found a network, print a token
  sudo lcroute up lct1...                   on another host: join it
  lcroute listen ff1e::42                   on one host ...
  lcroute say ff1e::42 hello                ... and on another
  lcroute demo                              see it work on this machine
  lcroute VERB --help                       more of a verb";

const DOCTOR: &str = "\
Works with and without a running daemon; as root it sees more. Nothing is changed.

Examples:
  lcroute doctor
  lcroute doctor --json | jq '.checks[] | select(.state == \"fail\")'";

const UP: &str = "\
With the package it starts the service, now and with each boot; without systemd it is the daemon, in the foreground.
Without TOKEN it takes LCROUTE_TOKEN, or what is in the file that LCROUTE_TOKEN_FILE names: it joins by that once, and a later
start with the same token is a member already.

Examples:
  sudo lcroute up                 found a network, or be in again
  sudo lcroute up lct1...         join one
  sudo lcroute up tiger-harbor-lemon-quiz
                                  join by the words of lcroute invite --code";

const MEET: &str = "\
For nodes without a signalling server in common. Each takes the other's text; which comes first does not matter.

Examples:
  lcroute meet | mail -s lcroute friend@example.org
  lcroute meet --with mail.txt
  lcroute meet --qr code.png";

const GUEST: &str = "\
The program sees two interfaces, lo and lc0: what it joins comes, and nothing else. By a leaf's token it only receives;
by a member's token or a code it also sends. It has the rights of its user. Its exit code is that of the guest; 4 where
the token is refused, or this user may not make namespaces. When it ends, all that it has started ends. lcradio, lcsync
and lcstudio enter by themselves. Nodes of a code meet on the LANs of their hosts, and at the server after its @, else
that of LCROUTE_SIGNAL, else those of [signal] in ~/.config/lcroute/lcroute.toml.

Examples:
  lcroute guest lct1... -- ffplay 'udp://[ff1e:5::42]:5004'
  lcroute guest --token-file token      a shell
  lcroute guest --found                 a shell in a network of four words; prints them
  lcroute guest --found --public -- ffmpeg ...
                                        sends; prints a token for leaves, which may be public
  lcroute guest tiger-harbor-lemon-quiz@meet.example
                                        a shell of whoever has the words
  lcradio listen lct1...,lcr1...        the same for a radio
  lcsync send FILE, lcsync receive WORDS
                                        the same for files";

const STREAMS: &str = "Another program of this package, lcroute-streams, does this.";
const WEB: &str = "Another program, of the package lcroute-web, does this.";
const LAB: &str = "Another program, of the package lcroute-lab, does this.";

/// Bit/s of a public server's relay for all strangers together. Chosen: ten calls with pictures.
const RELAY_STRANGERS: u64 = 50_000_000;

/// The WebRTC crates log every packet they do not like.
const DAEMON_LOG: &str = "info,rtc=error,rtc_ice=error,rtc_sctp=error,dimpl=error";

/// Warnings only: a router has hundreds of listeners.
const LEAF_LOG: &str = "error,lcroute=warn,rtc=off,rtc_ice=off,rtc_sctp=off,dimpl=off";

/// Standard error is the program's; a guest prints sentences about faults.
const GUEST_LOG: &str = "error,rtc=off,rtc_ice=off,rtc_sctp=off,dimpl=off";

/// Multicast for everyone: an interface, lc0, on which IPv6 multicast reaches every listener on
/// every other node of its network.
#[derive(Debug, Parser)]
#[command(name = "lcroute", version, help_template = help(), after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Three nodes behind closed firewalls on this machine: watch the whole thing work
    #[command(disable_help_flag = true, after_help = LAB)]
    Demo(OfAnother),
    /// Measure multicast on this machine: highest rate, CPU, latency
    #[command(disable_help_flag = true, after_help = LAB)]
    Bench(OfAnother),
    /// A new identity and a new network, with this node as its first issuer
    Init {
        /// This node's name [default: the host's]
        #[arg(long)]
        name: Option<String>,
    },
    /// Be in: init, or join by TOKEN; start the daemon, wait for the first link
    #[command(after_help = UP)]
    Up(commands::up::UpOptions),
    /// Be out: stop the daemon; the host stays a member
    Down,
    /// Link two hosts by texts that people carry: print this node's, or take the other's
    #[command(after_help = MEET)]
    Meet {
        /// Print a QR code, or write it to a file: NAME.svg, else a PNG
        #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "with")]
        qr: Option<Option<PathBuf>>,
        /// Take another node's text from FILE, or - from standard input, in whatever a mail or chat made of it
        #[arg(long, value_name = "FILE")]
        with: Option<String>,
    },
    /// Print a token that makes other hosts members
    #[command(
        after_help = "Examples:\n  lcroute invite --code   prints four words to say on the telephone: lcroute up WORDS\n  lcroute invite --ttl 24h --label site=berlin --signal ws://meet.example:7117\n  lcroute invite --uses 1 --page https://alpha.example:7180 --qr   for a telephone: the link of a page that joins\n  lcroute invite --leaf --groups ff1e:5::/32 --ttl 365d   for any number of listeners\n  lcroute invite --ephemeral --ttl 365d   for containers without a volume, as long as it is good"
    )]
    Invite(Invite),
    /// Become a member by a token
    Join {
        /// The token, or its four words, or - to read it from standard input
        #[arg(required_unless_present = "take")]
        token: Option<String>,
        #[arg(hide = true)]
        more: Vec<String>,
        /// This node's name [default: the host's]
        #[arg(long)]
        name: Option<String>,
        /// How this program takes a token inside of a guest by its words, and prints it
        #[arg(long, hide = true, conflicts_with = "token")]
        take: bool,
    },
    /// The daemon, in the foreground
    Run {
        /// Interface name [default: lc0]
        #[arg(long, value_name = "NAME")]
        tun: Option<String>,
        /// Signalling server; may be repeated
        #[arg(long, value_name = "URL", value_parser = signal_url)]
        signal: Vec<String>,
    },
    /// Keep programs from sending to groups of [[private]] in clear while no daemon runs; the package does this before the
    /// network is up
    #[command(
        after_help = "The daemon closes these groups as well, and leaves them closed when it ends: no program sends to them or joins them that names no interface.\n\nExample: sudo lcroute close --end"
    )]
    Close {
        /// Let programs send to them again, by any interface
        #[arg(long)]
        end: bool,
    },
    /// The signalling server: WebSocket on TCP, STUN on the same UDP port, a relay on both
    #[command(
        after_help = "With --public its log has counts alone, neither keys nor addresses.\n\nExamples:\n  lcroute signal --listen [::]:7117\n  lcroute signal --public --listen [::]:443 --tls-cert fullchain.pem --tls-key privkey.pem"
    )]
    Signal {
        /// Where to listen
        #[arg(long, value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// Certificate chain in PEM: serve wss://
        #[arg(long, value_name = "FILE", requires = "tls_key")]
        tls_cert: Option<PathBuf>,
        /// Its key in PEM
        #[arg(long, value_name = "FILE", requires = "tls_cert")]
        tls_key: Option<PathBuf>,
        /// Serve strangers: small bounds for each address, room and client
        #[arg(long)]
        public: bool,
        /// Most connections from one IPv4 address or IPv6 /64; default 256, with --public 64
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        per_address: Option<u32>,
        /// Do not relay (TURN) for nodes between which no direct path leads
        #[arg(long)]
        no_relay: bool,
        /// Bit/s that the relay carries for all strangers together [default: 50M]
        #[arg(long, value_name = "RATE", value_parser = units::parse_rate, requires = "public", conflicts_with = "no_relay")]
        relay_strangers: Option<u64>,
        /// The network whose members come before strangers, as `lcroute id` prints it
        #[arg(
            long,
            value_name = "NETWORK",
            requires = "public",
            conflicts_with = "no_relay"
        )]
        members_of: Option<NetworkId>,
        /// Serve metrics here: ADDRESS:PORT, or the absolute path of a unix socket
        #[arg(long, value_name = "WHERE")]
        metrics: Option<Listen>,
    },
    /// Make a key that hosts share, for a private prefix
    #[command(
        after_help = "Example: lcroute keygen /etc/lcroute/team.key, and in lcroute.toml:\n  [[private]]\n  prefix = \"ff1e:7::/32\"\n  keyfile = \"team.key\""
    )]
    Keygen {
        /// Where the key goes, readable by you alone; nothing is overwritten
        file: PathBuf,
    },
    /// The address book: names and purposes of keys, as book:NAME wherever a node or a key is asked for
    #[command(
        after_help = "A person's book is $XDG_CONFIG_HOME/librecast/book.toml; daemons read /etc/librecast/book.toml alone.\n\nExamples:\n  lcroute book add mum 12D3KooW... --for voice,files\n  sudo lcroute book --host add ops /root/ops.pub --for admin\n  lcroute connect book:mum /demo/echo/1"
    )]
    Book {
        /// The host's book, which daemons read
        #[arg(long)]
        host: bool,
        #[command(subcommand)]
        verb: commands::book::BookVerb,
    },
    /// Expel a node, or all that came by a token, from the whole network
    #[command(
        after_help = "Examples:\n  lcroute revoke alpha\n  lcroute revoke 12D3KooW...\n  lcroute revoke --token - < token"
    )]
    Revoke {
        /// Its name, PeerId, address, or book:NAME
        #[arg(required_unless_present = "token")]
        node: Option<String>,
        /// The token, or - to read it from standard input
        #[arg(long, conflicts_with = "node")]
        token: Option<String>,
    },
    /// All that this node has seen of its network, absent nodes too
    Members {
        /// PeerIds and addresses, too
        #[arg(short, long)]
        verbose: bool,
    },
    /// Leave the network: stop the daemon, forget membership and key
    Leave {
        /// Also where this node is an issuer
        #[arg(long)]
        force: bool,
    },
    /// PeerId, node address and network
    Id {
        /// Print KEY or KEY@PLACE, by which others find this host outside of networks; makes a key if there is none
        #[arg(long)]
        contact: bool,
    },
    /// What the daemon is doing
    Status(Watch),
    /// Nodes with which a link exists or is tried
    Peers(Watch),
    /// Groups that are listened to or sent to
    Groups(Watch),
    /// LANs that this node is a gateway of: roles, listeners, sources, drops
    #[command(
        after_help = "Example: lcroute lan host 192.168.1.20",
        args_conflicts_with_subcommands = true
    )]
    Lan {
        #[command(flatten)]
        watch: Watch,
        #[command(subcommand)]
        verb: Option<LanVerb>,
    },
    /// All nodes that can be reached, and over whom
    Routes(Watch),
    /// Groups and peers by what they carry now
    Top {
        /// Once a second, for ever
        #[arg(long)]
        watch: bool,
    },
    /// Round trip to a node over the overlay
    #[command(after_help = "Example: lcroute ping alpha -c 10 -i 200ms")]
    Ping(commands::ping::PingOptions),
    /// Read the configuration again; with --exec, execute the binary anew and keep lc0
    Reload {
        /// Execute the binary anew (after an upgrade)
        #[arg(long)]
        exec: bool,
    },
    /// What may keep multicast from flowing on this host, and what to do about it; exit code 1 if something fails
    #[command(after_help = DOCTOR)]
    Doctor,
    /// Join a group with a plain socket and print what comes and from whom
    Listen {
        #[command(flatten)]
        group: Group,
    },
    /// Listen as a leaf: a link with two routers, and neither lc0 nor daemon; many in one process, to try a network with
    #[command(
        after_help = "Examples:\n  lcroute invite --leaf --groups ff1e::/16 > token\n  lcroute leaf ff1e::42 --token - < token\n  lcroute leaf ff1e::42 --count 500 --json --token - < token"
    )]
    Leaf(commands::leaf::LeafOptions),
    /// Run PROGRAM on an lc0 of its own, without root and daemon; without PROGRAM a shell
    #[command(after_help = GUEST)]
    Guest(commands::guest::GuestOptions),
    /// Print the QR code of a line of standard input, such as a link
    Qr,
    /// Send text to a group with a plain socket: TEXT, or lines from standard input
    Say {
        #[command(flatten)]
        group: Group,
        /// What to say
        text: Option<String>,
    },
    /// The network simulator: many nodes on virtual time, and the rules that must hold
    #[command(disable_help_flag = true, after_help = LAB)]
    Sim(OfAnother),
    /// Pages that show this node and its network, for browsers of this host
    #[command(disable_help_flag = true, after_help = WEB)]
    Web(OfAnother),
    /// Take streams of other nodes: a process for each, which reads and writes it
    #[command(disable_help_flag = true, after_help = STREAMS)]
    Serve(OfAnother),
    /// Open a stream to a program on another node: standard input goes there, what comes to standard output
    #[command(disable_help_flag = true, after_help = STREAMS)]
    Connect(OfAnother),
    /// Show the keys outside of this host's networks that may call, or are sought
    #[command(disable_help_flag = true, after_help = STREAMS)]
    Outside(OfAnother),
    /// Make each connection to a port or socket of this host a stream to a program on another node
    #[command(disable_help_flag = true, after_help = STREAMS)]
    Forward(OfAnother),
    /// The program for streams, in the foreground: what [[serve]] in the configuration says, and what the other verbs ask
    #[command(disable_help_flag = true, after_help = STREAMS)]
    Streams(OfAnother),
}

/// What another program reads itself.
#[derive(Debug, Args)]
struct OfAnother {
    /// Arguments; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Invite {
    /// How long hosts can join by it, such as 24h
    #[arg(long, default_value = "7d", value_parser = units::parse_duration)]
    ttl: Duration,
    /// How long its nodes stay members without hearing from an issuer; certificates renew themselves for as long
    #[arg(long, value_name = "D", default_value = "365d", value_parser = units::parse_duration)]
    member_ttl: Duration,
    /// Print four words in place of the token: the first host that says them, as in lcroute up WORDS, gets it. Then the words
    /// are no longer good
    #[arg(long, conflicts_with_all = ["leaf", "page", "session", "qr"])]
    code: bool,
    /// With --code: how long the words are good [default: 10m]
    #[arg(long = "for", value_name = "TIME", requires = "code", value_parser = units::parse_duration)]
    words_for: Option<Duration>,
    /// How this program hands over a token inside of a guest: in this inherited descriptor
    #[arg(long, value_name = "N", hide = true, requires = "code", value_parser = clap::value_parser!(i32).range(3..))]
    token_fd: Option<i32>,
    /// How many nodes can join by it; issuers count them, and expel those beyond [default: any number; with --code 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_USES)))]
    uses: Option<u32>,
    /// Its nodes live without a disk, as containers do, and are forgotten five minutes after they have gone: the label
    /// lifetime=ephemeral. With --uses it is for N nodes at a time
    #[arg(long)]
    ephemeral: bool,
    /// A label that its nodes get; may be repeated
    #[arg(long, value_name = "K=V", value_parser = label)]
    label: Vec<(String, String)>,
    /// Where its nodes meet; may be repeated [default: from the configuration]
    #[arg(long, value_name = "URL", value_parser = signal_url)]
    signal: Vec<String>,
    /// The Matrix room where its nodes meet, #ALIAS:SERVER or !ID:SERVER [default: from the configuration]
    #[arg(long, value_name = "ROOM", conflicts_with = "leaf")]
    matrix: Option<Room>,
    /// Groups that its nodes may send to; may be repeated [default: all]
    #[arg(long, value_name = "P")]
    prefix: Vec<GroupPrefix>,
    /// Its nodes may be roots of shared trees
    #[arg(long, conflicts_with = "leaf")]
    core: bool,
    /// LAN hosts for which its nodes may be gateways, by their addresses, or any; may be repeated
    #[arg(long, value_name = "PREFIX", conflicts_with = "leaf")]
    gateway: Vec<SourcePrefix>,
    /// Its nodes may join their LANs to this segment: --gateway any --label segment=NAME
    #[arg(long, value_name = "NAME", value_parser = segment, conflicts_with_all = ["leaf", "gateway"])]
    segment: Option<String>,
    /// Its nodes are leaves: they listen to --groups, send nothing but with --uplink, and do not route. The
    /// token may be public
    #[arg(long, requires = "groups", conflicts_with_all = ["prefix", "uses"])]
    leaf: bool,
    /// With --leaf: groups that its nodes may listen to; may be repeated
    #[arg(long, value_name = "P", num_args = 1.., requires = "leaf")]
    groups: Vec<GroupPrefix>,
    /// With --leaf: its nodes may ask, as readers of a lecture do: two packets a second to groups of --groups in
    /// ff1e:7570::/32
    #[arg(long, requires = "leaf")]
    uplink: bool,
    /// Print a link in place of the token: to this node page of `lcroute web`, where it joins
    #[arg(long, value_name = "URL", value_parser = page_url)]
    page: Option<String>,
    /// A session of Studio, lcs1..., or a file with it: the link leads to it; without --page, print what `lcstudio attend`
    /// takes
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Print it as a QR code, or write that to a file: NAME.svg, else a PNG
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    qr: Option<Option<PathBuf>>,
}

#[derive(Debug, Subcommand)]
enum LanVerb {
    /// Where a host of a segment is: here, behind another node, in both places, or nowhere
    Host {
        /// Its address
        address: IpAddr,
        /// Give it away: a host elsewhere may have it, until one of this LAN speaks under it
        #[arg(long)]
        release: bool,
    },
}

#[derive(Debug, Args)]
struct Watch {
    /// Once a second, for ever
    #[arg(long)]
    watch: bool,
    /// PeerIds, addresses and all drops, too
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Args)]
struct Group {
    /// A group such as ff1e::42 or 239.1.2.3
    #[arg(value_parser = commands::multicast_group)]
    group: IpAddr,
    /// UDP port
    #[arg(long, default_value_t = librecast::channel::TALK_PORT)]
    port: u16,
    /// Interface [default: the daemon's, if there is one, else what the routes say]
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((k, v)) if !k.is_empty() => Ok((k.to_owned(), v.to_owned())),
        _ => Err("write it as key=value".into()),
    }
}

fn segment(text: &str) -> Result<String, String> {
    match lcroute_control::config::is_segment_name(text) {
        true => Ok(text.to_owned()),
        false => Err("1 to 63 visible characters".into()),
    }
}

/// Verbs by their purpose; within a group, in the order in which people need them.
const VERBS: [(&str, &[&str]); 5] = [
    (
        "Take part",
        &[
            "up", "down", "guest", "invite", "meet", "members", "revoke", "leave", "id",
        ],
    ),
    (
        "Look",
        &[
            "status", "doctor", "peers", "groups", "routes", "lan", "top", "ping", "web",
        ],
    ),
    ("Try", &["demo", "listen", "say", "leaf", "bench", "sim"]),
    (
        "Streams",
        &["connect", "serve", "forward", "outside", "book"],
    ),
    (
        "Parts and services",
        &[
            "init", "join", "run", "reload", "signal", "streams", "keygen", "qr", "close",
        ],
    ),
];

/// Help with the verbs in groups.
fn help() -> String {
    let verbs = Command::augment_subcommands(clap::Command::new("lcroute"));
    let width = VERBS.iter().flat_map(|(_, names)| *names);
    let width = width.map(|name| name.len()).max().unwrap_or_default();
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (heading, names) in VERBS {
        text += &format!("\n{heading}:\n");
        for name in names {
            let verb = verbs.find_subcommand(name);
            let about = verb.and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            text += &format!("  {name:<width$}  {about}\n");
        }
    }
    text + "\nOptions:\n{options}{after-help}"
}

/// The command line itself, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    cli::run("lcroute", execute)
}

fn execute(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { common, command } = cli;
    if let Command::Doctor = command {
        // before the configuration is read: that is one of its checks
        init_logging(common.log.as_deref(), "error")?;
        return crate::doctor::run(common);
    }
    if let Command::Demo(_) | Command::Bench(_) | Command::Sim(_) = command {
        return commands::another::execute("lcroute-lab");
    }
    if let Command::Web(_) = command {
        return commands::another::execute("lcroute-web");
    }
    if let Command::Serve(_)
    | Command::Connect(_)
    | Command::Forward(_)
    | Command::Outside(_)
    | Command::Streams(_) = command
    {
        return commands::another::execute("lcroute-streams");
    }
    if let Command::Book { host, verb } = &command {
        init_logging(common.log.as_deref(), "warn")?;
        return commands::book::run(verb, *host, common.json);
    }
    let config = common.load_config()?;
    // without systemd `up` is the daemon
    let daemon = matches!(
        command,
        Command::Run { .. } | Command::Up(_) | Command::Signal { .. }
    );
    let level = common.log.as_deref().or(config.log.as_deref());
    let default = match command {
        Command::Leaf(_) => LEAF_LOG,
        Command::Guest(_) => GUEST_LOG,
        _ if daemon => DAEMON_LOG,
        _ => "warn",
    };
    init_logging(level, default)?;
    let control = common.control_to_ask(&config);
    if let Some(verb) = verb_of_own_node(&command) {
        commands::membership::refuse_beside(&common, &config, &control, verb)?;
    }
    let look = |what, watch: &Watch| {
        let shape = match (common.json, watch.verbose) {
            (true, _) => Shape::Json,
            (false, true) => Shape::All,
            (false, false) => Shape::Short,
        };
        commands::query::run(&control, what, shape, watch.watch)
    };
    match command {
        Command::Init { name } => commands::membership::init(&common, &config, name),
        Command::Up(options) => commands::up::up(&common, config, options),
        Command::Meet { qr, with } => match with {
            Some(file) => commands::meet::take(&control, &file, common.json),
            None => commands::meet::give(&control, qr, common.json),
        },
        Command::Down => commands::up::down(&common, &config),
        Command::Invite(Invite {
            token_fd: Some(fd),
            words_for,
            ..
        }) => commands::words::hand_over(fd, words_for.unwrap_or(GOOD_FOR), common.json),
        Command::Invite(mut i) => {
            if i.leaf {
                commands::revoke::begin_epochs(&common, &config)?;
            }
            if let Some(segment) = i.segment {
                i.gateway.push(SourcePrefix::ANY);
                i.label.push(("segment".to_owned(), segment));
            }
            let options = commands::membership::InviteOptions {
                ttl: i.ttl,
                member_ttl: i.member_ttl,
                ephemeral: i.ephemeral,
                labels: i.label,
                signal: i.signal,
                matrix: i.matrix,
                prefixes: if i.leaf { i.groups } else { i.prefix },
                core: i.core,
                gateway: i.gateway,
                uses: i.uses.or(i.code.then_some(1)),
                leaf: i.leaf,
                uplink: i.uplink,
            };
            if i.code {
                let time = i.words_for.unwrap_or(GOOD_FOR);
                return commands::membership::invite_by_code(&common, &config, options, time);
            }
            let link = commands::membership::InviteLink {
                page: i.page.as_deref(),
                session: i.session.as_deref(),
            };
            commands::membership::invite(&common, &config, options, link, i.qr)
        }
        Command::Join {
            take: true, name, ..
        } => commands::words::take(name),
        Command::Join {
            token, more, name, ..
        } => {
            // clap sees to it that one is given
            let token = token.unwrap_or_default();
            let token = commands::membership::one_argument(&token, &more)?;
            commands::membership::join(&common, &config, &token, name)
        }
        Command::Revoke { node, token } => {
            use commands::revoke::Whom;
            // clap sees to it that one is given
            let node = node.as_deref().map(book::node).transpose()?;
            let whom = token.map(Whom::Token).or(node.map(Whom::Node));
            let whom = whom.ok_or_else(|| anyhow::anyhow!("NODE or --token"))?;
            commands::revoke::run(&common, &config, &whom)
        }
        Command::Keygen { file } => keygen(KeyKind::Shared, &file, common.json),
        Command::Members { verbose } => commands::membership::members(&common, &config, verbose),
        Command::Leave { force } => commands::membership::leave(&common, &config, force),
        Command::Id { contact: true } => commands::membership::contact(&common, &config),
        Command::Id { contact: false } => commands::membership::id(&common, &config),
        Command::Run { tun, signal } => {
            let overrides = Overrides { tun, signal };
            crate::daemon::run(&common, config, overrides)
        }
        Command::Close { end } => {
            match end {
                true => private::open(&config)?,
                false => private::close(&config)?,
            }
            Ok(Exit::Ok)
        }
        Command::Signal {
            listen,
            tls_cert,
            tls_key,
            public,
            per_address,
            no_relay,
            relay_strangers,
            members_of,
            metrics,
        } => {
            let mut most = config.signal.per_address(per_address);
            if public && per_address.is_none() {
                most = most.min(PUBLIC_PER_ADDRESS);
            }
            // asked only where it is wanted: it looks at the host's interfaces
            let mut relay = (!no_relay).then(|| served_relay(&config.relay)).flatten();
            if let Some(relay) = relay.as_mut().filter(|_| public) {
                relay.strangers = Some(Strangers {
                    rate: relay_strangers.unwrap_or(RELAY_STRANGERS),
                    members_of,
                });
            }
            commands::signal::run(commands::signal::Options {
                listen,
                tls: tls_cert.zip(tls_key),
                public,
                per_address: most,
                relay,
                metrics,
            })
        }
        Command::Status(w) => look(What::Status, &w),
        Command::Peers(w) => look(What::Peers, &w),
        Command::Groups(w) => look(What::Groups, &w),
        Command::Lan { verb: None, watch } => look(What::Lan, &watch),
        Command::Lan {
            verb: Some(LanVerb::Host { address, release }),
            ..
        } => commands::lan::host(&control, address, release, common.json),
        Command::Routes(w) => look(What::Routes, &w),
        Command::Top { watch } => commands::top::run(&control, common.json, watch),
        Command::Ping(options) => commands::ping::run(&control, &options, common.json),
        Command::Reload { exec } => commands::query::reload(&control, exec, common.json),
        // above
        Command::Doctor
        | Command::Demo(_)
        | Command::Bench(_)
        | Command::Sim(_)
        | Command::Web(_)
        | Command::Book { .. }
        | Command::Serve(_)
        | Command::Connect(_)
        | Command::Outside(_)
        | Command::Forward(_)
        | Command::Streams(_) => Ok(Exit::Ok),
        Command::Listen { group: g } => {
            commands::selftest::listen(&target(g, &config, control), common.json)
        }
        Command::Leaf(options) => {
            commands::leaf::run(&common.load_config_of_user()?, &options, common.json)
        }
        Command::Guest(options) => commands::guest::run(&common, &options),
        Command::Qr => commands::meet::code_of_input(),
        Command::Say { group: g, text } => {
            commands::selftest::say(&target(g, &config, control), text.as_deref())
        }
    }
}

/// Returns the name of a verb that founds, joins or uses the node of the state directory.
fn verb_of_own_node(command: &Command) -> Option<&'static str> {
    Some(match command {
        // inside of a guest: the verb outside is about the node
        Command::Join { take: true, .. } => return None,
        Command::Invite(invite) if invite.token_fd.is_some() => return None,
        Command::Init { .. } => "init",
        Command::Up(_) => "up",
        Command::Join { .. } => "join",
        Command::Invite(_) => "invite",
        Command::Revoke { .. } => "revoke",
        Command::Leave { .. } => "leave",
        Command::Id { contact: false } => "id",
        Command::Run { .. } => "run",
        _ => return None,
    })
}

fn target(g: Group, config: &Config, control: PathBuf) -> commands::selftest::Target {
    commands::selftest::Target {
        group: g.group,
        port: g.port,
        interface: g.interface,
        default_interface: config.tun.name.clone(),
        control,
        link_scope_groups: config.network.link_scope_groups(),
    }
}

/// An address that [`page_link::link`] takes.
fn page_url(text: &str) -> Result<String, String> {
    page_link::link(text, "", None).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn help_has_each_verb_once() {
        let command = super::command();
        let mut known: Vec<_> = command.get_subcommands().map(|c| c.get_name()).collect();
        let mut grouped: Vec<_> = super::VERBS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        known.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, known);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }
}
