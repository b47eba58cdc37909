//! Whether the uplink is slow, and which nodes carry what this one sends.

use lcroute_control::status::Uplink;
use librecast_program::units::{count, short};

use super::{Check, Patient};

const NAME: &str = "uplink";
const REMEDY: &str = "on a listener or a server with a good uplink: [network] carry = \"joined\" or \"any\", \
     and a certificate that permits the groups";

pub(super) fn check(patient: &Patient) -> Check {
    match &patient.daemon {
        Some(daemon) => of(&daemon.status.uplink),
        None => Check::skipped(NAME, patient.without),
    }
}

fn of(uplink: &Uplink) -> Check {
    if !uplink.short {
        let known = match uplink.upload {
            None => "copies of own multicast leave it room".to_owned(),
            Some(0) => "[network] upload = 0, and one copy is sent".to_owned(),
            Some(upload) => format!(
                "own multicast takes less than half of {}bit/s",
                short(upload as f64)
            ),
        };
        return Check::ok(NAME, known);
    }
    let carried: Vec<_> = uplink.carried.iter().map(|c| c.name.as_str()).collect();
    if uplink.waiting == 0 && !carried.is_empty() {
        let detail = format!(
            "it is short; own groups are carried by {}",
            carried.join(", ")
        );
        return Check::ok(NAME, detail);
    }
    let copies = format!("{:.1} copies of own packets go out", uplink.copies);
    let refusals = uplink
        .refusals
        .iter()
        .map(|r| format!("{} {}", r.name, r.why));
    let refusals: Vec<_> = refusals.collect();
    let why = match refusals.as_slice() {
        [] => "no other node can be asked".to_owned(),
        refusals => refusals.join(", "),
    };
    let what = match carried.as_slice() {
        [] => "nobody carries".to_owned(),
        _ => format!("no carrier for {}", count(uplink.waiting, "part")),
    };
    let detail = format!("it is the bottleneck: {copies}; {what}: {why}");
    Check::warn(NAME, detail, REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use lcroute_control::status::{CarriedGroups, CarryRefusal};

    #[test]
    fn a_short_uplink_is_a_warning_until_somebody_carries() {
        let mut uplink = Uplink {
            upload: Some(20_000_000),
            ..Uplink::default()
        };
        assert_eq!(of(&uplink).state, State::Ok);
        (uplink.short, uplink.copies) = (true, 5.0);
        let check = of(&uplink);
        assert_eq!(check.state, State::Warn);
        assert!(
            check.detail.contains("no other node can be asked"),
            "{}",
            check.detail
        );
        uplink.refusals = vec![CarryRefusal {
            name: "n3".into(),
            why: "says no".into(),
        }];
        let detail = of(&uplink).detail;
        assert!(
            detail.contains("5.0 copies of own packets go out; nobody carries: n3 says no"),
            "{detail}"
        );
        uplink.carried = vec![CarriedGroups {
            name: "n2".into(),
            prefixes: vec!["ff1e::/68".into()],
        }];
        assert_eq!(of(&uplink).state, State::Ok);
        uplink.waiting = 2;
        assert!(of(&uplink).detail.contains("no carrier for 2 parts"));
    }
}
