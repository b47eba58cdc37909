//! Invitations for pages, if `[web] invite = true`. The process that serves pages may only look, so
//! the daemon signs them, for a page with the [`Code`], which changes with each start.

use std::time::Duration;

use anyhow::ensure;
use lcroute_control::Code;
use lcroute_control::config::Config;
use librecast::cert::MAX_USES;
use librecast::time::UnixTime;
use serde_json::{Value, json};

use crate::commands::membership::token_for_page;
use crate::state::StateDir;

/// Longest validity of a page's token, in seconds. Chosen: a month; `invite` permits more.
const MAX_TTL: u64 = 31 * 86_400;

/// Signs tokens for pages.
#[derive(Debug)]
pub struct Inviter {
    code: Code,
    config: Config,
    state: StateDir,
}

impl Inviter {
    /// Creates an inviter with a new code.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(config: &Config, state: &StateDir) -> Result<Self, getrandom::Error> {
        Ok(Self {
            code: Code::draw()?,
            config: config.clone(),
            state: state.clone(),
        })
    }

    /// The code.
    pub fn code(&self) -> &str {
        self.code.text()
    }

    /// Returns a token, and the end of its validity.
    ///
    /// # Errors
    /// The code is wrong, or this node may not invite.
    pub fn invite(&self, code: &Code, ttl_s: u64, uses: Option<u32>) -> anyhow::Result<Value> {
        ensure!(
            self.code.matches(code),
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
        let identity = self.state.identity(UnixTime::now())?;
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
        let code = |text: &str| Code::from(text.to_owned());
        let right = code(inviter.code());
        let made = inviter.invite(&right, 3_600, Some(1)).unwrap();
        let token: librecast::cert::Token = made["token"].as_str().unwrap().parse().unwrap();
        assert_eq!(token.signal, ["ws://meet.example:7117"]);
        let until = made["not_after"].as_u64().unwrap();
        assert!(
            (1..=3_600).contains(&(until - UnixTime::now().as_secs())),
            "{until}"
        );
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
