//! `lcroute bench`: throughput, latency and cost of multicast through lcroute on this machine, and
//! through other systems in the same run, with the same programs and the same clock.
//!
//! | file | content |
//! |---|---|
//! | `system`, `systems/` | the systems under test, and their setup in namespaces |
//! | `trial` | one rate for some seconds: loss, latency, CPU, memory |
//! | `search` | the highest rate with little loss; independent of packets |
//! | `usage` | CPU time and memory of a process |
//! | `report` | the table for people, and ratios |
//! | `join`, `files` | JOIN to first packet; lcsync over a wire |
//! | `relay/` | the bare relay, a separate program |

mod files;
mod join;
mod relay;
mod report;
mod search;
mod system;
mod systems;
mod trial;

pub use relay::main as bare_relay;

use std::path::Path as FilePath;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use lcroute_demo::lab::{self, Lab};
use lcroute_demo::multi_call;
use search::{Bounds, Length};
use systems::{Plan, Through};
use trial::{Load, Path};

/// Loss below which a rate counts as carried.
const LOSS: f64 = 0.01;
/// Initial rate in packets/s, which each path carries, even in debug builds and on slow machines.
const FIRST_RATE: u64 = 8_000;
/// Duration of a trial that only steers the search, in seconds.
const SHORT: f64 = 0.8;
/// Rates in packets/s for the cost of a modest stream, and for the latency of a thin one.
const MODEST_RATE: u64 = 5_000;
const THIN_RATE: u64 = 1_000;
/// Packets a second of speech, bytes of each, and seconds: reports calm down within the first ones.
const SPEECH: (u64, u64, f64) = (50, 160, 10.0);
/// Load average below which other processes do not disturb the measurement.
const QUIET: f64 = 0.5;
/// Maximum number of datagrams and of bytes that the kernel accepts as one train.
const TRAIN: u64 = 50;
const TRAIN_BYTES: u64 = 65_000;

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  lcroute bench                                  rate, cost, latency, join, lcsync
  lcroute bench --through lcroute,relay,fastd    the same through other systems, with ratios
  lcroute bench --private                        plain, and sealed from end to end
  lcroute bench --listeners 4 --measure rate     one sender, four listeners
  lcroute bench --rate 5208 --loss 5             50 Mbit/s over links that lose 5 %
  lcroute bench --set live.media=false           lcroute configured otherwise

Everything runs in network namespaces of its own, which vanish afterwards. Figures of one run can be
compared with one another; with those of another run only on a quiet machine.";

/// Arguments of `lcroute bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to measure, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "lcroute")]
    through: Vec<Through>,
    /// Measure lcroute with a private prefix, too: packets are sealed from end to end
    #[arg(long)]
    private: bool,
    /// Hosts that listen
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    listeners: u8,
    /// Bytes of payload in a datagram
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(48..=1_232))]
    size: u64,
    /// Seconds of each trial whose result is printed
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Send trains of datagrams (UDP_SEGMENT), not one by one
    #[arg(long)]
    gso: bool,
    /// Receive trains of datagrams (UDP_GRO)
    #[arg(long)]
    gro: bool,
    /// Measure this many packets a second, and nothing else unless --measure says so
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Lose this percentage of the packets from and to each listener
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=90))]
    loss: u8,
    /// A line of lcroute's configuration, such as live.media=false; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<String>,
    /// Which figures [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    measure: Vec<Part>,
}

/// A figure, or a group of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The highest rate with less than 1 % loss, and what it costs (or those of --rate)
    Rate,
    /// CPU time at 5,000 packets a second
    Cpu,
    /// Latency at 1,000 packets a second
    Latency,
    /// Packets and bytes both ways for each packet of speech: 160 bytes, 50 a second
    Speech,
    /// From JOIN to the first packet (lcroute only)
    Join,
    /// lcsync, and uftp where it is installed, over a plain wire
    Files,
}

