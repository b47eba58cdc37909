//! Invitations that pages ask for, where `[web] invite = true`. Pages are served by a process that may look and no more; so the
//! daemon signs, for who has a code that only the control socket tells: to root and group lcroute. It changes with each start.

use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use librecast::cert::MAX_USES;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::commands::membership::token_for_page;
use crate::config::Config;
use crate::state::{StateDir, unix_now};

/// Length of a code in bytes, before it is written in base58.
const CODE_LEN: usize = 16;
/// Longest time that a token of a page can be used, in seconds. Chosen: a month; `invite` on a host gives longer ones.
const MAX_TTL: u64 = 31 * 86_400;

/// What shows that somebody may invite.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Code(Zeroizing<String>);

impl From<String> for Code {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.0.as_str().into()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

/// Signs tokens for pages.
#[derive(Debug)]
pub struct Inviter {
    code: Code,
    config: Config,
    state: StateDir,
}

impl Inviter {
    /// With a new code.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(config: &Config, state: &StateDir) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; CODE_LEN]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self {
            code: Code(Zeroizing::new(bs58::encode(*bytes).into_string())),
            config: config.clone(),
            state: state.clone(),
        })
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code.0
    }

    /// A token, and until when hosts can join by it.
    ///
    /// # Errors
    /// The code is another, or this node may not invite.
    pub fn invite(&self, code: &Code, ttl_s: u64, uses: Option<u32>) -> anyhow::Result<Value> {
        let (given, own) = (code.0.as_bytes(), self.code.0.as_bytes());
        // takes as long for every code of this length
        let differs = given.iter().zip(own).fold(0, |all, (a, b)| all | (a ^ b));
        ensure!(
            given.len() == own.len() && differs == 0,
            "this is not the code: `lcroute web --code` prints it, another one after each start of the daemon"
        );
        ensure!(
            (1..=MAX_TTL).contains(&ttl_s),
            "a page invites for a month at most"
        );
        ensure!(
            uses.is_none_or(|n| (1..=MAX_USES).contains(&n)),
            "a token is for 1 to {MAX_USES} nodes, or for any number"
        );
        let identity = self.state.identity(unix_now())?;
        let ttl = Duration::from_secs(ttl_s);
        let (token, not_after) = token_for_page(&self.config, &identity, ttl, uses)?;
        tracing::info!(uses, ttl_s, "a page has made an invitation");
        Ok(json!({ "token": token.as_str(), "not_after": not_after }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::membership::found;

    #[test]
    fn who_has_the_code_gets_a_token_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path().to_owned());
        let mut config = Config::default();
        config.signal.servers = vec!["ws://meet.example:7117".into()];
        found(&state, &config, Some("a".into())).unwrap();
        let inviter = Inviter::new(&config, &state).unwrap();
        let code = |text: &str| Code(Zeroizing::new(text.to_owned()));
        let right = code(inviter.code());
        let made = inviter.invite(&right, 3_600, Some(1)).unwrap();
        let token: librecast::cert::Token = made["token"].as_str().unwrap().parse().unwrap();
        assert_eq!(token.signal, ["ws://meet.example:7117"]);
        let until = made["not_after"].as_u64().unwrap();
        assert!((1..=3_600).contains(&(until - unix_now())), "{until}");
        for wrong in ["", &inviter.code()[1..], &format!("{}x", inviter.code())] {
            assert!(inviter.invite(&code(wrong), 3_600, Some(1)).is_err());
        }
        let other = Inviter::new(&config, &state).unwrap();
        assert!(inviter.invite(&code(other.code()), 3_600, None).is_err());
        for (ttl, uses) in [
            (0, None),
            (MAX_TTL + 1, None),
            (60, Some(0)),
            (60, Some(MAX_USES + 1)),
        ] {
            assert!(inviter.invite(&right, ttl, uses).is_err(), "{ttl} {uses:?}");
        }
        assert!(!format!("{inviter:?}").contains(inviter.code()));
    }
}
