//! `lan host`: where a host of a segment is.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use librecast_program::cli::{Exit, ExitError};

use super::print_line;
use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::status::{LanHost, LanPlace};

/// Time after which a host that has not answered is absent: gateways ask for a second, and hosts
/// answer late from power save.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time between two questions to the daemon.
const PAUSE: Duration = Duration::from_millis(50);

/// Prints the places of a host, a line for each LAN of a segment; exit code 3 if nobody answers.
/// `release`: gives its address away first.
pub fn host(
    control: &Path,
    address: IpAddr,
    mut release: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    let mut client = Client::connect(control)?;
    let start = Instant::now();
    let is_asked = |host: &LanHost| host.place == LanPlace::Asked;
    let mut hosts: Vec<LanHost>;
    loop {
        hosts = client.ask(&Request::LanHost { address, release })?;
        release = false;
        if !hosts.iter().any(is_asked) || start.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    if hosts.is_empty() {
        let message =
            "no LAN of this node is in a segment: `segment` in [[lan]] of the configuration";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    for host in hosts.iter_mut().filter(|host| is_asked(host)) {
        host.place = LanPlace::Nobody;
    }
    if json {
        print_line(serde_json::to_string(&hosts)?)?;
    } else {
        let is_one = hosts.len() == 1;
        for host in &hosts {
            let interface = match is_one {
                true => String::new(),
                false => format!("{}: ", host.interface),
            };
            print_line(format_args!("{interface}{}", shown(host)))?;
        }
    }
    let is_found = hosts.iter().any(|host| host.place != LanPlace::Nobody);
    Ok(if is_found {
        Exit::Ok
    } else {
        Exit::Unreachable
    })
}

fn shown(host: &LanHost) -> String {
    let mac = host.mac.as_deref().unwrap_or("?");
    let node = host.node.as_deref().unwrap_or("?");
    match host.place {
        LanPlace::Here => format!("here ({mac})"),
        LanPlace::Behind => format!("behind {node}"),
        LanPlace::Conflict => {
            format!("conflict: here ({mac}) and behind {node}; give one of them another address")
        }
        LanPlace::Kept => format!(
            "behind {node}, and kept for a host of this LAN; --release gives the address away"
        ),
        LanPlace::Nobody | LanPlace::Asked => "nobody answers".into(),
        LanPlace::Standby => "another gateway serves this LAN: ask it".into(),
    }
}
