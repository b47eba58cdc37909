//! The decision which parts of this program may communicate with hosts other than signalling
//! servers and relays. Each part asks before it sends anything.
//!
//! The keys of such parts are private to the configuration, so no part can ignore the policy.

use std::path::Path;

use super::{Config, IcePolicy, Matrix, Outside};
use crate::streams::Who;

/// The reason for which a part sends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// Its own key does not switch it on.
    Off,
    /// `[ice] policy = "relay"` hides this host from the part's partners.
    Hidden,
}

/// The permissions of all parts.
#[derive(Debug, Clone, Copy)]
pub struct Exposure<'a>(&'a Config);

impl Config {
    /// Returns the decisions of this configuration.
    #[must_use]
    pub fn exposure(&self) -> Exposure<'_> {
        Exposure(self)
    }
}

impl<'a> Exposure<'a> {
    /// Returns whether this host hides from members.
    #[must_use]
    pub fn hides(self) -> bool {
        self.0.ice.policy == IcePolicy::Relay
    }

    /// Returns members that see this host's addresses although it hides.
    #[must_use]
    pub fn disclosed(self) -> &'a [Who] {
        &self.0.ice.disclose
    }

    /// Returns whether nodes are looked for on LANs.
    pub fn lans(self) -> Result<(), Silent> {
        self.unless_hidden(self.0.signal.lan.then_some(()))
    }

    /// Returns the folder that nodes share.
    pub fn spool(self) -> Result<&'a Path, Silent> {
        self.unless_hidden(self.0.signal.spool.as_deref())
    }

    /// Returns nodes for joining the DHT; an empty list stands for well-known ones.
    pub fn dht(self) -> Result<&'a [String], Silent> {
        let signal = &self.0.signal;
        self.unless_hidden(signal.dht.then_some(signal.dht_bootstrap.as_slice()))
    }

    /// Returns the settings for keys outside of this host's networks. Links with them would show
    /// this host's addresses.
    pub fn outside(self) -> Result<&'a Outside, Silent> {
        self.unless_hidden(Some(&self.0.outside))
    }

    /// Returns why keys outside meet at no server, and where they do, for users: a SOCKS proxy hides
    /// this host from servers, and the servers of such keys would see it.
    pub fn without_servers_outside(self) -> Option<&'static str> {
        self.0.signal.socks?;
        let dht = self.outside().is_ok_and(|outside| outside.dht);
        Some(match (self.lans().is_ok(), dht) {
            (true, true) => {
                "[signal] socks: keys outside meet on LANs and by the DHT; a server would see this host"
            }
            (true, false) => {
                "[signal] socks: keys outside meet on LANs alone; a server would see this host"
            }
            (false, true) => {
                "[signal] socks: keys outside meet by the DHT alone; a server would see this host"
            }
            (false, false) => {
                "[signal] socks: keys outside meet nowhere; a server would see this host"
            }
        })
    }

    /// Returns the account of a Matrix room.
    pub fn matrix(self) -> Result<&'a Matrix, Silent> {
        let matrix = &self.0.matrix;
        let is_set = matrix.homeserver.is_some() || matrix.token_file.is_some();
        self.unless_hidden(is_set.then_some(matrix))
    }

    /// Returns whether the router is asked to map the port. A hidden host asks no router, even if
    /// `disclose` names members: the LAN would see the request.
    pub fn router(self) -> Result<(), Silent> {
        self.unless_hidden(self.0.ice.map_port.then_some(()))
    }

    /// Returns STUN servers beside signalling servers. A host that hides from all members asks
    /// neither kind of server: it would have no use for the answer.
    pub fn stun(self) -> Result<&'a [String], Silent> {
        match self.hides() && self.disclosed().is_empty() {
            true => Err(Silent::Hidden),
            false => Ok(&self.0.ice.stun),
        }
    }

    /// Returns whether links may be direct to members outside of `disclose`, as links of a leaf
    /// are.
    pub fn direct(self) -> Result<(), Silent> {
        self.unless_hidden(Some(()))
    }

    /// Returns keys that are set, and that the policy overrules.
    #[must_use]
    pub fn overruled(self) -> Vec<&'static str> {
        let hidden = Err(Silent::Hidden);
        let has_stun = !self.0.ice.stun.is_empty();
        let all = [
            ("[signal] lan", self.lans() == hidden),
            ("[signal] spool", self.spool().map(drop) == hidden),
            ("[signal] dht", self.dht().map(drop) == hidden),
            ("[matrix]", self.matrix().map(drop) == hidden),
            ("[ice] map_port", self.router() == hidden),
            ("[ice] stun", has_stun && self.stun().map(drop) == hidden),
        ];
        let overruled = all.into_iter().filter(|(_, is_overruled)| *is_overruled);
        overruled.map(|(key, _)| key).collect()
    }

    fn unless_hidden<T>(self, wanted: Option<T>) -> Result<T, Silent> {
        match wanted {
            None => Err(Silent::Off),
            Some(_) if self.hides() => Err(Silent::Hidden),
            Some(wanted) => Ok(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that can be switched on.
    const ALL_ON: &str = "
        [signal]
        lan = true
        spool = \"/srv/spool\"
        dht = true
        [matrix]
        homeserver = \"https://a.example\"
        token-file = \"/t\"
        [ice]
        map_port = true
        stun = [\"b.example:3478\"]
    ";

    #[test]
    fn behind_a_proxy_users_learn_where_keys_outside_still_meet() {
        let without = |text: &str| {
            let config = Config::parse("f", text).unwrap();
            config.exposure().without_servers_outside()
        };
        assert_eq!(without("[outside]\nmeet = [\"wss://a.example\"]"), None);
        for (more, place) in [
            ("", "on LANs alone"),
            ("lan = false", "nowhere"),
            ("[outside]\ndht = true", "on LANs and by the DHT"),
            ("lan = false\n[outside]\ndht = true", "by the DHT alone"),
        ] {
            let why = without(&format!("[signal]\nsocks = \"127.0.0.1:9050\"\n{more}"));
            assert!(why.unwrap().contains(&format!("meet {place};")), "{why:?}");
        }
    }

    /// Returns for each part whether it may communicate.
    fn of(ice: &str) -> [Result<(), Silent>; 7] {
        let config = Config::parse("f", &format!("{ALL_ON}{ice}")).unwrap();
        let exposure = config.exposure();
        [
            exposure.lans(),
            exposure.spool().map(drop),
            exposure.dht().map(drop),
            exposure.matrix().map(drop),
            exposure.router(),
            exposure.direct(),
            exposure.stun().map(drop),
        ]
    }

    #[test]
    fn a_hidden_host_speaks_with_nobody_but_servers_and_relays_whatever_else_is_switched_on() {
        assert_eq!(of(""), [Ok(()); 7]);
        let hidden = Err(Silent::Hidden);
        assert_eq!(of("policy = \"relay\""), [hidden; 7]);
        // members that see the addresses need STUN's answers; other hosts learn no more
        let disclosed = of("policy = \"relay\"\ndisclose = [\"label:friend=yes\"]");
        assert_eq!(disclosed[..6], [hidden; 6]);
        assert_eq!(disclosed[6], Ok(()));
    }

    #[test]
    fn keys_that_the_policy_overrules_are_named() {
        let overruled = |text: &str| Config::parse("f", text).unwrap().exposure().overruled();
        assert!(overruled(ALL_ON).is_empty());
        let all = overruled(&format!("{ALL_ON}policy = \"relay\""));
        assert_eq!(all.len(), 6, "{all:?}");
        let default = overruled("[ice]\npolicy = \"relay\"");
        assert_eq!(default, ["[signal] lan", "[ice] map_port"]);
        let off = "[signal]\nlan = false\n[ice]\nmap_port = false\npolicy = \"relay\"";
        assert!(overruled(off).is_empty());
    }
}
