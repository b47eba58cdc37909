//! The node of an lcroute on this host, from its control socket.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;

use crate::announce::control_sockets;
use crate::local::Connection;

/// Time within which lcroute answers a request.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 256 * 1024;

/// The node of an lcroute on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LocalNode {
    /// Name of its interface.
    pub tun: String,
    /// Labels of its certificate.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Answer {
    ok: LocalNode,
}

/// Queries lcroute; none if there is no lcroute or it does not answer at once.
pub fn ask() -> Option<LocalNode> {
    // a guest does not belong to the host's node
    let is_set = |name| std::env::var_os(name).is_some();
    if ["LCROUTE_GUEST_FD", "LCROUTE_GUEST_STATE"]
        .into_iter()
        .any(is_set)
    {
        return None;
    }
    let streams = control_sockets().into_iter().map(UnixStream::connect);
    streams.flatten().find_map(ask_on)
}

fn ask_on(stream: UnixStream) -> Option<LocalNode> {
    let mut lcroute = Connection::over(stream, ANSWER_TIMEOUT, MAX_ANSWER).ok()?;
    let answer = lcroute.ask(&serde_json::json!({ "cmd": "status" })).ok()?;
    Some(serde_json::from_slice::<Answer>(&answer).ok()?.ok)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::thread;

    use super::*;

    fn answered(answer: &'static str) -> Option<LocalNode> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let daemon = thread::spawn(move || {
            let mut theirs = BufReader::new(theirs);
            let mut line = String::new();
            theirs.read_line(&mut line).unwrap();
            theirs.get_mut().write_all(answer.as_bytes()).unwrap();
            line
        });
        let node = ask_on(ours);
        assert_eq!(daemon.join().unwrap(), "{\"cmd\":\"status\"}\n");
        node
    }

    #[test]
    fn labels_are_taken_from_the_status_and_anything_else_is_no_node() {
        let node =
            answered("{\"ok\":{\"tun\":\"lc0\",\"labels\":{\"site\":\"berlin\"},\"peers\":3}}\n");
        let node = node.unwrap();
        assert_eq!(
            (node.tun.as_str(), node.labels["site"].as_str()),
            ("lc0", "berlin")
        );
        let old = answered("{\"ok\":{\"tun\":\"lc0\"}}\n").unwrap();
        assert!(old.labels.is_empty());
        for bad in ["", "{\"error\":\"no\"}\n", "nonsense\n"] {
            assert_eq!(answered(bad), None, "{bad}");
        }
    }
}
