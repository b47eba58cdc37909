//! Codes: four words that people say to each other, and the network that these words make.
//!
//! ```text
//! code = WORD-WORD-WORD-WORD[@HOST[:PORT]]        HOST: a signalling server at which nodes meet
//! stretched 512 = Argon2id(WORD-WORD-WORD-WORD, salt "lcroute 2026 code", 64 MiB, t = 3, p = 1)
//! network key, issuer key, beacon key = BLAKE3 derive_key(context, stretched), 256 bits each
//! ```
//!
//! Whoever has the words has all three keys: he signs his own invitation, and asks nobody. A host
//! is no part of the derivation, so a code works with the host, without it, and with another one.
//!
//! Words come from the English list of BIP 39: 2,048, which differ in their first four letters.

pub mod beacon;

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cert::{CertError, Certificate, EPHEMERAL, Grant, GroupPrefix, Kind, Token};
use crate::epoch::EpochSecret;
use crate::id::{SecretKey, derive};
use crate::signalling;
use crate::time::UnixTime;

/// Words of a code: 44 bits.
pub const WORDS: usize = 4;
/// Bits of a word.
const WORD_BITS: usize = 11;
/// Number of words in the list.
const LIST: u16 = 2_048;
/// The list: `mnemonic/wordlist/english.txt` of trezor/python-mnemonic, under the MIT licence.
const WORD_LIST: &str = include_str!("code/words.txt");
/// Letters in which all words of the list differ.
const TELLING: usize = 4;
/// Longest text that is read as a code, in bytes.
const MAX_TEXT: usize = 512;
/// Longest host in bytes: a name (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// Salt of all codes: at least eight bytes (RFC 9106 §3.1).
const SALT: &[u8] = b"lcroute 2026 code";
/// Memory of Argon2id in KiB. Chosen: 64 MiB, the second choice of RFC 9106 §4.
const MEMORY: u32 = 64 << 10;
/// Passes of Argon2id, as RFC 9106 §4 takes with this memory.
const PASSES: u32 = 3;
/// Bytes of the result.
const STRETCHED: usize = 64;

/// Context of the secret by which members of a text's network find each other.
const TEXT_EPOCH: &str = "lcroute 2026 text epoch";
/// Validity of certificates in seconds, before and after they are signed. Chosen: longer than any
/// run; any holder of the words can sign new ones.
const VALID: u64 = 30 * 86_400;

/// A code: a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// Numbers of words in the list.
    words: [u16; WORDS],
    host: Option<Host>,
}

/// A signalling server in a code: HOST or HOST:PORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

/// The reason why a text is not a code. It shows at most one word of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodeError {
    /// Another number of words.
    #[error("a code has four words, as in tiger-harbor-lemon-quiz, and this one has {0}")]
    Words(usize),
    /// A word that is not in the list.
    #[error("{word:?} is no word of a code; is it {nearest:?}?")]
    Unknown {
        /// The word as it was given.
        word: String,
        /// The nearest one of the list.
        nearest: &'static str,
    },
    /// The text after the @ names no host.
    #[error("after the @ of a code comes a host, as in ...-quiz@meet.example")]
    Host,
}

fn words() -> impl Iterator<Item = &'static str> {
    WORD_LIST.lines()
}

/// Spells bits as words of the list, eleven bits each; up to ten bits at the end are left out.
pub fn spell(bits: &[u8]) -> String {
    let bit = |at: usize| usize::from(bits[at / 8] >> (7 - at % 8) & 1);
    let number = |at: usize| (0..WORD_BITS).fold(0, |number, next| number << 1 | bit(at + next));
    let spelt = (0..bits.len() * 8 / WORD_BITS).map(|n| number(n * WORD_BITS));
    let spelt: Vec<_> = spelt.filter_map(|number| words().nth(number)).collect();
    spelt.join(" ")
}

/// Returns the number of the word that begins so, in its first four letters or more.
fn number_of(text: &str) -> Result<u16, CodeError> {
    let is_it = |word: &str| word == text || text.len() >= TELLING && word.starts_with(text);
    let found = (0..LIST).zip(words()).find(|(_, word)| is_it(word));
    found.map(|(number, _)| number).ok_or_else(|| {
        let distance = |word: &&str| strsim::damerau_levenshtein(word, text);
        let nearest = words().min_by_key(distance).unwrap_or_default();
        // bounded, as it is shown
        let word = text.chars().take(2 * TELLING * TELLING).collect();
        CodeError::Unknown { word, nearest }
    })
}

