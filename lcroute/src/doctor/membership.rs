//! State directory, identity, certificate.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use lcroute_control::status;
use librecast::cert::CertError;
use librecast::time::{UnixTime, utc};

use super::{Check, Patient, SYSTEM_STATE, is_root};
use crate::state::{EARLIEST, StateDir};

/// Seconds before the certificate's end at which renewal counts as failed: a node asks when a third
/// of the validity is left.
const LATE: u64 = 86_400;
const EXPELLED: &str = "this node has been expelled from its network";
const REJOIN: &str = status::NEW_KEY;

/// Returns the message, with the reason if the token had a bound.
fn expelled(token_uses: Option<u32>) -> String {
    let why = token_uses.map(lcroute_node::spent);
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("{EXPELLED}{why}")
}

pub(super) fn checks(patient: &mut Patient) -> Vec<Check> {
    let mut checks = vec![folder(patient)];
    let (identity, certificate) = identity(patient);
    checks.push(key_conflict(patient).unwrap_or(identity));
    checks.extend(certificate);
    checks
}

fn folder(patient: &Patient) -> Check {
    const NAME: &str = "state directory";
    let state = StateDir::of(&patient.common, &patient.config);
    let path = state.path();
    let shown = path.display();
    let there = match path.metadata() {
        Ok(there) => there,
        Err(_) if is_elsewhere(path) => {
            return Check::skipped(NAME, format!("only root sees {SYSTEM_STATE}"));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let remedy = "lcroute init founds a network, lcroute join TOKEN joins one";
            return Check::fail(NAME, format!("{shown} does not exist"), remedy);
        }
        Err(e) => return Check::skipped(NAME, format!("{shown}: {e}")),
    };
    let mode = there.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let remedy = format!("chmod 700 {shown}");
        return Check::warn(
            NAME,
            format!("{shown} has mode {mode:o}: others can look into it"),
            remedy,
        );
    }
    match path.join("node.key").metadata() {
        Ok(key) if key.permissions().mode() & 0o077 != 0 => {
            let remedy =
                format!("chmod 600 {shown}/*.key; anyone who has read it can act as this node");
            Check::fail(
                NAME,
                format!("{shown}/node.key can be read by others"),
                remedy,
            )
        }
        Ok(key) if key.uid() != there.uid() => {
            let remedy = format!("chown -R --reference={shown} {shown}");
            Check::warn(
                NAME,
                format!("{shown} and the key in it belong to different users"),
                remedy,
            )
        }
        _ => Check::ok(NAME, format!("{shown}, mode {mode:o}")),
    }
}

/// Reports another host that runs with the same key.
fn key_conflict(patient: &Patient) -> Option<Check> {
    let status = &patient.daemon.as_ref()?.status;
    let conflict = status.key_conflict.as_ref()?;
    let detail = format!(
        "another host has this node's key ({}): {}; {} sees both",
        status.peer_id,
        conflict.place(),
        conflict.seen_by
    );
    let remedy = format!("its state folder was copied; on one of the two: {REJOIN}");
    Some(Check::fail("identity", detail, remedy))
}

fn identity(patient: &mut Patient) -> (Check, Option<Check>) {
    const NAME: &str = "identity";
    const CERTIFICATE: &str = "certificate";
    let state = StateDir::of(&patient.common, &patient.config);
    let now = UnixTime::now();
    if patient
        .daemon
        .as_ref()
        .is_some_and(|d| d.status.state == status::State::Expelled)
    {
        let uses = patient.daemon.as_ref().and_then(|d| d.status.token_uses);
        let check = Check::fail(CERTIFICATE, expelled(uses), REJOIN);
        return (Check::skipped(NAME, "see certificate"), Some(check));
    }
    if now < EARLIEST {
        let remedy = "set the clock (timedatectl set-ntp true)";
        let check = Check::fail(
            CERTIFICATE,
            "the clock stands before 2025: no certificate is valid yet",
            remedy,
        );
        return (Check::skipped(NAME, "the clock is wrong"), Some(check));
    }
    match state.identity_now(now) {
        Ok(Err(error)) => {
            let remedy = match error {
                CertError::NotYetValid(_) => {
                    "set the clock (timedatectl set-ntp true): a daemon that waits for it goes on by itself"
                }
                _ => "if the clock is right: lcroute join with a new token",
            };
            let detail = format!(
                "own membership: {error}; the clock says {}",
                utc(now.as_secs())
            );
            let check = Check::fail(CERTIFICATE, detail, remedy);
            (Check::skipped(NAME, "see certificate"), Some(check))
        }
        Ok(Ok(found)) => {
            let member = &found.member;
            let detail = format!("{} ({})", member.name, member.peer);
            let left = member.not_after.saturating_sub(now.as_secs());
            let days = left / 86_400;
            let revocations = state.revocations(&found.membership.network, now);
            if revocations.is_ok_and(|all| all.expel(member)) {
                return (
                    Check::ok(NAME, detail),
                    Some(Check::fail(
                        CERTIFICATE,
                        expelled(member.bound.map(|bound| bound.uses)),
                        REJOIN,
                    )),
                );
            }
            let late = LATE.min(found.chain.life() / 6);
            let certificate = match left {
                // a token's certificate: the first issuer that it meets renews it
                left if left < late && found.chain.invitation().is_some() => Check::ok(
                    CERTIFICATE,
                    format!(
                        "valid for {} hours; the first issuer that this node reaches renews it for {} days",
                        left / 3_600,
                        found.chain.life() / 86_400
                    ),
                ),
                left if left < late => Check::warn(
                    CERTIFICATE,
                    format!("ends in {} hours, and was not renewed", left / 3_600),
                    "let this node reach an issuer (a node that ran lcroute init), or join again with a new token",
                ),
                _ => Check::ok(
                    CERTIFICATE,
                    format!("valid for {days} days more; renews itself"),
                ),
            };
            patient.identity = Some(found);
            (Check::ok(NAME, detail), Some(certificate))
        }
        Err(_) if is_hidden(&state) || is_elsewhere(state.path()) => {
            let check = match &patient.daemon {
                Some(daemon) => Check::ok(
                    NAME,
                    format!("{} ({})", daemon.status.name, daemon.status.peer_id),
                ),
                None => Check::skipped(NAME, "only root and the daemon see it"),
            };
            (
                check,
                Some(Check::skipped(
                    CERTIFICATE,
                    "only root and the daemon see it",
                )),
            )
        }
        Err(e) => {
            let remedy = "lcroute init founds a network, lcroute join TOKEN joins one";
            (Check::fail(NAME, format!("{e:#}"), remedy), None)
        }
    }
}

/// Whether this is a user without a daemon of his own, while the system has one.
fn is_elsewhere(path: &Path) -> bool {
    !is_root() && !path.exists() && Path::new(SYSTEM_STATE).exists()
}

/// Whether this user may not read the directory.
fn is_hidden(state: &StateDir) -> bool {
    let opened = std::fs::File::open(state.path().join("node.key"));
    opened.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}
