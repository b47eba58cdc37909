//! Checks whether `lcroute web` can serve its pages as configured, and to which users.

use std::io::ErrorKind;

use lcroute_control::config::Web;
use lcroute_signalling::server::TlsFiles;

use super::{Check, Patient};

const NAME: &str = "web";
/// Folder of systemd's credentials, present while the service runs.
const CREDENTIALS: &str = "/run/credentials";

pub(super) fn check(patient: &Patient) -> Check {
    of(&patient.config.web)
}

fn of(web: &Web) -> Check {
    let listen = web.listen;
    let reports = match web.report {
        true => "; members are told what this node carries while one of them looks",
        false => "",
    };
    let (cert, key) = match (&web.tls_cert, &web.tls_key) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (None, None) if listen.ip().is_loopback() => {
            let detail = format!("pages at {listen} are for browsers of this host{reports}");
            return Check::ok(NAME, detail);
        }
        (None, None) => {
            let detail =
                format!("other hosts reach pages at {listen}, and nothing encrypts them{reports}");
            let remedy = "set [web] tls_cert and tls_key; or listen on [::1], and use ssh -L 7180:[::1]:7180";
            return Check::warn(NAME, detail, remedy);
        }
        _ => {
            let remedy = "set both, or neither";
            return Check::fail(NAME, "[web] tls_cert and tls_key go together", remedy);
        }
    };
    let is_credential = key.starts_with(CREDENTIALS);
    match (TlsFiles { cert, key }).acceptor() {
        Ok(_) => Check::ok(NAME, format!("pages at {listen}, with TLS{reports}")),
        Err(e) if is_credential || e.kind() == ErrorKind::PermissionDenied => {
            Check::skipped(NAME, format!("{e}: the service can tell"))
        }
        Err(e) => {
            let remedy = "correct [web] tls_cert and tls_key: `lcroute web` does not start without the files";
            Check::fail(NAME, e.to_string(), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn pages_for_other_hosts_are_encrypted_and_keys_are_there() {
        let state = |text: &str| {
            let config = lcroute_control::config::Config::parse("f", &format!("[web]\n{text}"));
            of(&config.unwrap().web).state
        };
        let open = "listen = \"[::]:7180\"\n";
        assert_eq!(state(""), State::Ok);
        assert_eq!(state("report = true"), State::Ok);
        assert_eq!(state(open), State::Warn);
        assert_eq!(state("tls_cert = \"/nowhere\""), State::Fail);
        let missing = "tls_cert = \"/nowhere\"\ntls_key = \"/nowhere\"";
        assert_eq!(state(&format!("{open}{missing}")), State::Fail);
        let credential = "tls_cert = \"/nowhere\"\ntls_key = \"/run/credentials/x/key\"";
        assert_eq!(state(credential), State::Skipped);
    }
}
