//! The body of a request for an invitation.

use lcroute_control::{Code, Request};
use librecast_program::page_link::link;

/// Parameters of an invitation.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    code: Code,
    ttl_s: u64,
    uses: Option<u32>,
    /// The node page for its link.
    page: String,
}

impl Wanted {
    /// Parses JSON. Fails if the page cannot be linked: the token would be lost.
    pub fn read(body: &[u8]) -> anyhow::Result<Self> {
        let wanted: Self = serde_json::from_slice(body)?;
        wanted.link("")?;
        Ok(wanted)
    }

    /// The request to the daemon.
    pub fn request(&self) -> Request {
        Request::Invite {
            code: self.code.clone(),
            ttl_s: self.ttl_s,
            uses: self.uses,
        }
    }

    /// The link with a token.
    pub fn link(&self, token: &str) -> anyhow::Result<String> {
        link(&self.page, token, None).map_err(anyhow::Error::msg)
    }
}
