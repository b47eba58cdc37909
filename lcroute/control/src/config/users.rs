//! The configuration of programs that a user runs beside the host's daemon, such as guests.

use librecast::outside::Place;

use super::{Config, IcePolicy};

impl Config {
    /// Returns the stricter of this configuration, the host's, and the user's own: neither owner is
    /// shown to others, or on a LAN, against one of the files. The user alone chooses the places.
    #[must_use]
    pub fn restricted_by(mut self, own: Self) -> Self {
        let (ice, signal) = (&mut self.ice, &mut self.signal);
        if own.ice.policy == IcePolicy::Relay {
            ice.policy = IcePolicy::Relay;
        }
        ice.disclose.retain(|who| own.ice.disclose.contains(who));
        ice.map_port &= own.ice.map_port;
        match (ice.interfaces.is_empty(), own.ice.interfaces.is_empty()) {
            (true, _) => ice.interfaces = own.ice.interfaces,
            (false, true) => {}
            (false, false) => {
                let both = |name: &String| own.ice.interfaces.contains(name);
                // an empty list would stand for all
                ice.map_port &= ice.interfaces.iter().any(both);
                ice.interfaces.retain(both);
            }
        }
        signal.lan &= own.signal.lan;
        // a web proxy hides nothing from servers, and SOCKS5 does
        if own.signal.socks.is_some() || own.signal.https_proxy.is_some() && signal.socks.is_none()
        {
            signal.socks = own.signal.socks;
            signal.https_proxy = own.signal.https_proxy;
            signal.https_proxy_login = own.signal.https_proxy_login;
        }
        signal.servers = own.signal.servers;
        signal.dht_bootstrap = own.signal.dht_bootstrap;
        self.outside = own.outside;
        self.relay.ask &= own.relay.ask;
        self.leaf.max = self.leaf.max.min(own.leaf.max);
        self.leaf.mbit = self.leaf.mbit.min(own.leaf.mbit);
        self
    }

    /// Returns this configuration with these servers in the place of `[outside] meet`.
    #[must_use]
    pub fn meeting_at(mut self, places: Vec<Place>) -> Self {
        self.outside.meet = places;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Silent;

    fn both(host: &str, own: &str) -> Config {
        let of = |text: &str| Config::parse("f", text).unwrap();
        of(host).restricted_by(of(own))
    }

    #[test]
    fn the_stricter_of_both_files_counts_in_either_order() {
        let (strict, none) = ("[ice]\npolicy = \"relay\"\n[signal]\nlan = false", "");
        for (host, own) in [(strict, none), (none, strict), (strict, strict)] {
            let config = both(host, own);
            assert_eq!(config.exposure().direct(), Err(Silent::Hidden));
            assert_eq!(config.exposure().lans(), Err(Silent::Off));
            assert_eq!(config.exposure().outside(), Err(Silent::Hidden));
        }
        let friend = "[ice]\npolicy = \"relay\"\ndisclose = [\"label:friend=yes\"]";
        assert!(both(friend, strict).exposure().disclosed().is_empty());
        let silent = "[ice]\nmap_port = false\n[relay]\nask = false\n[leaf]\nmax = 3";
        for (host, own) in [(silent, none), (none, silent)] {
            let config = both(host, own);
            assert_eq!(config.exposure().router(), Err(Silent::Off));
            assert!(!config.relay.ask && config.leaf.max == 3);
        }
    }

    #[test]
    fn a_proxy_that_hides_wins_and_places_are_the_users() {
        let socks = "[signal]\nsocks = \"127.0.0.1:9050\"\nservers = [\"ws://a:1\"]";
        let own_socks = "[signal]\nsocks = \"127.0.0.1:9150\"";
        let web = "[signal]\nhttps_proxy = \"http://p:1\"\nservers = [\"ws://b:1\"]";
        let proxies = |host, own| {
            let signal = both(host, own).signal;
            (
                signal.socks.map(|at| at.port()),
                signal.https_proxy.is_some(),
            )
        };
        for (host, own, right) in [
            (socks, web, (Some(9050), false)),
            (web, socks, (Some(9050), false)),
            (socks, own_socks, (Some(9150), false)),
            ("", web, (None, true)),
            (web, "", (None, true)),
            (socks, "", (Some(9050), false)),
        ] {
            assert_eq!(proxies(host, own), right, "{host} {own}");
        }
        assert_eq!(both(socks, web).signal.servers, ["ws://b:1"]);
        assert!(both(socks, "").signal.servers.is_empty());
    }

    #[test]
    fn a_place_of_the_environment_stands_for_the_files_and_hides_nothing_less() {
        let place: Place = "meet.example".parse().unwrap();
        let own = "[outside]\nmeet = [\"own.example\"]";
        let config = both("", own).meeting_at(vec![place.clone()]);
        assert_eq!(
            config.exposure().outside().unwrap().meet,
            std::slice::from_ref(&place)
        );
        assert!(both("", own).meeting_at(Vec::new()).outside.meet.is_empty());
        let hidden = both("[ice]\npolicy = \"relay\"", own).meeting_at(vec![place]);
        assert_eq!(hidden.exposure().outside(), Err(Silent::Hidden));
    }

    #[test]
    fn interfaces_that_both_files_name_are_used_alone() {
        let of = |names: &str| format!("[ice]\ninterfaces = {names}");
        let both = |host: &str, own: &str| both(&of(host), &of(own));
        assert_eq!(both("[]", "[\"a\"]").ice.interfaces, ["a"]);
        assert_eq!(both("[\"a\", \"b\"]", "[\"b\"]").ice.interfaces, ["b"]);
        let apart = both("[\"a\"]", "[\"b\"]");
        assert_eq!(apart.exposure().router(), Err(Silent::Off));
    }
}
