//! STUN servers and relays that the configuration lets this host use.

use lcroute_control::config::{Config, Leg, TurnUrl};
use lcroute_signalling::proxy::Proxy;
use lcroute_signalling::relay_stream::{RelayTarget, StreamPort};
use lcroute_signalling::{IcePlan, Login, Turn};

use crate::servers::stun_names;

/// The warning where links need a relay, and none is known.
pub const NO_RELAY: &str = "no relay is known, and [ice] policy = \"relay\" allows no other path: nobody but members of `disclose` can be \
     linked; name one in [relay] turn, or use a signalling server that relays";

/// Returns the plan for these signalling servers and the configuration.
pub fn plan(config: &Config, servers: Vec<String>, proxy: Option<Proxy>) -> IcePlan {
    let relay = &config.relay;
    let relays = relay.turn.iter().map(|turn| turn_of(turn, proxy.as_ref()));
    IcePlan {
        stun: stun_names(config, &servers).unwrap_or_default(),
        relays: relays.collect(),
        login: Login {
            user: relay.user.clone(),
            password_file: relay.password_file.clone(),
            secret_file: relay.secret_file.clone(),
        },
        lack: None,
        servers,
        proxy,
    }
}

fn turn_of(turn: &TurnUrl, proxy: Option<&Proxy>) -> Turn {
    // a proxy hides this host
    let hides = proxy.is_some_and(Proxy::hides);
    let udp = match turn.leg {
        Leg::Any => !hides,
        Leg::Udp => true,
        Leg::Tcp | Leg::Tls => false,
    };
    Turn {
        url: turn.to_string(),
        udp: udp.then(|| turn.authority()),
        target: RelayTarget {
            host: turn.host.clone(),
            ports: vec![StreamPort {
                port: turn.port,
                tls: turn.leg == Leg::Tls,
            }],
            proxy: proxy.cloned(),
        },
        stream: turn.leg != Leg::Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_leads_to_relays_by_streams_unless_their_url_says_udp() {
        let proxy = Proxy::Socks("192.0.2.9:1080".parse().unwrap());
        for (url, streams, datagrams) in [
            ("turn:192.0.2.1:3478", true, false),
            ("turn:192.0.2.1:3478?transport=tcp", true, false),
            ("turns:192.0.2.1:5349", true, false),
            ("turn:192.0.2.1:3478?transport=udp", false, true),
        ] {
            let text = format!("[relay]\nturn = [\"{url}\"]");
            let config = Config::parse("f", &text).unwrap();
            let plan = plan(&config, Vec::new(), Some(proxy.clone()));
            let turn = &plan.relays[0];
            assert_eq!((turn.stream, turn.udp.is_some()), (streams, datagrams));
            assert_eq!(turn.target.proxy, Some(proxy.clone()));
        }
    }
}
