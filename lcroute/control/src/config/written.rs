//! The keys that a configuration file sets; names those that a reload has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Keys that take effect at the daemon's next start.
const AT_START: [&str; 26] = [
    "state_dir",
    "control",
    "log",
    "[tun] name",
    "[tun] mode",
    "[tun] mtu",
    "[tun] offload",
    "[tun] ipv4",
    // with it lc0 has an IPv4 address
    "[network] profile",
    "[signal] per_address",
    "[ice] port",
    "[relay] serve",
    "[relay] open",
    "[relay] private",
    "[relay] rate",
    "[relay] rate_total",
    "[relay] leaf_rate",
    "[relay] addresses",
    "[topology] policy",
    "[topology] degree",
    "[live] media",
    "[live] queue_ms",
    "[live] repair_ms",
    "[leaf] max",
    "[leaf] mbit",
    "[web] invite",
];
/// Keys of these that require a new lc0.
const NEW_DEVICE: [&str; 2] = ["[tun] name", "[tun] mode"];
/// Keys that only commands read.
const OF_COMMANDS: [&str; 1] = ["name"];
/// Keys of lcroute-streams.
const OF_STREAMS: [&str; 2] = ["[[serve]]", "[streams] metrics"];
/// Keys of lcroute-web; the daemon reads `[web] invite` as well.
const OF_PAGES: [&str; 13] = [
    "[web] listen",
    "[web] names",
    "[web] invite",
    "[web] groups",
    "[web] tls_cert",
    "[web] tls_key",
    "[players] listen",
    "[players] groups",
    "[players] stations",
    "[players] public",
    "[players] clients",
    "[players] per_address",
    "[players] metrics",
];

/// A file's values by key, such as `[tun] mtu`; a list of sections is one value.
#[derive(Clone, Default, PartialEq)]
pub struct Written(BTreeMap<String, Value>);

// the configuration has no key that takes a NaN
impl Eq for Written {}

/// Names only: values may be secrets.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl From<Table> for Written {
    fn from(table: Table) -> Self {
        let mut keys = BTreeMap::new();
        for (name, value) in table {
            match value {
                Value::Table(section) => keys.extend(
                    section
                        .into_iter()
                        .map(|(key, value)| (format!("[{name}] {key}"), value)),
                ),
                Value::Array(list) if list.iter().all(Value::is_table) => {
                    keys.insert(format!("[[{name}]]"), Value::Array(list));
                }
                value => {
                    keys.insert(name, value);
                }
            }
        }
        Self(keys)
    }
}

impl Written {
    /// Returns keys whose values differ, or that only one file sets.
    fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let all: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let all = all.into_iter().map(String::as_str);
        all.filter(|key| self.0.get(*key) != other.0.get(*key))
    }

    /// Compares this file with the one that was read before, in a daemon that started with `first`.
    pub fn reread(&self, before: &Self, first: &Self) -> Reread {
        let waits = |key: &&str| AT_START.contains(key);
        let elsewhere = |key: &&str| {
            OF_PAGES.contains(key) || OF_STREAMS.contains(key) || OF_COMMANDS.contains(key)
        };
        let owned = str::to_owned;
        let now = self
            .differing(before)
            .filter(|key| !waits(key) && !elsewhere(key));
        let of = |list: &'static [&str]| {
            let keys = self.differing(before).filter(|key| list.contains(key));
            keys.map(owned).collect()
        };
        Reread {
            now: now.map(owned).collect(),
            at_start: self.differing(first).filter(waits).map(owned).collect(),
            streams: of(&OF_STREAMS),
            pages: of(&OF_PAGES),
            problems: Vec::new(),
        }
    }
}

/// Keys that a reload found changed, by the time at which they take effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reread {
    /// In effect now.
    pub now: Vec<String>,
    /// In effect after the daemon's next start; changed since it started.
    pub at_start: Vec<String>,
    /// In effect once lcroute-streams reads them.
    pub streams: Vec<String>,
    /// In effect once lcroute-web restarts.
    pub pages: Vec<String>,
    /// Reasons why something of the file is not in effect.
    pub problems: Vec<String>,
}

impl Reread {
    /// Leaves this key out of those in effect, for these reasons, if there are any.
    pub fn withhold(&mut self, key: &str, problems: Vec<String>) {
        if !problems.is_empty() {
            self.now.retain(|now| now != key);
        }
        self.problems.extend(problems);
    }
}

