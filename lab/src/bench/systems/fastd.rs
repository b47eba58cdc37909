//! fastd: every host knows the sending one, which knows all. With one tap it floods; with an
//! interface per peer in a bridge, the kernel's MLD snooping limits packets to listeners.

use anyhow::{Context, Result};

use super::super::system::{QUEUE, System, bring_up, numbered, system, wait_interface};
use lcroute_demo::lab::Host;

/// The interfaces by which fastd passes packets to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Tap,
    Multitap,
}

const TAP: &str = "tap0";
const BRIDGE: &str = "bridge0";
const PORT: u16 = 10_000;

pub fn start(hosts: Vec<Host>, mode: Mode) -> Result<System> {
    let keys: Vec<Keys> = hosts.iter().map(Keys::generate).collect::<Result<_>>()?;
    let numbered = numbered(&hosts)?;
    let (interface, prefix) = match mode {
        Mode::Tap => (TAP, "mode tap"),
        Mode::Multitap => (BRIDGE, "mode multitap"),
    };
    let mut processes = Vec::new();
    for (number, host, _) in &numbered {
        let star = |other: usize| other != *number && (*number == 1 || other == 1);
        let peers: Vec<_> = numbered.iter().filter(|(other, ..)| star(*other)).collect();
        let mut config = format!(
            "{prefix};\n\
             method \"salsa2012+umac\";\n\
             mtu 1400;\n\
             log to stderr level verbose;\n\
             bind any:{PORT};\n\
             secret \"{}\";\n",
            keys[number - 1].secret
        );
        if mode == Mode::Tap {
            config += &format!("interface \"{TAP}\";\n");
        }
        for (other, _, address) in &peers {
            let key = &keys[other - 1].public;
            config += &format!("peer \"p{other}\" {{ key \"{key}\"; remote {address}:{PORT};");
            if mode == Mode::Multitap {
                config += &format!(" interface \"to{other}\";");
            }
            config += " }\n";
        }
        let file = host.write("fastd.conf", config)?;
        let mut process = host.spawn("fastd", &["--config", &file.to_string_lossy()])?;
        match mode {
            Mode::Tap => wait_interface(host, TAP, &mut process)?,
            Mode::Multitap => {
                let ports: Vec<String> = peers
                    .iter()
                    .map(|(other, ..)| format!("to{other}"))
                    .collect();
                for port in &ports {
                    wait_interface(host, port, &mut process)?;
                }
                bridge(host, &ports, *number == 1)?;
            }
        }
        bring_up(host, *number, interface)?;
        processes.push(process);
    }
    Ok(system(hosts, interface, processes))
}

/// Makes a bridge that snoops listeners per port; one of the bridges is the querier.
fn bridge(host: &Host, ports: &[String], querier: bool) -> Result<()> {
    let querier = u8::from(querier);
    let mut commands = format!(
        "link add {BRIDGE} type bridge mcast_snooping 1 mcast_querier {querier} \
         mcast_startup_query_interval 100 mcast_mld_version 2\n"
    );
    for port in ports {
        commands += &format!("link set {port} mtu 1400 txqueuelen {QUEUE} master {BRIDGE} up\n");
    }
    host.ip(&commands)
}

struct Keys {
    secret: String,
    public: String,
}

impl Keys {
    fn generate(host: &Host) -> Result<Keys> {
        let said = host.run("fastd", &["--generate-key"])?.success()?.stdout;
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
                .with_context(|| format!("no {name} in {said}"))
        };
        Ok(Keys {
            secret: value("Secret:")?,
            public: value("Public:")?,
        })
    }
}
