//! The body of a request for an invitation.

use lcroute::control::{Code, Request};
use lcroute::pages;

/// What an invitation is to be like.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    code: Code,
    ttl_s: u64,
    uses: Option<u32>,
    /// The node page that its link leads to.
    page: String,
}

impl Wanted {
    /// From JSON. The page is one that a link can lead to: else a token would be made that nobody gets.
    pub fn read(body: &[u8]) -> anyhow::Result<Self> {
        let wanted: Self = serde_json::from_slice(body)?;
        wanted.link("")?;
        Ok(wanted)
    }

    /// What the daemon is asked.
    pub fn request(&self) -> Request {
        Request::Invite {
            code: self.code.clone(),
            ttl_s: self.ttl_s,
            uses: self.uses,
        }
    }

    /// The link with a token.
    pub fn link(&self, token: &str) -> anyhow::Result<String> {
        pages::link(&self.page, token, None).map_err(anyhow::Error::msg)
    }
}
