//! One trial: programs on the listening hosts join again, the program on the sending host sends at
//! one rate, and then the costs of all hosts are read.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use lcroute_demo::lab::{Receiver, Traffic, UPLINK, within};

use super::search::Outcome;
use super::system::{Node, System};

const GROUP: &str = "ff1e::42";
/// Port of listeners that stay joined between trials, so that the group stays wanted.
const HOLD_PORT: &str = "5002";
/// Time without a packet after which no more are expected.
const SILENCE: Duration = Duration::from_millis(400);

/// The traffic of a trial.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a datagram's payload.
    pub size: u64,
    /// Datagrams per send call; 1: one `send` each.
    pub gso: u16,
    /// Whether receivers accept coalesced trains.
    pub gro: bool,
}

/// A system under test with a listener on each listening host.
#[derive(Debug)]
pub struct Path<'a> {
    system: &'a System,
    load: Load,
    _listeners: Vec<Receiver>,
}

/// The result of a trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Offered packets a second.
    pub offered: u64,
    /// Sent packets a second.
    pub rate: u64,
    /// The part that did not arrive, 0 to 1, at the worst listener.
    pub loss: f64,
    /// Latency at the worst listener, in microseconds.
    pub latency: Value,
    /// CPU seconds per GB of payload: of the sender's daemon, and the mean of the listeners'.
    pub cpu: [Option<f64>; 2],
    /// CPU seconds per GB of payload of the sending and receiving programs.
    pub programs_cpu: [f64; 2],
    /// Resident bytes of the daemons afterwards, the sender's first.
    pub resident: Vec<u64>,
    /// Bytes per byte of payload that the sender put on the wire, and that reached the idle host.
    pub wire: [f64; 2],
    /// Packets and bytes that came to the sender, per packet that it sent.
    pub returned: [f64; 2],
    /// lcroute's drops on each host, by reason.
    pub drops: Value,
}

impl Outcome for Trial {
    fn rate(&self) -> u64 {
        self.rate
    }

    fn loss(&self) -> f64 {
        self.loss
    }
}

impl<'a> Path<'a> {
    /// Joins on each listening host, and waits until packets reach all of them.
    pub fn open(system: &'a System, load: Load) -> Result<Path<'a>> {
        let held = |node: &Node| {
            let args = ["--interface", node.interface, "--port", HOLD_PORT];
            node.host.receive(GROUP, &args)
        };
        let listeners: Vec<Receiver> =
            system.listeners().iter().map(held).collect::<Result<_>>()?;
        let sender = system.sender();
        within(
            Duration::from_secs(60),
            "multicast reaches every listener",
            || {
                let args = ["--interface", sender.interface, "--port", HOLD_PORT];
                sender.host.send(GROUP, 5, &args)?;
                for listener in &listeners {
                    listener.number("packets").and_then(|packets| {
                        anyhow::ensure!(packets > 0, "nothing came to a listener yet");
                        Ok(())
                    })?;
                }
                Ok(())
            },
        )?;
        Ok(Path {
            system,
            load,
            _listeners: listeners,
        })
    }

    /// Sends `rate` packets a second for `seconds`.
    pub fn send(&self, rate: u64, seconds: f64) -> Result<Trial> {
        self.send_sized(rate, self.load.size, seconds)
    }

    /// Sends packets of another size.
    pub fn send_sized(&self, rate: u64, size: u64, seconds: f64) -> Result<Trial> {
        let receivers = self.join()?;
        let before = Meters::read(self.system)?;
        let count = ((rate as f64 * seconds) as u64).max(1);
        let sent = self.sender(count, rate, size)?;
        let got: Vec<Value> = receivers
            .iter()
            .map(|receiver| settled(receiver, count))
            .collect::<Result<_>>()?;
        let used = Meters::read(self.system)?.since(&before);
        let number = |value: &Value, key: &str| {
            value[key]
                .as_u64()
                .with_context(|| format!("no {key} in {value}"))
        };
        let arrived: Vec<u64> = got
            .iter()
            .map(|state| number(state, "unique"))
            .collect::<Result<_>>()?;
        let gigabytes = (count * size) as f64 / 1e9;
        let worst = (0..got.len())
            .min_by_key(|&at| arrived[at])
            .context("no listener")?;
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let per_gb = |at: usize| {
            used.cpu[at].map(|cpu| {
                let part = if at == 0 {
                    1.0
                } else {
                    (arrived[at - 1] as f64 / count as f64).max(1e-9)
                };
                cpu / gigabytes / part
            })
        };
        let receiving: Vec<f64> = (1..=got.len()).filter_map(per_gb).collect();
        let programs: Vec<f64> = got
            .iter()
            .filter_map(|state| state["cpu_s"].as_f64())
            .collect();
        Ok(Trial {
            offered: rate,
            // After the last packet it does not wait for the time of the next one.
            rate: rate.min((sent.packets as f64 / sent.seconds).round() as u64),
            loss: (count.saturating_sub(arrived[worst])) as f64 / count as f64,
            latency: got[worst]["latency_us"].clone(),
            cpu: [per_gb(0), (!receiving.is_empty()).then(|| mean(receiving))],
            programs_cpu: [sent.cpu_seconds / gigabytes, mean(programs) / gigabytes],
            resident: self
                .system
                .daemons()
                .map(lcroute_demo::lab::resident_bytes)
                .collect::<Result<_>>()?,
            returned: [used.returned.packets, used.returned.bytes].map(|n| n as f64 / count as f64),
            drops: used.drops,
            wire: [used.sent, used.idle].map(|traffic| traffic.bytes as f64 / gigabytes / 1e9),
        })
    }

    fn join(&self) -> Result<Vec<Receiver>> {
        let join = |node: &Node| {
            let mut args = vec!["--interface", node.interface];
            args.extend(self.load.gro.then_some("--gro"));
            node.host.receive(GROUP, &args)
        };
        self.system.listeners().iter().map(join).collect()
    }

    fn sender(&self, count: u64, rate: u64, size: u64) -> Result<lcroute_demo::lab::Sent> {
        let node = self.system.sender();
        let (rate, size, gso) = (
            rate.to_string(),
            size.to_string(),
            self.load.gso.to_string(),
        );
        node.host.send(
            GROUP,
            count,
            &[
                "--connect",
                "--interface",
                node.interface,
                "--rate",
                &rate,
                "--size",
                &size,
                "--gso",
                &gso,
            ],
        )
    }
}

impl Trial {
    /// Returns the result as JSON.
    #[must_use]
    pub fn json(&self, size: u64) -> Value {
        json!({
            "offered_packets_per_s": self.offered,
            "packets_per_s": self.rate,
            "mbit_per_s": self.mbit(size),
            "loss_percent": self.loss * 100.0,
            "latency_us": self.latency,
            "cpu_s_per_gb": {"sender": self.cpu[0], "receiver": self.cpu[1]},
            "programs_cpu_s_per_gb": {"sender": self.programs_cpu[0], "receiver": self.programs_cpu[1]},
            "resident_bytes": self.resident,
            "sender_wire_bytes_per_byte": self.wire[0],
            "idle_node_bytes_per_byte": self.wire[1],
            "returned_packets_per_packet": self.returned[0],
            "returned_bytes_per_packet": self.returned[1],
            "drops": self.drops,
        })
    }