/// Measures, and prints the figures as a table, or as JSON.
pub fn run(arguments: &Arguments, json: bool) -> ExitCode {
    match measure(arguments) {
        Ok(figures) => {
            let text = if json {
                format!("{figures:#}")
            } else {
                report::table(&figures)
            };
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lcroute bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Arguments) -> Result<Value> {
    lab::isolate()?;
    lab::exit_on_signals()?;
    lab::check_requirements()?;
    if cfg!(debug_assertions) {
        eprintln!("built without --release: the figures say little");
    }
    let busy = load()?;
    if busy > QUIET {
        eprintln!("the machine is busy (load {busy}): the figures will be worse than it can do");
    }
    let program = std::fs::read_link("/proc/self/exe").context("/proc/self/exe")?;
    let mut systems = Map::new();
    if Part::of_systems().iter().any(|part| args.wants(*part)) {
        let private = (args.private && !args.through.contains(&Through::Private))
            .then_some(&Through::Private);
        for through in args.through.iter().chain(private) {
            if let Some(package) = through.missing() {
                let name = through.name();
                eprintln!("{name} is left out: it is not installed (apt install {package})");
                continue;
            }
            systems.insert(through.name(), args.through(*through, &program)?);
        }
        if systems.is_empty() {
            bail!("nothing to measure is installed");
        }
    }
    let mut figures = json!({
        "optimized": !cfg!(debug_assertions),
        "load_before": busy,
        "payload_bytes": args.size,
        "listeners": args.listeners,
        "seconds": args.seconds,
        "gso": args.gso,
        "gro": args.gro,
        "link_loss_percent": args.loss,
        "settings": args.set,
        "ratios": report::ratios(&systems),
        "systems": systems,
    });
    if args.wants(Part::Files) {
        eprintln!("lcsync");
        figures["file_over_veth"] = files::files(&world("files", &program)?)?;
    }
    Ok(figures)
}

/// Makes a world whose hosts run the programs of this binary.
fn world(name: &str, binary: &FilePath) -> Result<Lab> {
    let programs = multi_call::names(&crate::programs());
    Lab::new(&format!("bench-{name}"), binary, &programs)
}

/// Returns the average number of runnable processes during the last minute.
fn load() -> Result<f64> {
    let said = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let first = said.split(' ').next().unwrap_or_default();
    first.parse().with_context(|| said.clone())
}

impl Part {
    /// Returns the parts that need a system under test.
    fn of_systems() -> [Part; 5] {
        use Part::{Cpu, Join, Latency, Rate, Speech};
        [Rate, Cpu, Latency, Speech, Join]
    }
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        match (self.measure.is_empty(), self.rate) {
            (false, _) => self.measure.contains(&part),
            (true, Some(_)) => part == Part::Rate,
            (true, None) => true,
        }
    }

    fn plan(&self) -> Plan {
        Plan {
            listeners: usize::from(self.listeners),
            config: self.set.iter().map(|line| format!("{line}\n")).collect(),
            loss: self.loss,
        }
    }

    fn load(&self) -> Load {
        let train = if self.gso {
            TRAIN.min(TRAIN_BYTES / self.size)
        } else {
            1
        };
        Load {
            size: self.size,
            gso: u16::try_from(train).unwrap_or(1),
            gro: self.gro,
        }
    }

    /// Returns all figures of one system, which runs in its own world.
    fn through(&self, through: Through, program: &FilePath) -> Result<Value> {
        let name = through.name();
        eprintln!("{name}: starting");
        let lab = world(&name, program)?;
        let measured = self.figures(through, &lab);
        if measured.is_err() {
            eprintln!("{}", lab.logs());
        }
        measured.with_context(|| name)
    }

    fn figures(&self, through: Through, lab: &Lab) -> Result<Value> {
        let system = through.start(lab, &self.plan())?;
        let path = Path::open(&system, self.load())?;
        let trial = |rate, seconds| -> Result<trial::Trial> {
            let found = path.send(rate, seconds)?;
            eprintln!("{}: {found}", through.name());
            Ok(found)
        };
        let mut figures = json!({});
        // The thin stream comes first, as after a long time without traffic.
        if self.wants(Part::Latency) {
            figures["at_1000"] = trial(THIN_RATE, self.seconds)?.json(self.size);
        }
        if self.wants(Part::Speech) {
            let (rate, size, seconds) = SPEECH;
            let found = path.send_sized(rate, size, seconds)?;
            eprintln!("{}: {found}", through.name());
            figures["speech"] = found.json(size);
        }
        if self.wants(Part::Cpu) {
            figures["at_5000"] = trial(MODEST_RATE, self.seconds)?.json(self.size);
        }
        if self.wants(Part::Rate) {
            let found = match self.rate {
                Some(rate) => trial(rate, self.seconds)?,
                None => {
                    let bounds = Bounds {
                        start: FIRST_RATE,
                        loss: LOSS + f64::from(self.loss) / 100.0,
                    };
                    search::highest_rate(bounds, |rate, length| match length {
                        Length::Short => trial(rate, SHORT.min(self.seconds)),
                        Length::Full => trial(rate, self.seconds),
                    })?
                }
            };
            figures["rate"] = found.json(self.size);
        }
        if let Some(network) = &system.network
            && self.wants(Part::Join)
        {
            figures["join_to_first_packet_ms"] = join::join(network)?;
        }
        Ok(figures)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.1..=3_600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0.1 and 3600".to_owned())
    }
}

/// Converts `live.media=false` to a line of TOML; a value that is not valid TOML becomes a string.
fn setting(text: &str) -> Result<String, String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if key.is_empty() || !key.chars().all(bare) {
        return Err("a key is written as live.media".to_owned());
    }
    let is_value = ["true", "false"].contains(&value)
        || value.parse::<f64>().is_ok()
        || value.starts_with(['"', '[', '{']);
    if is_value {
        Ok(format!("{key} = {value}"))
    } else {
        Ok(format!("{key} = {value:?}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn args(line: &str) -> Arguments {
        Line::try_parse_from(line.split(' ')).unwrap().arguments
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Line::command().debug_assert();
        for wrong in [
            "bench --size 9000",
            "bench --seconds 0",
            "bench --listeners 0",
            "bench --set media",
            "bench --rate 0",
            "bench --through wireguard",
        ] {
            assert!(Line::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fixed_rate_measures_only_that_rate_unless_more_is_asked_for() {
        let fixed = args("bench --rate 500");
        assert!(fixed.wants(Part::Rate) && !fixed.wants(Part::Latency));
        let both = args("bench --rate 500 --measure rate,latency");
        assert!(both.wants(Part::Latency) && !both.wants(Part::Files));
        assert!(args("bench").wants(Part::Files));
    }

    #[test]
    fn a_train_fits_into_one_send() {
        assert_eq!(args("bench").load().gso, 1);
        assert_eq!(args("bench --gso").load().gso, 50);
        assert_eq!(args("bench --gso --size 1232").load().gso, 50);
    }

    #[test]
    fn settings_become_lines_of_toml() {
        assert_eq!(setting("live.media=false").unwrap(), "live.media = false");
        assert_eq!(setting("tun.mode=tap").unwrap(), "tun.mode = \"tap\"");
        assert_eq!(setting("live.queue_ms = 5").unwrap(), "live.queue_ms = 5");
        assert!(setting("live.media").is_err());
        assert!(setting("a]\nb=1").is_err());
    }
}