impl Code {
    /// Returns a code of these random bytes.
    pub fn of_random(random: [u8; 2 * WORDS], host: Option<Host>) -> Self {
        let mut words = [0; WORDS];
        for (word, pair) in words.iter_mut().zip(random.as_chunks().0) {
            *word = u16::from_be_bytes(*pair) % LIST;
        }
        Self { words, host }
    }

    /// Returns the words with hyphens between them.
    pub fn words(&self) -> Zeroizing<String> {
        let word = |number: &u16| words().nth((*number).into()).unwrap_or_default();
        Zeroizing::new(self.words.each_ref().map(word).join("-"))
    }

    /// Returns the whole code as text.
    pub fn encode(&self) -> Zeroizing<String> {
        let mut text = self.words();
        if let Some(host) = &self.host {
            text.push('@');
            text.push_str(&host.0);
        }
        text
    }

    /// Returns the server at which nodes meet, if the code names one.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// Derives the keys. It takes 64 MiB, and some tenths of a second.
    ///
    /// # Panics
    /// The memory is not to be had.
    pub fn keys(&self) -> CodeKeys {
        let mut stretched = Zeroizing::new([0; STRETCHED]);
        let result = Params::new(MEMORY, PASSES, 1, Some(STRETCHED)).and_then(|params| {
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2.hash_password_into(self.words().as_bytes(), SALT, stretched.as_mut())
        });
        // the parameters are constants within the bounds; a failed allocation ends the program
        result.expect("64 MiB of memory");
        CodeKeys::of(stretched.as_slice())
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Reads a code as people type it: capital letters, other separators, words cut to four
    /// letters.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let text = text.get(..MAX_TEXT).unwrap_or(text).trim();
        let (before, host) = match text.split_once('@') {
            Some((before, host)) => (before, Some(host.parse()?)),
            None => (text, None),
        };
        let lower = Zeroizing::new(before.to_lowercase());
        let parts = lower.split(|c: char| !c.is_alphanumeric());
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        let Ok(parts) = <[&str; WORDS]>::try_from(&*parts) else {
            return Err(CodeError::Words(parts.len()));
        };
        let mut words = [0; WORDS];
        for (word, part) in words.iter_mut().zip(parts) {
            *word = number_of(part)?;
        }
        Ok(Self { words, host })
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

impl ZeroizeOnDrop for Code {}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code at {:?}", self.host)
    }
}

impl Host {
    /// Returns the host that leads to the same server as this URL, if there is one.
    pub fn of_url(url: &str) -> Option<Self> {
        signalling::host_of(url)?.parse().ok()
    }
}

impl FromStr for Host {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let text = text.to_ascii_lowercase();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        let host = Self(text);
        let (name, port) = match signalling::port_of(&host.0) {
            Some((name, port)) => (name, Some(port)),
            None => (host.0.as_str(), None),
        };
        let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        let is_host = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !name.is_empty() && !name.contains([':', '[', ']']),
        };
        match is_host && host.0.chars().all(is_plain) && name.len() <= MAX_HOST && port != Some(0) {
            true => Ok(host),
            false => Err(CodeError::Host),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of a code's beacons: names their group.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct BeaconKey(pub [u8; 32]);

crate::debug_by_name!(BeaconKey);

/// The keys of a code.
pub struct CodeKeys {
    network: SecretKey,
    issuer: SecretKey,
    /// Key of the beacons.
    pub beacon: BeaconKey,
}

impl fmt::Debug for CodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeKeys of network {}", self.network.peer_id())
    }
}

impl CodeKeys {
    /// Returns the keys of a network that nobody has words for, from random bytes.
    pub fn of_random(random: &[u8; 32]) -> Self {
        Self::of(random)
    }

    fn of(secret: &[u8]) -> Self {
        let key = |context| Zeroizing::new(derive(context, &[secret]));
        Self {
            network: SecretKey::from_seed(&key("lcroute 2026 code network")),
            issuer: SecretKey::from_seed(&key("lcroute 2026 code issuer")),
            beacon: BeaconKey(*key("lcroute 2026 code beacon")),
        }
    }

    /// Returns the network's own key.
    pub fn network(&self) -> &SecretKey {
        &self.network
    }

    /// Returns the key of its issuer.
    pub fn issuer(&self) -> &SecretKey {
        &self.issuer
    }

    /// Returns a token of the code's network at `now`, with a random key of its own
    /// for the invitation. Members by it are ephemeral, may send to all groups, and be the root of
    /// trees.
    ///
    /// # Errors
    /// [`CertError`]: more or longer URLs than tokens have.
    pub fn token(
        &self,
        invitation: SecretKey,
        signal: Vec<String>,
        now: UnixTime,
    ) -> Result<Token, CertError> {
        let grant = Grant {
            core: true,
            ..of_network(now)
        };
        self.invite(invitation, grant, signal, now)
    }