    /// Returns the rate of arrived payload in Mbit/s.
    pub fn mbit(&self, size: u64) -> f64 {
        self.rate as f64 * (1.0 - self.loss) * (size * 8) as f64 / 1e6
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wanted, sent, lost) = (self.offered, self.rate, self.loss * 100.0);
        write!(
            f,
            "{wanted:>9} packets/s wanted, {sent:>9} sent, {lost:6.2} % lost"
        )?;
        match self.drops.as_object() {
            Some(drops) if !drops.is_empty() => write!(f, " {}", self.drops),
            _ => Ok(()),
        }
    }
}

/// Returns the state of a receiver when it has `count` packets, or after `SILENCE`.
fn settled(receiver: &Receiver, count: u64) -> Result<Value> {
    let (mut got, mut since) = (receiver.packets()?, Instant::now());
    while got < count && since.elapsed() < SILENCE {
        std::thread::sleep(Duration::from_millis(20));
        let now = receiver.packets()?;
        if now > got {
            (got, since) = (now, Instant::now());
        }
    }
    receiver.state()
}

/// Resources used so far.
struct Meters {
    cpu: Vec<Option<f64>>,
    sent: Traffic,
    returned: Traffic,
    idle: Traffic,
    drops: Value,
}

impl Meters {
    fn read(system: &System) -> Result<Meters> {
        let cpu = |node: &Node| node.daemon.map(lcroute_demo::lab::cpu_seconds).transpose();
        Ok(Meters {
            cpu: system.nodes.iter().map(cpu).collect::<Result<_>>()?,
            sent: system.sender().host.interface_traffic(UPLINK)?.1,
            returned: system.sender().host.interface_traffic(UPLINK)?.0,
            idle: system.idle().host.interface_traffic(UPLINK)?.0,
            drops: drops(system)?,
        })
    }

    fn since(&self, before: &Meters) -> Meters {
        let both = self.cpu.iter().zip(&before.cpu);
        Meters {
            cpu: both.map(|(now, then)| Some((*now)? - (*then)?)).collect(),
            sent: self.sent - before.sent,
            returned: self.returned - before.returned,
            idle: self.idle - before.idle,
            drops: grown(&self.drops, &before.drops),
        }
    }
}

/// Returns the drops so far: host -> reason -> packets.
fn drops(system: &System) -> Result<Value> {
    let members = system.network.iter().flat_map(|network| &network.members);
    let dropped = members.map(|member| {
        let name = member.host.name().to_owned();
        Ok((name, member.status()?["counters"]["drops"].clone()))
    });
    Ok(Value::Object(dropped.collect::<Result<_>>()?))
}

/// Returns the increases of all numbers that have grown.
fn grown(now: &Value, before: &Value) -> Value {
    match (now.as_object(), now.as_u64()) {
        (Some(entries), _) => {
            let part = |(name, now): (&String, &Value)| {
                let grown = grown(now, &before[name]);
                (!grown.is_null()).then(|| (name.clone(), grown))
            };
            let parts: Map<String, Value> = entries.iter().filter_map(part).collect();
            if parts.is_empty() {
                Value::Null
            } else {
                Value::Object(parts)
            }
        }
        (None, Some(now)) => match now.saturating_sub(before.as_u64().unwrap_or(0)) {
            0 => Value::Null,
            more => Value::from(more),
        },
        (None, None) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_dropped_since_is_told() {
        let before = json!({"a": {"no_listener": 3, "expired": 1}, "b": {}});
        let now = json!({"a": {"no_listener": 3, "expired": 5}, "b": {"duplicate": 2}, "c": {}});
        let since = json!({"a": {"expired": 4}, "b": {"duplicate": 2}});
        assert_eq!(grown(&now, &before), since);
        assert_eq!(grown(&before, &before), Value::Null);
    }
}
