//! The command line of `lcgroup`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use librecast::outside::Place;
use librecast::units::{parse_duration, parse_size};
use librecast_program::cli::{self, Exit, init_logging};
use librecast_program::groups;

use crate::carry;
use crate::daemon;
use crate::get::Getting;
use crate::logs::{LEAST_KEEP, LONGEST_KEEP};
use crate::request::Tail;
use crate::verbs;

const EXAMPLES: &str = "Examples:
  lcgroup run                              the program that stays; with the package the service starts by itself
  lcgroup create team --as Ann             a group, of which you are the owner
  lcgroup create team --outside --at meet.example    the same with a network of its own: members join from anywhere
  lcgroup invite team --uses 3             a line to hand to three people, secretly
  lcgroup withdraw team 3f                 ends an invitation of `lcgroup invitations team`: it went to the wrong person
  lcgroup join lcg1... --as Bob            asks to become a member
  lcgroup send team 'hello all'
  lcgroup tail team --follow
  lcgroup tail team --exec ./told          runs ./told for each message that comes, with it on its standard input
  lcgroup send team --file plan.pdf        up to 64 MiB; it waits at mailboxes, and at members who fetched it
  lcgroup get team plan.pdf                fetches it, from any host that has it
  lcgroup set team status 'at sea'         a value that all members read: `lcgroup get team --key status`
  lcgroup call team                        begins a call, and tells the members; lcradio call lcc1... takes part
  lcgroup call team lcc1...                takes part over the group's own network, if it has one
  lcgroup verify team Ann                  eight words; on Ann's host `lcgroup verify team` prints the same
  lcgroup deputy add team Bob --after 3d   Bob's host lets others join and removes them once yours is silent for 3 days
  lcgroup protect team ff1e:7::/32         packets to these groups are sealed by the group's keys
  lcgroup hold --key team                  a line for a host that is to hold what is said while others are away
  lcgroup hold lch1... mailbox             on that host: it cannot read it
  lcgroup hold mailbox --wake ./call       runs ./call with the line of `lcgroup wake` of a member that is absent
  lcgroup board create news                a board, which anybody follows who has the text that this prints
  lcgroup board post news 'It rains.' --title Weather
  lcgroup follow lcb1...                   on any host; it keeps the board for others, too
  lcgroup read news --follow

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no lcgroup runs here, 4 not permitted, 130 or 143 interrupted.";