    /// Returns a token for leaves, which may join groups of these prefixes, and send nothing or, with
    /// `uplink`, to asking groups alone.
    ///
    /// # Errors
    /// As [`Self::token`]; more prefixes than certificates have.
    pub fn leaf_token(
        &self,
        invitation: SecretKey,
        (prefixes, uplink): (Vec<GroupPrefix>, bool),
        signal: Vec<String>,
        now: UnixTime,
    ) -> Result<Token, CertError> {
        let grant = Grant {
            leaf: true,
            uplink,
            prefixes,
            ..of_network(now)
        };
        self.invite(invitation, grant, signal, now)
    }

    /// Returns a token for members of the network that a text leads to, by the seed of its keys.
    pub fn text_token(
        seed: &[u8; 32],
        invitation: SecretKey,
        signal: Vec<String>,
        now: UnixTime,
    ) -> Result<Token, CertError> {
        let mut token = Self::of_random(seed).token(invitation, signal, now)?;
        // leaves must not find presence records
        let secret = derive(TEXT_EPOCH, &[seed]);
        token.epoch = Some((1, EpochSecret::new(secret)));
        Ok(token)
    }

    fn invite(
        &self,
        invitation: SecretKey,
        grant: Grant,
        signal: Vec<String>,
        now: UnixTime,
    ) -> Result<Token, CertError> {
        let of_issuer = Grant {
            core: true,
            ..of_network(now)
        };
        let issuer = Certificate::sign(
            Kind::Issuer,
            self.network.peer_id(),
            self.issuer.peer_id(),
            of_issuer,
            &self.network,
        )?;
        let grant = Grant {
            not_before: now.as_secs(),
            ..grant
        };
        Token::invite_with(&issuer, &self.issuer, invitation, grant, signal)
    }
}

