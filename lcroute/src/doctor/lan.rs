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
    let complaints = lans.iter().filter_map(|lan| match &patient.daemon {
        Some(daemon) => served(daemon, lan),
        None => unserved(lan),
    });
    let (problems, remedies): (Vec<_>, Vec<_>) = complaints.unzip();
    let notes = notes(patient);
    if problems.is_empty() && !notes.is_empty() {
        let (details, remedies): (Vec<_>, Vec<_>) = notes.into_iter().unzip();
        return Check::warn(NAME, details.join("; "), remedies.join("\n"));
    }
    if problems.is_empty() {
        let names: Vec<_> = lans.iter().map(|lan| lan.interface.as_str()).collect();
        let detail = match patient.daemon {
            Some(_) => "all is well on",
            None => "the daemon will serve",
        };
        return Check::ok(NAME, format!("{detail} {}", names.join(" ")));
    }
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

/// As the daemon says.
fn served(daemon: &Daemon, lan: &config::Lan) -> Option<Complaint> {
    let name = &lan.interface;
    let Some(said) = daemon.lans.iter().find(|said| said.interface == *name) else {
        return Some((
            format!("{name}: the daemon does not know it"),
            RELOAD.into(),
        ));
    };
    let problem = said.problem.as_ref()?;
    let remedy = said.remedy.clone().unwrap_or_default();
    Some((format!("{name} ({}): {problem}", said.role), remedy))
}

/// As the kernel says.
fn unserved(lan: &config::Lan) -> Option<Complaint> {
    let name = &lan.interface;
    // what cannot be looked at is no complaint
    let complaint = lan::look(name).ok()?.err()?;
    Some((
        format!("{name}: {}", complaint.problem),
        complaint.remedy.into(),
    ))
}
