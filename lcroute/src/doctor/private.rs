//! Private prefixes: their keys on this host, and their groups in clear.

use lcroute_control::config::{Private, Privates};
use lcroute_control::status::PrivateStatus;

use lcroute_node::PrivatePrefix;

use super::interface::example;
use super::{Check, NOT_TO_ASK, Patient};
use crate::netlink;
use crate::private::{self, Loaded, LoadedSegment};
use crate::tun;

const NAME: &str = "private prefixes";

/// Returns prefixes that programs reach by an interface of another program, with its name.
fn open(configured: &Privates) -> std::io::Result<Vec<String>> {
    let all = netlink::interfaces()?;
    let mut open = Vec::new();
    for Private { prefix, .. } in &configured.prefixes {
        let egress = netlink::route_to(example(prefix), None)?;
        let taker = egress.and_then(|egress| all.iter().find(|i| i.index == egress.index));
        let taker = taker.filter(|i| i.alias.as_deref() != Some(tun::ALIAS));
        open.extend(taker.map(|taker| format!("{prefix} by {}", taker.name)));
    }
    Ok(open)
}

pub(super) fn check(patient: &Patient) -> Check {
    let configured = &patient.config.private;
    if configured.is_empty() {
        return Check::skipped(
            NAME,
            "no [[private]]: members on the path can read and change what is sent",
        );
    }
    if patient.without == NOT_TO_ASK {
        return Check::skipped(NAME, NOT_TO_ASK);
    }
    let loaded = private::load(&configured.prefixes);
    let loaded = loaded.and_then(|loaded| {
        let segments = private::load_segments(&configured.segments)?;
        Ok((loaded, segments))
    });
    let (loaded, segments) = match loaded {
        Ok(loaded) => loaded,
        Err(e) => return Check::fail(NAME, e.to_string(), "name a key that `lcroute keygen` made"),
    };
    if patient.daemon.is_none() {
        match open(configured) {
            Ok(open) if !open.is_empty() => {
                let detail = format!("no daemon runs, and in clear go {}", open.join("; "));
                return Check::fail(
                    NAME,
                    detail,
                    "sudo lcroute close; with each start of the host: systemctl enable lcroute-close",
                );
            }
            Ok(_) => {}
            Err(e) => return Check::skipped(NAME, format!("netlink: {e}")),
        }
    }
    let (mut closed, mut remedies) = (Vec::new(), Vec::new());
    for Loaded { prefix, problem } in &loaded {
        let shown = prefix.prefix.to_string();
        let running = patient.daemon.as_ref().map(|d| &d.status.private);
        let running = running.map(|all| all.iter().find(|p| p.prefix == shown));
        match (running, problem) {
            (Some(Some(PrivateStatus { has_key: true, .. })), _) => {}
            (_, None) if prefix.secrets.is_empty() => {
                closed.push(format!("{shown}: no program gives its keys"));
                remedies.push(
                    "`lcgroup protect GROUP PREFIX` gives those of a group; a keyfile in [[private]] does without",
                );
            }
            (Some(Some(_)), Some(problem)) | (None, Some(problem)) => {
                closed.push(format!("{shown}: {problem}"));
                remedies.push(
                    "copy the key of the group's members there, mode 600, and `lcroute reload`",
                );
            }
            (Some(Some(_)), None) => {
                closed.push(format!("{shown}: the daemon has no key"));
                remedies.push(
                    "the daemon's user must be able to read the key file; then `lcroute reload`",
                );
            }
            (Some(None), _) => {
                closed.push(format!(
                    "{shown}: the daemon does not know that it is private"
                ));
                remedies.push("`lcroute reload` takes the configuration over");
            }
            (None, None) => {}
        }
    }
    for LoadedSegment { segment, problem } in &segments {
        let unreadable = problem.as_ref().map(|problem| {
            let remedy =
                "copy the key of the segment's gateways there, mode 600, and `lcroute reload`";
            (problem.clone(), remedy)
        });
        let of_daemon = || {
            let daemon = patient.daemon.as_ref()?;
            let node = daemon.status.address;
            let prefix = PrivatePrefix::of_segment(node, &segment.name, Vec::new()).prefix;
            let shown = prefix.to_string();
            let mut known = daemon.status.private.iter();
            let has_key = known.any(|p| p.prefix == shown && p.has_key);
            let said = "the daemon has no key".to_owned();
            (!has_key).then_some((said, "`lcroute reload` takes the configuration over"))
        };
        if let Some((problem, remedy)) = unreadable.or_else(of_daemon) {
            closed.push(format!("segment {}: {problem}", segment.name));
            remedies.push(remedy);
        }
    }
    if !closed.is_empty() {
        remedies.dedup();
        let detail = format!("nothing of it leaves or enters: {}", closed.join("; "));
        return Check::fail(NAME, detail, remedies.join("\n"));
    }
    let clear: Vec<_> = loaded.iter().filter(|l| l.prefix.lans).collect();
    let lans: Vec<_> = patient
        .config
        .lan
        .iter()
        .map(|lan| lan.interface.as_str())
        .collect();
    let names = loaded.iter().map(|l| l.prefix.prefix.to_string());
    let segments = segments
        .iter()
        .map(|s| format!("segment {}", s.segment.name));
    let names: Vec<_> = names.chain(segments).collect();
    if !clear.is_empty() && !lans.is_empty() {
        let prefixes: Vec<_> = clear.iter().map(|l| l.prefix.prefix.to_string()).collect();
        let detail = format!("{}: in clear on {}", prefixes.join(" "), lans.join(" "));
        return Check::warn(
            NAME,
            detail,
            "leave out `lans = true` where hosts of LANs need none of it",
        );
    }
    Check::ok(NAME, format!("{}: sealed", names.join(" ")))
}
