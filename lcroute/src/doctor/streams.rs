//! Streams: whether their program runs, and whether the host's firewall admits their port.

use librecast::channel::STREAM_PORT;
use librecast::stream::{socket_of, status};

use super::firewall::{self, Traffic};
use super::{Check, Patient};

const NAME: &str = "streams";

pub(super) fn check(patient: &Patient) -> Check {
    let control = patient.common.control_to_ask(&patient.config);
    let socket = socket_of(&control);
    if super::is_hidden(&socket) {
        return Check::skipped(NAME, "the program for streams does not answer this user");
    }
    let Ok(status) = status(&socket) else {
        return match patient.config.serve.len() {
            0 => Check::skipped(NAME, "no program for streams answers"),
            served => Check::warn(
                NAME,
                format!(
                    "the configuration has [[serve]] {served} times, and no program for streams answers"
                ),
                "systemctl enable --now lcroute-streams",
            ),
        };
    };
    let tun = match &patient.daemon {
        Some(daemon) => &daemon.status.tun,
        None => &patient.config.tun.name,
    };
    let detail = format!("{} open, {} served", status.streams, status.serving.len());
    let Some(rules) = super::nft_ruleset() else {
        return Check::ok(
            NAME,
            format!("{detail}; the firewall was not looked at: nft is not there, or needs root"),
        );
    };
    match firewall::is_closed(&rules, tun, Traffic::Streams) {
        false => Check::ok(NAME, detail),
        true => Check::warn(
            NAME,
            format!(
                "{detail}; the firewall drops what no rule lets in, and none lets in UDP port {STREAM_PORT} on {tun}: others open no streams to this host"
            ),
            format!(
                "nft insert rule inet filter input iifname \"{tun}\" udp dport {STREAM_PORT} accept\n\
                 (names of table and chain as on this host; with firewalld, a zone for {tun})"
            ),
        ),
    }
}
