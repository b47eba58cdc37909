//! Streams outside of a network: whether keys that name each other can meet.

use lcroute_control::config::{Config, Outside};
use lcroute_signalling::client;
use librecast::stream::{OutsideLook, outside, socket_of};

use super::{Check, Patient};

const NAME: &str = "outside";
const PLACE: &str = "[outside] meet = [\"wss://HOST\"]: a server that anybody runs (lcroute signal --public); or dht = true";
const RELAY: &str =
    "[ice] policy = \"all\", or no --outside: a link with a stranger shows this host's addresses";
const PROXY: &str = "[outside] dht = true: nodes of the DHT see this host; or no [signal] socks";
const PROGRAM: &str = "systemctl enable --now lcroute-outside.socket";

pub(super) fn check(patient: &Patient) -> Check {
    let config = &patient.config;
    let control = patient.common.control_to_ask(config);
    let look = outside(&socket_of(&control)).ok();
    let served = config.serve.iter().filter(|serve| serve.outside).count();
    let pairs = look.as_ref().map_or(0, |look| look.pairs.len());
    if served == 0 && pairs == 0 {
        return Check::skipped(NAME, "nothing is served or sought outside of the network");
    }
    let Ok(settings) = config.exposure().outside() else {
        return Check::fail(NAME, "[ice] policy = \"relay\" refuses it", RELAY);
    };
    if let Some(why) = look.as_ref().and_then(|look| look.absent.as_ref()) {
        return Check::fail(NAME, why.clone(), PROGRAM);
    }
    let (ways, mut found) = meeting(config, settings);
    let Some(look) = look else {
        let detail = format!(
            "the configuration serves {served} times outside, and no program for streams answers; ways: {ways}"
        );
        return Check::warn(
            NAME,
            detail,
            "systemctl enable --now lcroute-streams lcroute-outside.socket",
        );
    };
    found.extend(silent(&look));
    let linked = look
        .pairs
        .iter()
        .filter(|pair| pair.state == "linked")
        .count();
    let detail = format!("{pairs} keys, {linked} linked; ways: {ways}");
    match found.is_empty() {
        true => Check::ok(NAME, detail),
        false => {
            let remedy = match config.exposure().without_servers_outside() {
                Some(_) => PROXY,
                None => PLACE,
            };
            Check::warn(NAME, format!("{detail}; {}", found.join("; ")), remedy)
        }
    }
}

/// Returns the ways by which all keys are found, and what is wrong with them.
fn meeting(config: &Config, settings: &Outside) -> (String, Vec<String>) {
    let lan = config.exposure().lans().is_ok();
    let Some(why) = config.exposure().without_servers_outside() else {
        return (ways(settings, lan), places(settings, lan));
    };
    let without = Outside {
        meet: Vec::new(),
        ..settings.clone()
    };
    (ways(&without, lan), vec![why.to_owned()])
}

/// Returns the ways by which all keys are found, whatever places they name.
fn ways(outside: &Outside, lan: bool) -> String {
    let lan = lan.then_some("LAN");
    let dht = outside.dht.then_some("DHT");
    let meet = outside.meet.iter().map(|place| place.server());
    let ways: Vec<_> = lan.into_iter().chain(dht).chain(meet).collect();
    match ways.is_empty() {
        true => "none".into(),
        false => ways.join(", "),
    }
}

/// Returns what is wrong with the configured places.
fn places(outside: &Outside, lan: bool) -> Vec<String> {
    let meet = &outside.meet;
    if meet.is_empty() && !outside.dht {
        let lan = match lan {
            true => "found on LANs alone",
            false => "not found at all",
        };
        return vec![format!("a key without a place (KEY@PLACE) is {lan}")];
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let results = runtime.block_on(async {
        let asked = meet.iter().map(|place| client::probe(place.server(), None));
        futures_util::future::join_all(asked).await
    });
    // a pending name lookup must not delay the end
    runtime.shutdown_background();
    let failed = meet.iter().zip(results);
    let failed = failed.filter_map(|(place, result)| Some((place, result.err()?)));
    failed
        .map(|(place, e)| format!("{}: {e:#}", place.server()))
        .collect()
}

/// Returns the other places of keys that do not answer.
fn silent(look: &OutsideLook) -> Option<String> {
    let all = look.pairs.iter().flat_map(|pair| &pair.by);
    let mut silent: Vec<_> = all
        .filter(|by| by.starts_with('('))
        .map(|by| by.trim_matches(['(', ')']))
        .collect();
    silent.sort_unstable();
    silent.dedup();
    (!silent.is_empty()).then(|| format!("no answer from {}", silent.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &Config) -> (&Outside, bool) {
        let exposure = config.exposure();
        (exposure.outside().unwrap(), exposure.lans().is_ok())
    }

    #[test]
    fn a_host_without_a_place_is_told_how_it_is_found() {
        for (text, ways_of, lacks) in [
            ("", "LAN", Some("found on LANs alone")),
            ("[signal]\nlan = false", "none", Some("not found at all")),
            ("[outside]\ndht = true", "LAN, DHT", None),
        ] {
            let config = Config::parse("f", text).unwrap();
            let (outside, lan) = settings(&config);
            assert_eq!(ways(outside, lan), ways_of, "{text}");
            let found = places(outside, lan).join("; ");
            match lacks {
                Some(lacks) => assert!(found.contains(lacks), "{found}"),
                None => assert_eq!(found, ""),
            }
        }
    }

    #[test]
    fn behind_a_proxy_no_server_is_a_way_or_asked() {
        let text = "[signal]\nlan = false\nsocks = \"127.0.0.1:9050\"\n[outside]\nmeet = [\"ws://127.0.0.1:1\"]";
        let config = Config::parse("f", text).unwrap();
        let (ways, found) = meeting(&config, settings(&config).0);
        assert_eq!(ways, "none");
        assert!(
            matches!(&found[..], [why] if why.contains("nowhere")),
            "{found:?}"
        );
    }

    #[test]
    fn a_place_that_does_not_answer_is_named() {
        // nobody listens there
        let text = "[outside]\nmeet = [\"ws://127.0.0.1:1\"]";
        let config = Config::parse("f", text).unwrap();
        let (outside, lan) = settings(&config);
        let found = places(outside, lan);
        assert!(found[0].starts_with("ws://127.0.0.1:1: "), "{found:?}");
    }
}