/// Writes sentences for users; the commands are those of a host with systemd.
impl fmt::Display for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.now.as_slice() {
            [] => write!(f, "the configuration was read again")?,
            now => write!(
                f,
                "the configuration was read again; now in use: {}",
                now.join(", ")
            )?,
        }
        let is_new = |key: &String| NEW_DEVICE.contains(&key.as_str());
        let restart = match self.at_start.iter().any(is_new) {
            true => "`systemctl restart lcroute`, which makes lc0 anew",
            false => "`lcroute reload --exec`, which keeps lc0 and its joins",
        };
        for (keys, command) in [
            (&self.at_start, restart),
            (&self.streams, "`systemctl reload lcroute-streams`"),
            (&self.pages, "`systemctl restart lcroute-web`"),
        ] {
            if !keys.is_empty() {
                write!(f, "\n{} will hold after {command}", keys.join(", "))?;
            }
        }
        self.problems
            .iter()
            .try_for_each(|why| write!(f, "\n{why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn written(text: &str) -> Written {
        toml::from_str::<Table>(text).unwrap().into()
    }

    #[test]
    fn keys_that_changed_are_told_by_the_time_from_which_they_hold() {
        let first = written("[tun]\nmtu = 1400\n[live]\nqueue_ms = 5\n");
        let second = written(
            "[tun]\nmtu = 1300\nroutes = false\n[[lan]]\ninterface = \"eth0\"\n[[serve]]\nprotocol = \"/a/1\"\n[web]\nnames = [\"x\"]\nreport = true\n",
        );
        let told = second.reread(&first, &first);
        assert_eq!(told.now, ["[[lan]]", "[tun] routes", "[web] report"]);
        assert_eq!(told.at_start, ["[live] queue_ms", "[tun] mtu"]);
        assert_eq!(
            (told.streams, told.pages),
            (vec!["[[serve]]".into()], vec!["[web] names".into()])
        );
        // read again: nothing new, and the same keys still wait
        let again = second.reread(&second, &first);
        assert_eq!((again.now.len(), again.at_start.len()), (0, 2));
        // the first value again: nothing waits
        let back = first.reread(&second, &first);
        assert_eq!((back.now.len(), back.at_start.len()), (3, 0));
        let shown = |text: &str| written(text).reread(&first, &first).to_string();
        assert!(
            shown("[tun]\nmtu = 1300\n")
                .contains("[tun] mtu will hold after `lcroute reload --exec`")
        );
        let profile = shown("[network]\nprofile = \"lan\"\n");
        assert!(
            profile.contains("[network] profile, [tun] mtu will hold after")
                && !profile.contains("now in use"),
            "{profile}"
        );
        assert!(
            shown("[tun]\nname = \"lc5\"\n").contains("restart lcroute`, which makes lc0 anew")
        );
    }

    #[test]
    fn what_lacks_its_key_file_is_not_in_use() {
        let private = "[[private]]\nprefix = \"ff1e:5::/32\"\nkeyfile = \"/none\"\n";
        let new = written(&format!("{private}[tun]\nroutes = false\n"));
        let mut told = new.reread(&written(""), &written(""));
        told.withhold("[[private]]", Vec::new());
        assert_eq!(told.now, ["[[private]]", "[tun] routes"]);
        told.withhold(
            "[[private]]",
            vec!["[[private]] ff1e:5::/32: closed".into()],
        );
        assert_eq!(told.now, ["[tun] routes"]);
        assert!(told.to_string().ends_with("ff1e:5::/32: closed"), "{told}");
    }

    /// A renamed key must be renamed in these lists.
    #[test]
    fn every_key_that_waits_is_one_of_the_configuration() {
        let all = [&AT_START[..], &OF_PAGES, &OF_STREAMS, &OF_COMMANDS].concat();
        for key in all {
            let (section, key) = match key.split_once("] ") {
                Some((section, key)) => (section.trim_start_matches('['), key),
                None => ("", key.trim_matches(['[', ']'])),
            };
            let text = match section {
                "" => format!("{key} = {{}}"),
                section => format!("[{section}]\n{key} = {{}}"),
            };
            let refused = toml::from_str::<Config>(&text).map_err(|e| e.to_string());
            let unknown = refused.err().is_some_and(|e| e.contains("unknown field"));
            assert!(!unknown, "{text}");
        }
    }
}
