//! Permissions of operators on this node. By default they have none.

use std::collections::BTreeMap;
use std::time::Duration;

use librecast::id::PeerId;
use thiserror::Error;

use super::revoked::Principal;
use crate::certificate::Certificate;
use crate::pattern::Pattern;
use crate::request::{CopyError, Run};
use crate::selector::glob_matches;

/// Bytes of output kept of a job, unless the policy has a limit.
pub const DEFAULT_OUTPUT: u64 = 16 << 20;
/// Time limit of a job, unless the policy has one.
pub const DEFAULT_TIME: Duration = Duration::from_secs(24 * 3600);

/// The permissions of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Public key of the operator.
    pub key: PeerId,
    /// Name of the operator in logs.
    pub name: Option<String>,
    /// Permitted commands.
    pub commands: Vec<Pattern>,
    /// User of its jobs. None: the agent's own; `*`: the operator chooses.
    pub user: Option<String>,
    /// Longest time of a job.
    pub time: Option<Duration>,
    /// Most output of a job, in bytes.
    pub output: Option<u64>,
    /// Most memory of a job, in bytes.
    pub memory: Option<u64>,
    /// Labels that a node must have for the entry to hold; values may be globs.
    pub labels: BTreeMap<String, String>,
}

/// User and limits of a permitted job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// User; None: the agent's own.
    pub user: Option<String>,
    /// Longest time of the job.
    pub time: Duration,
    /// Limit of the output, in bytes.
    pub output: u64,
    /// Limit of the memory, in bytes.
    pub memory: Option<u64>,
}

/// The reason why the policy denies a command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// No entry allows this command to this key.
    #[error("the node's policy does not allow this command to this key")]
    Command,
    /// An entry allows it with other arguments.
    #[error(
        "the node's policy allows {0} to this key, but not with these arguments (`*` stands for no option and no `..`, \
         a last `**` for anything)"
    )]
    Arguments(String),
    /// The entry allows it to another user.
    #[error("the node's policy does not allow user {0:?}")]
    User(String),
    /// An invalid copy.
    #[error("copy: {0}")]
    Copy(#[from] CopyError),
    /// Environment, folder or script could change what an allowed command does.
    #[error("{0} is given only to commands of an entry that allows everything (`*`)")]
    Unrestricted(Restricted),
}

/// Extras that only entries for any command (`*`) permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Restricted {
    /// A script on stdin of the interpreter.
    #[error("a script")]
    Script,
    /// Environment variables.
    #[error("an environment")]
    Environment,
    /// The folder to run in.
    #[error("a folder")]
    Folder,
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

fn check_patterns(patterns: &[Pattern], run: &Run) -> Result<(), Denied> {
    if patterns.iter().any(Pattern::allows_everything) {
        return Ok(());
    }
    if run.script.is_some() {
        return Err(Denied::Unrestricted(Restricted::Script));
    }
    let words = run.pattern_words();
    if !patterns.iter().any(|p| p.allows(words)) {
        let program = words
            .first()
            .filter(|_| patterns.iter().any(|p| p.names_program(words)));
        return Err(match program {
            Some(program) => Denied::Arguments(program.to_string_lossy().into_owned()),
            None => Denied::Command,
        });
    }
    if !run.variables.is_empty() {
        return Err(Denied::Unrestricted(Restricted::Environment));
    }
    if run.folder.is_some() {
        return Err(Denied::Unrestricted(Restricted::Folder));
    }
    Ok(())
}

/// Returns whether an entry with a revoke pattern lets `operator` revoke `key` on such a node.
#[must_use]
pub fn may_revoke(
    policy: &[Allow],
    operator: &PeerId,
    labels: &BTreeMap<String, String>,
    key: &PeerId,
) -> bool {
    let says = |p: &Pattern| p.allows_to_revoke(key);
    let mut entries = policy
        .iter()
        .filter(|a| a.key == *operator && a.holds_on(labels));
    entries.any(|a| a.commands.iter().any(says))
}

/// Returns whether any entry names the key, for any labels.
#[must_use]
pub fn lists(policy: &[Allow], key: &PeerId) -> bool {
    policy.iter().any(|a| a.key == *key)
}

/// Returns an operator's name in the policy, or his certifier's.
#[must_use]
pub fn name_of(policy: &[Allow], principal: &Principal) -> Option<String> {
    let of = |key: &PeerId| {
        let mut entries = policy.iter().filter(|a| a.key == *key);
        entries.find_map(|a| a.name.clone())
    };
    let certifier = || of(&principal.certifier?).map(|name| format!("certified by {name}"));
    of(&principal.operator).or_else(certifier)
}

/// Returns whether an entry that holds on a node with these labels names the key.
#[must_use]
pub fn knows(policy: &[Allow], operator: &PeerId, labels: &BTreeMap<String, String>) -> bool {
    policy
        .iter()
        .any(|a| a.key == *operator && a.holds_on(labels))
}

