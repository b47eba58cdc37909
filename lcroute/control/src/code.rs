//! The code with which a page may invite, if `[web] invite = true`.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Length of a code in bytes, before it is written in base58.
const CODE_LEN: usize = 16;

/// The right to invite. Only the control socket reveals it: to root and group lcroute.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Code(Zeroizing<String>);

impl Code {
    /// Draws a new code.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; CODE_LEN]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self(Zeroizing::new(bs58::encode(*bytes).into_string())))
    }

    /// The code in base58.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Compares two codes; the time is equal for all codes of this length.
    pub fn matches(&self, other: &Self) -> bool {
        let (one, other) = (self.0.as_bytes(), other.0.as_bytes());
        let differs = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
        one.len() == other.len() && differs == 0
    }
}

impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for Code {}

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

librecast::debug_by_name!(Code);