/// Private groups of people over multicast: words that wait, read by members alone
#[derive(Debug, Parser)]
#[command(name = "lcgroup", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Common {
    /// Where groups are [default: /var/lib/lcgroup, or $XDG_STATE_HOME/lcgroup]
    #[arg(long, global = true, env = "LCGROUP_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Control socket [default: /run/lcgroup/control.sock, or $XDG_RUNTIME_DIR/lcgroup/control.sock]
    #[arg(long, global = true, env = "LCGROUP_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// error, warn, info, debug, trace or TARGET=LEVEL with commas between [default: $RUST_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the folder for groups, and say where it is
    Init,
    /// Run: listen, keep, answer
    Run {
        /// Interface to use; may be repeated [default: all that can carry multicast]
        #[arg(long = "interface", value_name = "NAME")]
        interfaces: Vec<String>,
        /// Show new messages of others on this user's desktop, with name and text
        #[arg(long)]
        notify: bool,
    },
    /// Make a group; this host is its owner
    Create {
        /// How this host calls it
        group: String,
        /// How you call yourself in it [default: the user's name]
        #[arg(long = "as", value_name = "NAME")]
        name: Option<String>,
        /// What it is about; stands in invitations
        #[arg(long, default_value = "")]
        topic: String,
        /// How long all keep what was said for members who are away: a time such as 90d or 1y, or forever [default: 30d]
        #[arg(long, value_parser = parse_keep, value_name = "TIME")]
        keep: Option<u64>,
        /// What newcomers read of what was said before: all, none, or a time such as 7d; who steals a newcomer's disk
        /// later can read it, too [default: none]
        #[arg(long, value_parser = parse_history, value_name = "all|TIME|none")]
        history: Option<u64>,
        /// With a network of its own, which the line of `invite` leads to: members need no common network, daemon or root
        #[arg(long)]
        outside: bool,
        /// A signalling server where its members meet: HOST, HOST:PORT or a URL; may be repeated [default: LANs, and as
        /// configured]
        #[arg(long = "at", value_name = "PLACE", requires = "outside")]
        places: Vec<Place>,
    },
    /// Pass on packets inside of the network of a group
    #[command(hide = true)]
    Carry {
        /// An inherited descriptor
        #[arg(long, value_name = "N")]
        packets: i32,
    },
    /// Print a line that makes members of those who get it: a secret
    Invite {
        /// The group
        group: String,
        /// How many may use it
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// How long it is good
        #[arg(long, default_value = "7d", value_parser = parse_duration, value_name = "TIME")]
        expires: Duration,
    },
    /// Which invitations of this host are open
    Invitations {
        /// The group
        group: String,
    },
    /// End an invitation before its time; members that came by it stay
    Withdraw {
        /// The group
        group: String,
        /// The line, which `-` reads from stdin, or the beginning of its number in `lcgroup invitations`
        invitation: String,
    },
    /// Ask to become a member, or another device of one
    Join {
        /// The line of `lcgroup invite` or `lcgroup device add`; `-` reads it from stdin
        invitation: String,
        /// How this host calls the group [default: its topic]
        group: Option<String>,
        /// How you call yourself in it, or this device [default: the user's name, or the host's]
        #[arg(long = "as", value_name = "NAME")]
        name: Option<String>,
        /// Wait until the owner has answered
        #[arg(long)]
        wait: bool,
    },
    /// Say something
    Send {
        /// The group
        group: String,
        /// Words; none: all of stdin, any bytes
        text: Vec<String>,
        /// A file of up to 64 MiB, in place of words
        #[arg(long, value_name = "FILE", conflicts_with = "text")]
        file: Option<PathBuf>,
    },
    /// Call the members: up to eight talk, any number listen
    Call {
        /// The group
        group: String,
        /// Take part in this call, over the group's own network; `-` reads it from standard input [default: a new call]
        call: Option<String>,
        /// Options of `lcradio call`, which takes part if the group has a network of its own
        #[arg(last = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
    /// Fetch a file that a member sent, from any host that has it; or print a value
    Get(Getting),
    /// Set a key of the state that all members share; without a value the key is removed
    Set {
        /// The group
        group: String,
        /// The key: up to 255 bytes of text
        key: String,
        /// Up to 16 KiB; `-` reads any bytes from stdin [default: the key is removed]
        #[arg(value_name = "VALUE|-", allow_negative_numbers = true)]
        value: Option<String>,
    },
    /// List the keys that members have set
    Keys {
        /// The group
        group: String,
    },
    /// Print each change of a key from now on
    Watch {
        /// The group
        group: String,
    },
    /// Print what was said
    Tail {
        #[command(flatten)]
        tail: Tail,
        /// Stay, and run PROGRAM for each message of others that comes; it reads the message as a line of JSON. All that
        /// follows are its arguments
        #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
        exec: Vec<OsString>,
    },
    /// Show the members of a group
    Members {
        /// The group
        group: String,
    },
    /// Compare words with a member: does its name belong to the person that you mean?
    Verify {
        /// The group
        group: String,
        /// Its name, its key, or book:NAME [default: this member, for others to compare]
        member: Option<String>,
        /// The words that the member told you: are they the same?
        words: Vec<String>,
        /// Print a QR code of the words, too, for a telephone (needs lcroute's package)
        #[arg(long, conflicts_with = "words")]
        qr: bool,
    },
    /// The owner removes a member: it reads nothing that is said later, and is not told
    Remove {
        /// The group
        group: String,
        /// Its name, its key, or book:NAME
        member: String,
        /// Only this device of it: its number, or the beginning of its key (`lcgroup members --json`)
        #[arg(long, value_name = "DEVICE")]
        device: Option<String>,
        /// Tell it: its program shows that it was removed
        #[arg(long)]
        tell: bool,
    },
    /// Several devices of yours that are one member
    Device {
        #[command(subcommand)]
        verb: DeviceVerb,
    },
    /// Deputies: members that let others join and remove them once the owner is silent
    #[command(subcommand)]
    Deputy(DeputyVerb),
    /// Seal a private prefix of lcroute by the group's keys, on this host: who is removed reads nothing that is sent later
    Protect {
        /// The group
        group: String,
        /// Its multicast groups, such as ff1e:7::/32; lcroute.toml says `[[private]]` with this prefix, and no keyfile
        #[arg(value_name = "PREFIX")]
        prefix: String,
        /// No longer: the prefix is closed on this host
        #[arg(long)]
        end: bool,
    },
    /// New keys for this member: what was stolen from this host opens nothing later
    Refresh {
        /// The group
        group: String,
    },
    /// Leave a group
    Leave {
        /// The group
        group: String,
        /// Delete all that this host has of it, without a word to the owner
        #[arg(long)]
        forget: bool,
    },
    /// Leave a line with holders of the group: by it they call you while you are absent and messages wait
    Wake {
        /// The group
        group: String,
        /// Up to 512 bytes, such as a URL; `-` reads it from stdin, and '' ends the calls
        #[arg(value_name = "LINE|-")]
        line: String,
    },
    /// Messages that were not said because somebody joined meanwhile
    Outbox {
        /// The group
        group: String,
        /// Say this one all the same
        #[arg(long, value_name = "ID")]
        resend: Option<String>,
        /// Delete this one
        #[arg(long, value_name = "ID", conflicts_with = "resend")]
        discard: Option<String>,
    },
    /// Boards: public text that anyone can follow
    #[command(subcommand)]
    Board(BoardVerb),
    /// Follow a board, and keep it for other readers
    Follow {
        /// The text of `lcgroup board create`; `-` reads it from stdin
        board: String,
        /// How this host calls it [default: as its owner]
        name: Option<String>,
    },
    /// Print the posts of a board
    Read {
        /// The board
        name: String,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Follow a board no longer, and delete its posts here
    Unfollow {
        /// The board
        name: String,
    },
    /// Groups, boards, and what is held
    Status,
    /// Hold a group for others, without reading it
    Hold {
        /// The line that `hold --key` printed; `-` reads it from stdin
        #[arg(value_name = "LINE", required_unless_present_any = ["key", "end"])]
        holding_key: Option<String>,
        /// How this host calls it
        #[arg(default_value = "held")]
        name: String,
        /// How many bytes of files it keeps for members [default: 1Gi]
        #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with_all = ["key", "end"])]
        space: Option<u64>,
        /// Print the line for a holder of this group: a secret
        #[arg(long, value_name = "GROUP", conflicts_with = "holding_key")]
        key: Option<String>,
        /// Hold it no longer, and delete what is held
        #[arg(long, value_name = "NAME", conflicts_with_all = ["holding_key", "key"])]
        end: Option<String>,
        /// Stay, and run PROGRAM for each member that is absent while messages wait for it; it reads the member's line of
        /// `wake`. All that follow are its arguments
        #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true, conflicts_with_all = ["key", "end"])]
        wake: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum BoardVerb {
    /// Make a board, and print its text for readers
    Create {
        /// How this host and readers call it
        name: String,
    },
    /// Post: Markdown; the command ends when the post is on disk
    Post {
        /// The board
        name: String,
        /// Words; none or `-`: all of stdin
        text: Vec<String>,
        /// Its title
        #[arg(long, value_name = "TITLE")]
        title: Option<String>,
    },
    /// Others that may post
    #[command(subcommand)]
    Writer(WriterVerb),
    /// Print the last posts as an Atom feed
    Feed {
        /// The board
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum WriterVerb {
    /// The owner lets a key post
    Add {
        /// The board
        name: String,
        /// The key that `lcgroup follow` printed on the writer's host, or book:NAME
        key: String,
    },
}

#[derive(Debug, Subcommand)]
enum DeputyVerb {
    /// The owner names a member that takes over once the owner is silent; again: another time
    Add {
        /// The group
        group: String,
        /// Its name, its key, or book:NAME
        name: String,
        /// Silence before it takes over, in uptime of its own host
        #[arg(long, default_value = "3d", value_parser = parse_duration, value_name = "TIME")]
        after: Duration,
    },
    /// Show the deputies, in the order in which they take over
    List {
        /// The group
        group: String,
    },
    /// The owner ends a deputy's right; one in office hands over to the owner
    Remove {
        /// The group
        group: String,
        /// Its name, its key, or book:NAME
        name: String,
    },
    /// Let a deputy go on now, or the owner again, in place of this host
    HandOver {
        /// The group
        group: String,
        /// Its name, its key, or book:NAME
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum DeviceVerb {
    /// Print a line that makes another host a device of yours: a secret, good for one host
    Add {
        /// The group
        group: String,
        /// How long it is good, a day at most
        #[arg(long, default_value = "1h", value_parser = parse_duration, value_name = "TIME")]
        expires: Duration,
    },
    /// Your devices in a group
    List {
        /// The group
        group: String,
    },
    /// Have the owner's host remove a device of yours, such as a lost one: it reads nothing that is said later
    Remove {
        /// The group
        group: String,
        /// Its number, its name, or the beginning of its key
        device: String,
    },
}

/// Seconds of a time for which a group keeps what was said; 0 for ever.
fn parse_keep(text: &str) -> Result<u64, String> {
    if text == "forever" {
        return Ok(0);
    }
    let years = text
        .strip_suffix('y')
        .and_then(|years| years.parse::<u64>().ok());
    let seconds = match years {
        Some(years) => years.saturating_mul(365 * 86_400),
        None => parse_duration(text)
            .map_err(|e| format!("{e}; or 1y, or forever"))?
            .as_secs(),
    };
    match (LEAST_KEEP..=LONGEST_KEEP).contains(&seconds) {
        true => Ok(seconds),
        false => Err("a day to 1000 years, or forever".into()),
    }
}

/// Seconds of what newcomers read; 0 for nothing, `u64::MAX` for all.
fn parse_history(text: &str) -> Result<u64, String> {
    match text {
        "all" => return Ok(u64::MAX),
        "none" => return Ok(0),
        _ => {}
    }
    let time = parse_duration(text).map_err(|e| format!("{e}; or all, or none"))?;
    match time.as_secs() {
        0 => Err("a second at least, all or none".into()),
        seconds => Ok(seconds),
    }
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    cli::run("lcgroup", run)
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Common {
        state_dir,
        control,
        json,
        log,
    } = cli.common;
    let daemon = matches!(cli.verb, Verb::Run { .. });
    init_logging(log.as_deref(), if daemon { "info" } else { "warn" })?;
    let state_dir = state_dir.unwrap_or_else(verbs::default_state_dir);
    let control = control.unwrap_or_else(groups::default_control);
    let to = verbs::Verbs {
        control: control.clone(),
        json,
    };
    match cli.verb {
        Verb::Init => verbs::init(&state_dir, json),
        Verb::Run { interfaces, notify } => daemon::run(&daemon::Options {
            state_dir,
            control,
            interfaces,
            notify,
        }),
        Verb::Create {
            group,
            name,
            topic,
            keep,
            history,
            outside,
            places,
        } => {
            let network = outside.then_some(places);
            to.create(&group, name, topic, (keep, history), network)
        }
        Verb::Carry { packets } => carry::run(packets),
        Verb::Invite {
            group,
            uses,
            expires,
        } => to.invite(group, uses, expires),
        Verb::Invitations { group } => to.invitations(group),
        Verb::Withdraw { group, invitation } => to.withdraw(group, &invitation),
        Verb::Join {
            invitation,
            group,
            name,
            wait,
        } => to.join(&invitation, group, name, wait),
        Verb::Send {
            group,
            file: None,
            text,
        } => to.send(group, &text),
        Verb::Send {
            group,
            file: Some(file),
            ..
        } => to.send_file(group, &file),
        Verb::Call {
            group,
            call,
            options,
        } => to.call(&group, call.as_deref(), &options),
        Verb::Get(getting) => to.get(&getting),
        Verb::Set { group, key, value } => to.set(group, key, value),
        Verb::Keys { group } => to.keys(group),
        Verb::Watch { group } => to.watch(&group),
        Verb::Tail { tail, exec } => match exec.is_empty() {
            true => to.tail(&tail),
            false => to.tail_exec(&tail, &exec),
        },
        Verb::Members { group } => to.members(group),
        Verb::Verify {
            group,
            member,
            words,
            qr,
        } => to.verify(&group, member.as_deref(), &words, qr),
        Verb::Remove {
            group,
            member,
            device,
            tell,
        } => to.remove(group, &member, device, tell),
        Verb::Device { verb } => match verb {
            DeviceVerb::Add { group, expires } => to.device_add(group, expires),
            DeviceVerb::List { group } => to.device_list(group),
            DeviceVerb::Remove { group, device } => to.device_remove(group, device),
        },
        Verb::Deputy(verb) => match verb {
            DeputyVerb::Add { group, name, after } => to.add_deputy(group, &name, after),
            DeputyVerb::List { group } => to.deputies(group),
            DeputyVerb::Remove { group, name } => to.remove_deputy(group, &name),
            DeputyVerb::HandOver { group, name } => to.hand_over(group, &name),
        },
        Verb::Protect { group, prefix, end } => to.protect(group, prefix, end),
        Verb::Refresh { group } => to.refresh(group),
        Verb::Leave { group, forget } => to.leave(group, forget),
        Verb::Outbox {
            group,
            resend,
            discard,
        } => to.outbox(group, resend, discard),
        Verb::Board(verb) => match verb {
            BoardVerb::Create { name } => to.board_create(name),
            BoardVerb::Post { name, text, title } => to.board_post(name, title, &text),
            BoardVerb::Writer(WriterVerb::Add { name, key }) => to.board_writer(name, &key),
            BoardVerb::Feed { name } => to.board_feed(name),
        },
        Verb::Follow { board, name } => to.follow(&board, name),
        Verb::Read { name, follow } => to.read_board(&name, follow),
        Verb::Unfollow { name } => to.unfollow(name),
        Verb::Status => to.status(),
        Verb::Hold {
            holding_key,
            name,
            space,
            key,
            end,
            wake,
        } => match wake.is_empty() {
            true => to.hold(holding_key, (name, space), key, end),
            false => to.hold_waking(&verbs::Wakes {
                line: holding_key.unwrap_or_default(),
                name,
                space,
                program: wake,
            }),
        },
        Verb::Wake { group, line } => to.wake(group, &line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_behind_exec_is_the_programs() {
        let line = "lcgroup tail team --new --exec -- notify --json -n 3 -- team";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Verb::Tail { tail, exec } = cli.verb else {
            panic!("another verb");
        };
        assert!(tail.new && !cli.common.json);
        assert_eq!(exec, ["--", "notify", "--json", "-n", "3", "--", "team"]);
        assert!(Cli::try_parse_from(["lcgroup", "tail", "team", "--exec"]).is_err());
    }

    #[test]
    fn a_call_has_a_text_or_none_and_options_of_lcradio() {
        for (line, text) in [
            ("lcgroup call team -- --listen --name -", None),
            ("lcgroup call team - -- --listen --name -", Some("-")),
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Verb::Call { call, options, .. } = cli.verb else {
                panic!("another verb");
            };
            assert_eq!(call.as_deref(), text);
            assert_eq!(options, ["--listen", "--name", "-"]);
        }
        assert!(Cli::try_parse_from(["lcgroup", "call", "team", "--listen"]).is_err());
    }

    #[test]
    fn times_to_keep_are_a_day_to_a_thousand_years_or_for_ever() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("1y", 31_536_000),
            ("24h", 86_400),
            ("forever", 0),
        ] {
            assert_eq!(parse_keep(text), Ok(seconds), "{text}");
        }
        let history = ["all", "none", "7d"].map(parse_history);
        assert_eq!(history, [Ok(u64::MAX), Ok(0), Ok(604_800)]);
        assert!(parse_history("0s").is_err() && parse_history("some").is_err());
        for bad in [
            "0",
            "0y",
            "23h",
            "1001y",
            "99999999999999999999y",
            "y",
            "-1y",
            "Forever",
            "",
        ] {
            assert!(parse_keep(bad).is_err(), "{bad:?}");
        }
    }
}
