//! `ping`: messages to a node and back, over the links of the overlay.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use lcroute_control::client::Client;
use lcroute_control::status::{NotFound, Pong, Route, find};
use lcroute_control::{MAX_PING, Request};
use librecast_program::book;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::units::parse_duration;
use serde::Serialize;
use serde_json::json;

use super::print_line;

/// Options of `ping`.
#[derive(Debug, Args)]
pub struct PingOptions {
    /// Its name, PeerId, address (of IPv4 as well), or book:NAME
    node: String,
    /// How many messages
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// From one to the next
    #[arg(short, long, default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    /// How long to wait for each answer, 20s at most
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    timeout: Duration,
}

/// One message.
#[derive(Debug, Serialize)]
struct Answer {
    seq: u32,
    bytes: usize,
    hops: u16,
    rtt_ms: Option<f64>,
}

/// Sends the messages one after the other; exit code 3 if none is answered.
pub fn run(control: &Path, options: &PingOptions, json: bool) -> anyhow::Result<Exit> {
    let node = book::node(&options.node)?;
    let mut client = Client::connect(control)?;
    let node = resolve(&mut client, &node)?;
    let name = format!("{} ({})", node.name, node.address);
    if !json {
        print_line(format_args!("ping {name}: {}", node.peer_id))?;
    }
    let timeout = options.timeout.min(MAX_PING);
    client.wait_for(timeout)?;
    let mut answers: Vec<Answer> = Vec::new();
    let start = Instant::now();
    for seq in 1..=options.count {
        let due = start + options.interval * (seq - 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let pong: Pong = client.ask(&Request::Ping {
            node: node.peer_id.to_string(),
            timeout_ms: timeout.as_millis() as u64,
        })?;
        let answer = Answer {
            seq,
            bytes: pong.bytes,
            hops: pong.hops,
            rtt_ms: pong.rtt_ms,
        };
        if !json {
            print_line(line(&name, &answer))?;
        }
        answers.push(answer);
    }
    let times: Vec<f64> = answers.iter().filter_map(|a| a.rtt_ms).collect();
    let summary = Summary::of(&times);
    if json {
        let rtt = summary.map(|s| json!({ "min": s.min, "avg": s.avg, "max": s.max }));
        print_line(json!({
            "peer_id": node.peer_id,
            "name": node.name,
            "address": node.address,
            "sent": options.count,
            "received": times.len(),
            "rtt_ms": rtt,
            "answers": answers,
        }))?;
    } else {
        let times_text = summary.map_or(String::new(), |s| {
            format!(", min/avg/max {:.2}/{:.2}/{:.2} ms", s.min, s.avg, s.max)
        });
        let received = times.len();
        print_line(format_args!(
            "{} sent, {received} received{times_text}",
            options.count
        ))?;
    }
    Ok(if times.is_empty() {
        Exit::Unreachable
    } else {
        Exit::Ok
    })
}

/// Returns the node by the daemon's routes; exit code 3 if it is unreachable.
pub fn resolve(client: &mut Client, node: &str) -> anyhow::Result<Route> {
    let routes: Vec<Route> = client.ask(&Request::Routes)?;
    let found = match node.parse() {
        Ok(address) => by_ipv4(&routes, address).ok_or_else(|| NotFound::Nobody(node.to_owned())),
        Err(_) => find(&routes, node),
    };
    let found = found.cloned();
    Ok(found.map_err(|e| {
        let exit = match e {
            NotFound::Nobody(_) => Exit::Unreachable,
            NotFound::Several(..) => Exit::Usage,
        };
        ExitError::new(exit, e.to_string())
    })?)
}

/// Returns the present owner of an IPv4 address. Only for `ping`: the address is not an identity.
fn by_ipv4(routes: &[Route], address: Ipv4Addr) -> Option<&Route> {
    routes.iter().find(|route| route.ipv4 == Some(address))
}

fn line(name: &str, a: &Answer) -> String {
    match a.rtt_ms {
        Some(ms) => format!(
            "{} bytes from {name}: seq={} hops={} time={ms:.2} ms",
            a.bytes, a.seq, a.hops
        ),
        None => format!("no answer: seq={}", a.seq),
    }
}

#[derive(Debug, PartialEq)]
struct Summary {
    min: f64,
    avg: f64,
    max: f64,
}

impl Summary {
    fn of(times: &[f64]) -> Option<Self> {
        let min = times.iter().copied().reduce(f64::min)?;
        let max = times.iter().copied().reduce(f64::max)?;
        let avg = times.iter().sum::<f64>() / times.len() as f64;
        Some(Self { min, avg, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_bytes_seq_and_time() {
        let answer = |rtt_ms| Answer {
            seq: 3,
            bytes: 56,
            hops: 2,
            rtt_ms,
        };
        let text = line("alpha (fd00::1)", &answer(Some(1.234)));
        assert_eq!(
            text,
            "56 bytes from alpha (fd00::1): seq=3 hops=2 time=1.23 ms"
        );
        assert_eq!(line("alpha", &answer(None)), "no answer: seq=3");
    }

    #[test]
    fn the_summary_is_of_what_was_answered() {
        assert_eq!(Summary::of(&[]), None);
        let expected = Summary {
            min: 1.0,
            avg: 2.0,
            max: 4.0,
        };
        assert_eq!(Summary::of(&[1.0, 4.0, 1.0]), Some(expected));
    }
}
