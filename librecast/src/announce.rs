//! Tells lcroute on this host, if there is one, which groups a program sends to or gathers answers on: then their
//! tree has its root here, and packets take the shortest path.
//!
//! An announcement holds as long as its connection. Nothing depends on it: without lcroute, or where the node's
//! certificate forbids it, packets travel as they would anyway.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv6Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Between two looks for lcroute.
const PAUSE: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// Groups that share their first bits: an address and how many of its bits count.
pub type Prefix = (Ipv6Addr, u8);

/// Announces the prefixes from now on, on a thread of its own.
pub fn start(prefixes: Vec<Prefix>) -> std::io::Result<()> {
    thread::Builder::new()
        .name("announce".into())
        .spawn(move || {
            loop {
                for socket in control_sockets() {
                    if let Ok(stream) = UnixStream::connect(&socket) {
                        let ended = hold(stream, &prefixes);
                        tracing::debug!("{}: {ended:?}", socket.display());
                    }
                }
                thread::sleep(PAUSE);
            }
        })?;
    Ok(())
}

/// Where lcroute answers by default; a user's own daemon first.
fn control_sockets() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("LCROUTE_CONTROL") {
        return vec![path.into()];
    }
    let system = PathBuf::from("/run/lcroute/control.sock");
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !nix::unistd::geteuid().is_root() => {
            vec![PathBuf::from(dir).join("lcroute/control.sock"), system]
        }
        _ => vec![system],
    }
}

/// Announces all and waits until lcroute has gone.
fn hold(stream: UnixStream, prefixes: &[Prefix]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut stream = BufReader::new(stream);
    for (address, length) in prefixes {
        let prefix = format!("{address}/{length}");
        let request = serde_json::json!({ "cmd": "announce", "prefix": prefix });
        writeln!(stream.get_mut(), "{request}")?;
        let mut answer = String::new();
        if (&mut stream).take(MAX_ANSWER).read_line(&mut answer)? == 0 {
            return Ok(());
        }
        match serde_json::from_str::<serde_json::Value>(&answer) {
            Ok(answer) if answer.get("ok").is_some() => {
                tracing::info!("announced {prefix} to lcroute");
            }
            _ => tracing::info!("lcroute does not announce {prefix}: {}", answer.trim()),
        }
    }
    // it has nothing more to say until it ends
    stream.get_ref().set_read_timeout(None)?;
    let mut rest = [0; 64];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_is_announced_and_held_until_lcroute_goes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let prefixes: [Prefix; 2] = [
            ("ff1e:1::".parse().unwrap(), 64),
            ("ff1e:2::1".parse().unwrap(), 128),
        ];
        let held = thread::spawn(move || hold(ours, &prefixes));
        let mut theirs = BufReader::new(theirs);
        for ((address, length), answer) in prefixes
            .iter()
            .zip(["{\"error\":\"no\"}\n", "{\"ok\":{}}\n"])
        {
            let mut line = String::new();
            theirs.read_line(&mut line).unwrap();
            let request: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(request["cmd"], "announce");
            assert_eq!(request["prefix"], format!("{address}/{length}"));
            theirs.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        thread::sleep(Duration::from_millis(50));
        assert!(!held.is_finished(), "it holds on");
        drop(theirs);
        held.join().unwrap().unwrap();
    }
}
