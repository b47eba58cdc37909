//! Who may do what on this node. By default nobody may do anything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use librecast::id::PeerId;
use thiserror::Error;

use crate::certificate::Certificate;
use crate::request::Run;
use crate::selector::glob_matches;

/// Output kept of a job where the policy names no limit, in bytes.
pub const DEFAULT_OUTPUT: u64 = 16 << 20;
/// Longest time a job may take where the policy names none.
pub const DEFAULT_TIME: Duration = Duration::from_secs(24 * 3600);

/// What one key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// The operator.
    pub key: PeerId,
    /// What he may run.
    pub commands: Vec<Pattern>,
    /// As whom it runs: None as the agent itself, `*` as whom the operator says.
    pub user: Option<String>,
    /// Longest time of a job.
    pub time: Option<Duration>,
    /// Most output of a job, in bytes.
    pub output: Option<u64>,
    /// Most memory of a job, in bytes.
    pub memory: Option<u64>,
    /// It holds only on nodes with these labels; values may be globs.
    pub labels: BTreeMap<String, String>,
}

/// Which programs, with which arguments: words, each a glob for one argument. A last word `*` stands for any
/// further arguments; the pattern `*` for everything that can be run. `@NAME` is a module,
/// `copy:DEST` a copy to there; `revoke:GLOB` allows to revoke keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    words: Vec<String>,
}

/// As what a job may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// As whom; None: as the agent itself.
    pub user: Option<String>,
    /// How long.
    pub time: Duration,
    /// How much it may say, in bytes.
    pub output: u64,
    /// How many bytes of memory it may have, if there is a limit.
    pub memory: Option<u64>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// No entry allows this command to this key.
    #[error("the node's policy does not allow this command to this key")]
    Command,
    /// The entry allows it to another user.
    #[error("the node's policy does not allow user {0:?}")]
    User(String),
    /// Not a copy that any node makes.
    #[error("copy: {0}")]
    Copy(&'static str),
    /// Environment, folder or script could change what an allowed command does.
    #[error("{0} is given only to commands of an entry that allows everything (`*`)")]
    Unrestricted(&'static str),
}

impl Pattern {
    /// From its written form; none if it is empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        (!words.is_empty()).then_some(Self { words })
    }

    fn allows_everything(&self) -> bool {
        self.words == ["*"]
    }

    fn allows(&self, arguments: &[OsString]) -> bool {
        let (words, open) = match self.words.split_last() {
            Some((last, front)) if last == "*" => (front, true),
            _ => (self.words.as_slice(), false),
        };
        let enough = if open {
            arguments.len() >= words.len()
        } else {
            arguments.len() == words.len()
        };
        // what is not UTF-8 is matched by `*` alone
        let matches = |(word, argument): (&String, &OsString)| match argument.to_str() {
            Some(argument) => glob_matches(word, argument),
            None => word == "*",
        };
        enough && words.iter().zip(arguments).all(matches)
    }
}

impl Allow {
    fn holds_on(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .iter()
            .all(|(label, value)| labels.get(label).is_some_and(|v| glob_matches(value, v)))
    }