/// Decides about `run` by the first entry that allows it: the operator's own, or his certifier's.
/// The certificate may allow less than the entry.
pub fn decide(
    policy: &[Allow],
    operator: &PeerId,
    certificate: Option<&Certificate>,
    labels: &BTreeMap<String, String>,
    run: &Run,
) -> Result<Permit, Denied> {
    run.copy()?;
    let mut denied = Denied::Command;
    for allow in policy
        .iter()
        .filter(|a| a.key == *operator && a.holds_on(labels))
    {
        match allow.decide(run) {
            Ok(permit) => return Ok(permit),
            // the closest miss explains most
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
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use librecast::id::SecretKey;

    use super::*;
    use crate::pattern::MAX_COMPARED;
    use crate::request::tests::run;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn allow(commands: &[&str]) -> Allow {
        Allow {
            key: key(1),
            name: None,
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
            ("uptime -p", &["uptime", "-p"], true),
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
            ("* start", &["anything", "start"], true),
            ("* start", &["start"], false),
            // an argument is one word even with spaces
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
    fn a_pattern_says_where_a_path_lies() {
        let may =
            |pattern: &str, path: &str| verdict(&allow(&[pattern]), &run(&["cat", path])).is_ok();
        for path in ["/var/log/syslog", "/var/log/a b", "/var/log/..log"] {
            assert!(may("cat /var/log/*", path), "{path}");
        }
        for path in [
            "/var/log/../../etc/shadow",
            "/var/log/..",
            "/var/log/apt/term.log",
            "/var/log",
        ] {
            assert!(!may("cat /var/log/*", path), "{path}");
        }
        assert!(may("cat /var/log/**", "/var/log/apt/term.log"));
        assert!(!may("cat /var/log/**", "/var/log/apt/../../../etc/shadow"));
        assert!(may("cat /var/log/*/?.log", "/var/log/apt/a.log"));
        assert!(!may("cat /var/log?syslog", "/var/log/syslog"));
        assert!(!may("cat --in=*", "--in=..") && may("cat --in=*", "--in=x"));
        assert!(!may("cat copy:/srv/*", "copy:/srv/../x"), "no copy");
        assert!(may("cat /srv/../x", "/srv/../x"), "as it is written");
        assert!(may("cat *", "/etc/passwd"), "a whole argument");
        // the program as well
        let sh = verdict(&allow(&["*sh"]), &run(&["/tmp/evil/sh"]));
        assert_eq!(sh, Err(Denied::Command));
    }

    #[test]
    fn an_option_is_allowed_by_a_pattern_that_has_it_or_by_two_stars() {
        let may = |pattern: &str, arguments: &[&str]| {
            let arguments = [&["systemctl", "restart"], arguments].concat();
            verdict(&allow(&[pattern]), &run(&arguments))
        };
        let restart = "systemctl restart *";
        assert!(may(restart, &["nginx"]).is_ok() && may(restart, &["a", "b"]).is_ok());
        for injected in [
            &["-H", "user@host", "x"][..],
            &["-Huser@host", "x"],
            &["x", "--host=user@host"],
            &["--", "x"],
            &["-"],
        ] {
            let denied = may(restart, injected).unwrap_err();
            assert_eq!(
                denied,
                Denied::Arguments("systemctl".into()),
                "{injected:?}"
            );
            assert!(may("systemctl restart **", injected).is_ok());
        }
        assert!(may("systemctl restart ?* x", &["-H", "x"]).is_err());
        assert!(may("systemctl restart --no-* x", &["--no-block", "x"]).is_ok());
        assert!(
            may("systemctl restart ** x", &["-H", "x"]).is_err(),
            "last only"
        );
        assert!(may("systemctl restart ** x", &["a/b", "x"]).is_ok());
    }

    #[test]
    fn what_is_no_text_is_allowed_by_words_that_stand_for_all_of_it() {
        let bytes = OsString::from_vec(vec![b'a', 0xff]);
        let option = OsString::from_vec(vec![b'-', 0xff]);
        let may = |pattern: &str, argument: &OsString| {
            let mut run = run(&["cat"]);
            run.arguments.push(argument.clone());
            verdict(&allow(&[pattern]), &run).is_ok()
        };
        assert!(may("cat *", &bytes) && may("cat **", &option));
        assert!(!may("cat a*", &bytes) && !may("cat *", &option));
        let long = OsString::from("a".repeat(MAX_COMPARED + 1));
        assert!(may("cat *", &long) && !may("cat a*", &long));
    }

    #[test]
    fn copies_are_allowed_by_where_they_go() {
        let source = format!("lc:x#{}", "a1".repeat(32));
        let may =
            |pattern: &str, dest: &str| verdict(&allow(&[pattern]), &run(&[dest, &source])).is_ok();
        assert!(may("copy:/srv/*", "copy:/srv/www") && may("*", "copy:/srv/www"));
        assert!(may("copy:/srv/*", "copy:/srv/www/html"));
        assert!(!may("copy:/srv/*", "/srv/www"), "a program");
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