/// Returns the common fields of all certificates of a code's network.
fn of_network(now: UnixTime) -> Grant {
    let (label, value) = EPHEMERAL;
    let now = now.as_secs();
    let validity = (now.saturating_sub(VALID), now.saturating_add(VALID));
    Grant {
        labels: [(label.into(), value.into())].into(),
        ..Grant::new("", validity)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    #[test]
    fn bits_are_spelt_eleven_at_a_time() {
        assert_eq!(spell(&[]), "");
        assert_eq!(spell(&[0; 11]), ["abandon"; 8].join(" "));
        assert_eq!(spell(&[0xff; 3]), "zoo zoo");
        // 00000000001 00000000010 00
        assert_eq!(spell(&[0x00, 0x20, 0x08]), "ability able");
    }

    #[test]
    fn all_words_differ_in_their_first_four_letters() {
        assert_eq!(words().count(), usize::from(LIST));
        let begins = |word: &'static str| &word[..word.len().min(TELLING)];
        let all: BTreeSet<&str> = words().map(begins).collect();
        assert_eq!(all.len(), usize::from(LIST));
        assert!(
            words().all(|word| word.len() >= 3 && word.chars().all(|c| c.is_ascii_lowercase()))
        );
        for (number, word) in (0..).zip(words()) {
            assert_eq!(number_of(word), Ok(number));
            assert_eq!(number_of(begins(word)), Ok(number));
        }
    }

    #[test]
    fn people_type_codes_in_many_ways() {
        let right = code("abandon-zoo-quality-lemon");
        for text in [
            "Abandon Zoo Quality Lemon",
            "  aban-zoo-qual-lemo\n",
            "ABANDON_ZOO.QUALITY,LEMON",
            "abandon - zoo - quali - lemon",
        ] {
            assert_eq!(code(text), right, "{text}");
        }
        let with = code("abandon zoo quality lemon@Meet.Example:8000");
        assert_eq!(
            *with.encode(),
            "abandon-zoo-quality-lemon@meet.example:8000"
        );
        assert_eq!(with.host().unwrap().to_string(), "meet.example:8000");
        let unknown = |text: &str| text.parse::<Code>().unwrap_err();
        assert_eq!(
            unknown("abandon-zoo-quallity-lemon").to_string(),
            "\"quallity\" is no word of a code; is it \"quality\"?"
        );
        // shorter than four letters is not an abbreviation
        assert!(matches!(
            unknown("aba-zoo-quality-lemon"),
            CodeError::Unknown { .. }
        ));
        assert_eq!(unknown("abandon-zoo-quality"), CodeError::Words(3));
        assert_eq!(unknown(""), CodeError::Words(0));
        assert_eq!(
            unknown(&"a-".repeat(10_000)),
            CodeError::Words(MAX_TEXT / 2)
        );
        for host in ["", ":7117", "a b", "[fd00::1", "fd00::1", "a/b", "a:0"] {
            assert_eq!(
                unknown(&format!("abandon-zoo-quality-lemon@{host}")),
                CodeError::Host,
                "{host}"
            );
        }
        assert!(!format!("{right:?}").contains("zoo"));
    }

    #[test]
    fn a_code_names_the_host_of_a_url() {
        for (url, host) in [
            ("ws://Meet.Example:7117", "meet.example"),
            ("wss://meet.example/", "meet.example:443"),
            ("wss://[fd00::1]:8443", "[fd00::1]:8443"),
        ] {
            assert_eq!(Host::of_url(url).unwrap().to_string(), host);
        }
        for url in ["http://a", "ws://a/path", "wss://a b", "ws://fd00::1"] {
            assert_eq!(Host::of_url(url), None, "{url}");
        }
    }

    #[test]
    fn derivations_are_frozen() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let keys = code("abandon-zoo-quality-lemon@meet.example").keys();
        let all = [&*keys.network.seed(), &*keys.issuer.seed(), &keys.beacon.0];
        let expected = [
            "0baaa2cad9b6feff69ceb46481c5024a034cf24cb12b8ef3db200c3be997dd28",
            "0948c21824336d0b9c85ffdfa09d38eeed59202953d59a1e7f9edf4dfee4e0ea",
            "7cfaea591568c2ec5796a2cbf9053daa7a77613a31b9253e283c29c8ca0c7faf",
        ];
        assert_eq!(all.map(|key| hex(key)), expected);
    }

    #[test]
    fn who_has_the_words_is_a_member_of_the_same_network() {
        let (one, other) = (
            code("abandon zoo quality lemon"),
            code("aban-zoo-qual-lemo@h"),
        );
        let [one, other] = [one, other].map(|code| code.keys());
        let token = |keys: &CodeKeys, seed| {
            let invitation = SecretKey::from_seed(&[seed; 32]);
            keys.token(
                invitation,
                vec!["ws://h:7117".into()],
                UnixTime::from_secs(NOW),
            )
            .unwrap()
        };
        let (one, other) = (token(&one, 1), token(&other, 2));
        assert_eq!(one.network(), other.network());
        assert_ne!(one.invitation().subject(), other.invitation().subject());
        // a token as any
        let one: Token = one.encode().parse().unwrap();
        let node = SecretKey::from_seed(&[3; 32]).peer_id();
        let chain = one.join(node, "ann", UnixTime::from_secs(NOW + 5)).unwrap();
        let member = chain
            .verify(&other.network(), UnixTime::from_secs(NOW + 60))
            .unwrap();
        assert!(member.is_ephemeral() && member.core && !member.is_issuer());
    }

    #[test]
    fn leaves_of_a_code_may_join_what_their_token_covers_and_are_no_routers() {
        let keys = CodeKeys::of_random(&[7; 32]);
        let now = UnixTime::from_secs(NOW);
        let prefix = GroupPrefix::new("ff1e:5::".parse().unwrap(), 64).unwrap();
        let [one, asking, other] = [1, 4, 2].map(|seed| SecretKey::from_seed(&[seed; 32]));
        let signal = vec!["ws://h:7117".into()];
        let token = keys.leaf_token(one, (vec![prefix], false), signal.clone(), now);
        let token: Token = token.unwrap().encode().parse().unwrap();
        assert!(!token.invitation().grant().uplink);
        let asks = keys.leaf_token(asking, (vec![prefix], true), signal, now);
        assert!(asks.unwrap().invitation().grant().uplink);
        let member = keys.token(other, Vec::new(), now).unwrap();
        assert_eq!(token.network(), member.network());
        let chain = token.join(SecretKey::from_seed(&[3; 32]).peer_id(), "bob", now);
        let leaf = chain.unwrap().verify(&member.network(), now).unwrap();
        assert!(leaf.leaf && !leaf.core && leaf.is_ephemeral());
        assert_eq!(leaf.prefixes, [prefix]);
    }

    proptest! {
        #[test]
        fn codes_are_read_as_they_are_written(random: [u8; 8], host: bool) {
            let host = host.then(|| "meet.example".parse().unwrap());
            let code = Code::of_random(random, host);
            prop_assert_eq!(code.encode().parse::<Code>().unwrap(), code);
        }

        #[test]
        fn no_text_panics(text in ".{0,600}") {
            let _ = text.parse::<Code>();
            let _ = Host::of_url(&text);
        }
    }
}
