//! Checks whether the router maps the links' UDP port, so that hosts behind any NAT reach this one.

use std::net::IpAddr;

use lcroute_control::config::Silent;
use lcroute_control::status::Mapping;
use lcroute_netlink::is_behind_nat;

use super::{Check, Patient, State};
use crate::port_mapping::settings;

const NAME: &str = "ports";
const BY_HAND: &str = "nothing has to be done while links come about. For a direct way in from everywhere: switch on PCP, \
     NAT-PMP or UPnP in the router, or forward a UDP port there to this host, and set [ice] port to it";

pub(super) fn check(patient: &Patient) -> Check {
    match patient.config.exposure().router() {
        Ok(()) => {}
        Err(Silent::Off) => {
            return Check::skipped(NAME, "the router is not asked: [ice] map_port = false");
        }
        Err(Silent::Hidden) => {
            let why = "the router is not asked: the LAN would learn of this host ([ice] policy = \"relay\")";
            return Check::skipped(NAME, why);
        }
    }
    if let Err(e) = settings(&patient.config).router() {
        return Check::skipped(NAME, e.to_string());
    }
    match &patient.daemon {
        Some(daemon) => of(&daemon.status.mapping),
        None => Check::skipped(NAME, format!("{}, which asks the router", patient.without)),
    }
}

fn of(mapping: &Mapping) -> Check {
    let Some((address, by)) = mapping.address.zip(mapping.by) else {
        let why = mapping.failure.as_deref();
        let why = why.unwrap_or("it has not answered yet");
        let detail = format!("the router maps none ({why})");
        return Check::new(NAME, State::Ok, detail, Some(BY_HAND.into()));
    };
    let detail = format!("the router maps {address}, by {}", by.name());
    match address.ip() {
        IpAddr::V4(ip) if is_behind_nat(ip) => {
            let remedy = "hosts of its own network reach that; for others forward the port in the next router, too";
            let detail = format!("{detail}; it is behind a NAT itself");
            Check::new(NAME, State::Ok, detail, Some(remedy.into()))
        }
        _ => Check::ok(NAME, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lcroute_control::status::Protocol;

    #[test]
    fn a_mapping_its_worth_and_its_absence_are_told() {
        let mapped = |address: &str| Mapping {
            address: address.parse().ok(),
            by: Some(Protocol::Upnp),
            failure: None,
        };
        let public = of(&mapped("203.0.113.5:7000"));
        assert_eq!((public.state, public.remedy), (State::Ok, None));
        assert!(public.detail.contains("203.0.113.5:7000, by UPnP"));
        let double = of(&mapped("100.64.0.5:7000"));
        assert!(
            double
                .remedy
                .is_some_and(|remedy| remedy.contains("next router"))
        );
        let failure = Some("PCP: Gateway did not respond".to_owned());
        let none = of(&Mapping {
            failure,
            ..Mapping::default()
        });
        assert!(none.detail.contains("PCP: Gateway did not"));
        assert!(
            none.remedy
                .is_some_and(|remedy| remedy.contains("[ice] port"))
        );
    }
}
