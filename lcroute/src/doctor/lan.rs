//! LANs that this node is to be a gateway of.

use super::{Check, Daemon, Patient};
use crate::{config, lan};

const NAME: &str = "lans";
const RELOAD: &str = "`lcroute reload` takes the configuration over";

/// What is wrong with a LAN, and what to do.
type Complaint = (String, String);

pub(super) fn check(patient: &Patient) -> Check {
    let lans = &patient.config.lan;
    if lans.is_empty() {
        return Check::skipped(NAME, "no [[lan]]: this node is no gateway");
    }
    let looked = match &patient.daemon {
        Some(daemon) => served(daemon),
        None => unserved(lans),
    };
    let mut complaints: Vec<Complaint> = Vec::new();
    let mut names = Vec::new();
    // a name counts before a pattern
    let (patterns, named): (Vec<_>, Vec<_>) = lans.iter().partition(|lan| lan.is_pattern());
    for lan in named.into_iter().chain(patterns) {
        let here = looked
            .iter()
            .filter(|(name, _)| lan.is_on(name) && !names.contains(name));
        let here: Vec<_> = here.collect();
        match (here.is_empty(), lan.is_pattern()) {
            // what matches may come later
            (true, true) => names.push(format!("{} (none now)", lan.interface)),
            (true, false) if patient.daemon.is_some() => complaints.push((
                format!("{}: the daemon does not know it", lan.interface),
                RELOAD.into(),
            )),
            _ => names.extend(here.iter().map(|(name, _)| name.clone())),
        }
        complaints.extend(here.iter().filter_map(|(_, complaint)| complaint.clone()));
    }
    let notes = notes(patient);
    if complaints.is_empty() && !notes.is_empty() {
        let (details, remedies): (Vec<_>, Vec<_>) = notes.into_iter().unzip();
        return Check::warn(NAME, details.join("; "), remedies.join("\n"));
    }
    if complaints.is_empty() {
        let detail = match patient.daemon {
            Some(_) => "all is well on",
            None => "the daemon will serve",
        };
        return Check::ok(NAME, format!("{detail} {}", names.join(" ")));
    }
    let (problems, remedies): (Vec<_>, Vec<_>) = complaints.into_iter().unzip();
    Check::fail(NAME, problems.join("; "), remedies.join("\n"))
}

/// Switches that may keep joins away.
fn notes(patient: &Patient) -> Vec<Complaint> {
    let lans = patient.daemon.iter().flat_map(|daemon| &daemon.lans);
    let noted = lans.filter_map(|lan| {
        let note = lan.note.as_ref()?;
        let querier = lan.querier_ipv4.as_deref().unwrap_or_default();
        let detail = format!("{}: IPv4 queries come from {querier}", lan.interface);
        Some((detail, note.clone()))
    });
    noted.collect()
}

/// Interfaces as the daemon says.
fn served(daemon: &Daemon) -> Vec<(String, Option<Complaint>)> {
    let said = daemon.lans.iter().map(|said| {
        let complaint = said.problem.as_ref().map(|problem| {
            let name = &said.interface;
            let remedy = said.remedy.clone().unwrap_or_default();
            (format!("{name} ({}): {problem}", said.role), remedy)
        });
        (said.interface.clone(), complaint)
    });
    said.collect()
}

/// Interfaces as the kernel says.
fn unserved(lans: &[config::Lan]) -> Vec<(String, Option<Complaint>)> {
    // what cannot be looked at is no complaint
    let looked = lan::look(lans).unwrap_or_default().into_iter();
    let said = looked.map(|(name, complaint)| {
        let complaint = complaint.map(|c| (format!("{name}: {}", c.problem), c.remedy.into()));
        (name, complaint)
    });
    said.collect()
}