    fn decide(&self, run: &Run) -> Result<Permit, Denied> {
        check_patterns(&self.commands, run)?;
        let user = match (self.user.as_deref(), run.user.as_deref()) {
            (Some("*"), wanted) => wanted,
            (own, None) => own,
            (Some(own), Some(wanted)) if own == wanted => Some(own),
            (_, Some(wanted)) => return Err(Denied::User(wanted.to_owned())),
        };
        Ok(Permit {
            user: user.map(str::to_owned),
            time: run.time.min(self.time.unwrap_or(DEFAULT_TIME)),
            output: self.output.unwrap_or(DEFAULT_OUTPUT),
            memory: self.memory.into_iter().chain(run.memory).min(),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

fn check_patterns(patterns: &[Pattern], run: &Run) -> Result<(), Denied> {
    if patterns.iter().any(Pattern::allows_everything) {
        return Ok(());
    }
    if run.script.is_some() {
        return Err(Denied::Unrestricted("a script"));
    }
    if !patterns.iter().any(|p| p.allows(run.pattern_words())) {
        return Err(Denied::Command);
    }
    if !run.variables.is_empty() {
        return Err(Denied::Unrestricted("an environment"));
    }
    if run.folder.is_some() {
        return Err(Denied::Unrestricted("a folder"));
    }
    Ok(())
}

/// Whether `operator` may revoke `key` on a node with these labels: an entry says so, with a pattern of its own.
#[must_use]
pub fn may_revoke(
    policy: &[Allow],
    operator: &PeerId,
    labels: &BTreeMap<String, String>,
    key: &PeerId,
) -> bool {
    let wanted = format!("revoke:{key}");
    let says = |p: &Pattern| {
        let [word] = p.words.as_slice() else {
            return false;
        };
        word.starts_with("revoke:") && glob_matches(word, &wanted)
    };
    let mut entries = policy
        .iter()
        .filter(|a| a.key == *operator && a.holds_on(labels));
    entries.any(|a| a.commands.iter().any(says))
}

/// Whether any entry that holds on a node with these labels names the key.
#[must_use]
pub fn knows(policy: &[Allow], operator: &PeerId, labels: &BTreeMap<String, String>) -> bool {
    policy
        .iter()
        .any(|a| a.key == *operator && a.holds_on(labels))
}

/// What `operator` may do with `run` on a node with these labels: by the first entry that allows it, his own or
/// that of the key that has certified him; the certificate may allow less than the entry.
pub fn decide(
    policy: &[Allow],
    operator: &PeerId,
    certificate: Option<&Certificate>,
    labels: &BTreeMap<String, String>,
    run: &Run,
) -> Result<Permit, Denied> {
    run.copy().map_err(Denied::Copy)?;
    let mut denied = Denied::Command;
    for allow in policy
        .iter()
        .filter(|a| a.key == *operator && a.holds_on(labels))
    {
        match allow.decide(run) {
            Ok(permit) => return Ok(permit),
            // the closest miss says most
            Err(Denied::Command) => {}
            Err(other) => denied = other,
        }
    }
    let Some(certificate) = certificate.filter(|c| c.certifier != *operator) else {
        return Err(denied);
    };
    if !certificate.commands.is_empty() {
        check_patterns(&certificate.commands, run)?;
    }
    decide(policy, &certificate.certifier, None, labels, run)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;
    use crate::request::tests::run;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn allow(commands: &[&str]) -> Allow {
        Allow {
            key: key(1),
            commands: commands
                .iter()
                .map(|c| Pattern::parse(c).unwrap())
                .collect(),
            user: None,
            time: None,
            output: None,
            memory: Some(1 << 20),
            labels: BTreeMap::new(),
        }
    }

    fn verdict(allow: &Allow, run: &Run) -> Result<Permit, Denied> {
        decide(
            std::slice::from_ref(allow),
            &key(1),
            None,
            &BTreeMap::new(),
            run,
        )
    }

    #[test]
    fn nobody_may_do_anything_by_default() {
        assert_eq!(
            decide(&[], &key(1), None, &BTreeMap::new(), &run(&["true"])),
            Err(Denied::Command)
        );
        assert!(!knows(&[], &key(1), &BTreeMap::new()));
        let other = decide(
            &[allow(&["*"])],
            &key(2),
            None,
            &BTreeMap::new(),
            &run(&["true"]),
        );
        assert_eq!(other, Err(Denied::Command));
        assert_eq!(verdict(&allow(&[]), &run(&["true"])), Err(Denied::Command));
    }

    #[test]
    fn patterns_match_argument_by_argument() {
        for (pattern, arguments, allowed) in [
            ("*", &["anything", "at all"][..], true),
            ("uptime", &["uptime"], true),
            ("uptime", &["uptime", "-p"], false),
            ("uptime *", &["uptime", "-p"], true),
            ("uptime *", &["uptime"], true),
            (
                "systemctl restart nginx*",
                &["systemctl", "restart", "nginx.service"],
                true,
            ),
            (
                "systemctl restart nginx*",
                &["systemctl", "stop", "nginx"],
                false,
            ),
            ("@deploy *", &["@deploy", "v2"], true),
            ("deploy *", &["@deploy", "v2"], false),
            ("@deploy", &["deploy"], false),
            // one argument is one word, whatever spaces it has
            (
                "systemctl restart nginx*",
                &["systemctl restart nginx"],
                false,
            ),
            ("cat /var/log/?.log", &["cat", "/var/log/a.log"], true),
            (
                "cat /var/log/?.log",
                &["cat", "/var/log/a.log", "/etc/shadow"],
                false,
            ),
        ] {
            let verdict = verdict(&allow(&[pattern]), &run(arguments));
            assert_eq!(verdict.is_ok(), allowed, "{pattern}: {arguments:?}");
        }
    }

    #[test]
    fn copies_are_allowed_by_where_they_go() {
        let source = format!("lc:x#{}", "a1".repeat(32));
        let may =
            |pattern: &str, dest: &str| verdict(&allow(&[pattern]), &run(&[dest, &source])).is_ok();
        assert!(may("copy:/srv/*", "copy:/srv/www") && may("*", "copy:/srv/www"));
        assert!(!may("copy:/srv/*", "copy:/etc/passwd") && !may("lcsync *", "copy:/srv/www"));
        let out = verdict(&allow(&["*"]), &run(&["copy:/srv/../etc", &source]));
        assert!(matches!(out, Err(Denied::Copy(_))));
    }

    #[test]
    fn what_could_change_an_allowed_command_needs_an_entry_for_everything() {
        let with_variable = Run {
            variables: vec![("LD_PRELOAD".into(), "x.so".into())],
            ..run(&["uptime"])
        };
        let in_folder = Run {
            folder: Some("/tmp".into()),
            ..run(&["uptime"])
        };
        let script = Run {
            script: Some(b"#!/bin/sh".to_vec()),
            ..run(&["uptime"])
        };
        for run in [with_variable, in_folder, script] {
            let restricted = verdict(&allow(&["uptime"]), &run);
            assert!(matches!(restricted, Err(Denied::Unrestricted(_))));
            assert!(verdict(&allow(&["*"]), &run).is_ok());
        }
    }

    #[test]
    fn user_and_limits_are_the_policys() {
        let entry = |user: Option<&str>| Allow {
            user: user.map(str::to_owned),
            time: Some(Duration::from_secs(5)),
            ..allow(&["*"])
        };
        let as_user = |user: Option<&str>| Run {
            user: user.map(str::to_owned),
            ..run(&["id"])
        };
        let user = |policy, wanted| verdict(&entry(policy), &as_user(wanted)).map(|p| p.user);
        assert_eq!(user(None, None), Ok(None));
        assert_eq!(user(None, Some("root")), Err(Denied::User("root".into())));
        assert_eq!(user(Some("web"), None), Ok(Some("web".into())));
        assert_eq!(user(Some("web"), Some("web")), Ok(Some("web".into())));
        assert!(user(Some("web"), Some("root")).is_err());
        assert_eq!(user(Some("*"), Some("db")), Ok(Some("db".into())));
        assert_eq!(user(Some("*"), None), Ok(None));
        let permit = verdict(&entry(None), &as_user(None)).unwrap();
        assert_eq!(permit.time, Duration::from_secs(5));
        assert_eq!(permit.memory, Some(1 << 20));
        for (wanted, given) in [(1_000, 1_000), (1 << 30, 1 << 20)] {
            let run = Run {
                memory: Some(wanted),
                ..run(&["id"])
            };
            assert_eq!(verdict(&entry(None), &run).unwrap().memory, Some(given));
        }
    }

    #[test]
    fn entry_with_labels_holds_only_there() {
        let entry = Allow {
            labels: BTreeMap::from([("role".into(), "web*".into())]),
            ..allow(&["*"])
        };
        let on = |role: &str| {
            let labels = BTreeMap::from([("role".into(), role.into())]);
            assert_eq!(
                knows(std::slice::from_ref(&entry), &key(1), &labels),
                decide(
                    std::slice::from_ref(&entry),
                    &key(1),
                    None,
                    &labels,
                    &run(&["id"])
                )
                .is_ok()
            );
            knows(std::slice::from_ref(&entry), &key(1), &labels)
        };
        assert!(on("web-2") && !on("db"));
        assert!(verdict(&entry, &run(&["id"])).is_err(), "no such label");
    }

    #[test]
    fn a_certificate_gives_what_its_certifier_has_and_no_more() {
        let secret = SecretKey::from_seed(&[1; 32]);
        let certified = |commands: &[&str]| {
            let commands: Vec<Pattern> = commands
                .iter()
                .map(|c| Pattern::parse(c).unwrap())
                .collect();
            Certificate::sign(&secret, &key(2), 0, 1, &commands).unwrap()
        };
        let may = |entry: &[&str], certificate: &[&str], command: &[&str]| {
            let certificate = certified(certificate);
            decide(
                &[allow(entry)],
                &key(2),
                Some(&certificate),
                &BTreeMap::new(),
                &run(command),
            )
            .is_ok()
        };
        assert!(may(&["*"], &[], &["id"]));
        assert!(may(&["*"], &["id"], &["id"]));
        assert!(!may(&["*"], &["id"], &["rm"]));
        assert!(!may(&["id"], &[], &["rm"]), "not more than the certifier");
        assert!(!may(&["id"], &["*"], &["rm"]));
        let script = Run {
            script: Some(b"#!/bin/sh".to_vec()),
            ..run(&["id"])
        };
        let denied = decide(
            &[allow(&["*"])],
            &key(2),
            Some(&certified(&["id"])),
            &BTreeMap::new(),
            &script,
        );
        assert!(matches!(denied, Err(Denied::Unrestricted(_))));
    }

    #[test]
    fn revoking_others_needs_a_pattern_of_its_own() {
        let may = |entry: &[&str]| may_revoke(&[allow(entry)], &key(1), &BTreeMap::new(), &key(2));
        assert!(!may(&["*"]) && !may(&["revoke *"]) && !may(&["revoke:12D3KooWx"]));
        assert!(may(&["revoke:*"]) && may(&[&format!("revoke:{}", key(2))]));
    }
}
