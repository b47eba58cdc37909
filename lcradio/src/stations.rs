//! `lcradio stations`: the announced stations.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use lcradio_core::{ANNOUNCE_INTERVAL, Directory, Entry, SAP_GROUP, SAP_PORT};
use librecast::time::UnixTime;
use librecast_program::cli::{Common, Exit, ExitError, print_line};
use librecast_program::screen::watch;
use serde_json::json;

use crate::network::Memberships;
use crate::process::{Wake, confine};
use crate::values::hint;

/// Time in which every station announces itself once.
const LOOK: Duration = Duration::from_millis(ANNOUNCE_INTERVAL.as_millis() as u64 + 500);
/// Wait after which the reason is printed.
const WAIT_NOTICE: Duration = Duration::from_secs(2);
/// Time between two frames of `--watch`.
const FRAME_TIME: Duration = Duration::from_secs(1);

/// The options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// Go on with what comes and goes
    #[arg(long)]
    pub watch: bool,
    /// Print the session description of this one, for players: ffplay -protocol_whitelist file,udp,rtp FILE.sdp
    #[arg(long, value_name = "STATION", conflicts_with_all = ["watch", "json"])]
    pub sdp: Option<String>,
}

/// The sockets and the directory of announcements.
struct Look {
    network: Memberships,
    directory: Directory,
}

impl Look {
    fn begin(interfaces: &[String], now: Instant) -> io::Result<Self> {
        let mut network = Memberships::open(&[SAP_PORT], interfaces)?;
        network.join(SAP_PORT, SAP_GROUP);
        Ok(Self {
            network,
            directory: Directory::new(now),
        })
    }

    fn receive(&mut self, now: Instant) -> io::Result<()> {
        self.network.look_at_interfaces(now)?;
        let directory = &mut self.directory;
        self.network.receive(|_, datagram| {
            directory.handle_datagram(datagram.source, datagram.payload, now, UnixTime::now());
        })?;
        directory.handle_timeout(now);
        Ok(())
    }
}

/// Lists the stations.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    confine()?;
    let begun = Instant::now();
    let mut look = Look::begin(&common.interfaces, begun)?;
    if options.watch {
        return watch("lcradio", !common.json, FRAME_TIME, || {
            look.receive(Instant::now())?;
            Ok(shown(&look.directory, common.json))
        });
    }
    let wake = Wake::on_interrupt()?;
    let mut notice_at = Some(begun + WAIT_NOTICE).filter(|_| !common.json);
    loop {
        let now = Instant::now();
        if notice_at.is_some_and(|at| at <= now) {
            notice_at = None;
            let seconds = LOOK.as_secs_f64();
            let interfaces = look.network.interface_names();
            hint(format_args!(
                "looks for stations for {seconds} s, on {interfaces}"
            ));
        }
        if let Some(exit) = wake.interrupted() {
            return Ok(exit);
        }
        look.receive(now)?;
        if let Some(name) = &options.sdp
            && let [entry, ..] = look.directory.named(name)[..]
        {
            librecast_program::standard::output().write_all(entry.sdp.as_bytes())?;
            return Ok(Exit::Ok);
        }
        if now.saturating_duration_since(begun) >= LOOK {
            return end(&look.directory, options, common.json);
        }
        let until = begun + LOOK;
        wake.wait(
            look.network.fds(),
            notice_at.map_or(until, |at| at.min(until)),
        )?;
    }
}

fn end(directory: &Directory, options: &Options, json: bool) -> anyhow::Result<Exit> {
    if let Some(name) = &options.sdp {
        let message = format!("no station called {name} has announced itself");
        return Err(ExitError::new(Exit::Unreachable, message).into());
    }
    print_line(shown(directory, json).trim_end())?;
    Ok(Exit::Ok)
}

fn shown(directory: &Directory, json: bool) -> String {
    let stations = directory.stations();
    if json {
        let all: Vec<_> = stations.iter().map(|entry| as_json(entry)).collect();
        return format!("{}\n", json!(all));
    }
    if stations.is_empty() {
        return "no station announces itself\n".to_owned();
    }
    stations.iter().map(|entry| as_line(entry)).collect()
}

fn as_json(entry: &Entry) -> serde_json::Value {
    let description = &entry.description;
    let text = description.station.as_ref().map(|s| s.encode().to_string());
    json!({
        "name": description.name,
        "station": text,
        "signed": text.is_some(),
        "group": description.group,
        "port": description.port,
        "source": entry.source,
    })
}

fn as_line(entry: &Entry) -> String {
    let description = &entry.description;
    let text = match &description.station {
        Some(station) => station.encode().to_string(),
        None => format!("unsigned, {} port {}", description.group, description.port),
    };
    format!("{}\t{text}\n", description.name)
}
