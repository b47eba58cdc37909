//! Networks that a text leads to: who has the text of a station finds its network and becomes a
//! leaf of it.
//!
//! ```text
//! text      a public key K, and a secret T that everybody with the text can compute
//! meeting   M, the key of seed derive("lcroute 2026 text meeting", K | T): its room at servers
//! network   a key N of the owner, who states it: signature of K over M | N, so of this text alone
//! name      derive("lcroute 2026 text name", K | T | day 64): of the record on LANs
//! seal      derive("lcroute 2026 text seal", K | T): of the record
//! item      K blinded by derive("lcroute 2026 text item", K | T | day 64): of the record in a DHT
//! ```
//!
//! The record (`text_record.rs` of `lcroute-overlay`) brings N and an invitation for leaves. Who has
//! the text can compute meeting, names and seal, and neither N's secret nor K's.

use zeroize::Zeroizing;

use crate::id::{NetworkId, PeerId, SecretKey, derive};
use crate::reach::{Base58, Key, signed_bytes};
use crate::time::UnixTime;

/// Context of the attestation (domain separation).
const ATTESTATION: &str = "lcroute 2026 text network";
/// Seconds for which a record has one name.
const DAY: u64 = 86_400;

/// The keys of a text.
#[derive(Clone, PartialEq, Eq)]
pub struct TextKey {
    key: PeerId,
    secret: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for TextKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextKey of {}", self.key)
    }
}

impl TextKey {
    /// Returns the keys of a text with this public key and secret.
    #[must_use]
    pub fn new(key: PeerId, secret: [u8; 32]) -> Self {
        let secret = Zeroizing::new(secret);
        Self { key, secret }
    }

    /// Returns the public key, whose owner states the network.
    pub fn key(&self) -> &PeerId {
        &self.key
    }

    /// Returns the secret, for another program of this host.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Returns the network whose room is the meeting point at servers.
    pub fn meeting(&self) -> NetworkId {
        let seed = Zeroizing::new(self.derive("lcroute 2026 text meeting", &[]));
        SecretKey::from_seed(&seed).peer_id()
    }

    /// Returns the names of the record around this time, today's first: clocks differ.
    pub fn names(&self, time: UnixTime) -> [[u8; 32]; 3] {
        let day = time.as_secs() / DAY;
        [day, day.saturating_sub(1), day + 1]
            .map(|day| self.derive("lcroute 2026 text name", &day.to_be_bytes()))
    }

    /// Returns the key of the record's item in a DHT on the day of `time`. Only the owner of the text
    /// can sign for it.
    pub fn item(&self, time: UnixTime) -> Key {
        let secret = self.item_secret(time);
        // a public key is a point of the curve
        Base58(self.key.blinded(&secret).unwrap_or(secret))
    }

    /// Returns the owner's signature for the item on the day of `time`.
    #[must_use]
    pub fn sign_item(
        &self,
        owner: &SecretKey,
        (sequence, value): (i64, &[u8]),
        time: UnixTime,
    ) -> [u8; 64] {
        owner.sign_blinded(&self.item_secret(time), &signed_bytes(sequence, value))
    }

    fn item_secret(&self, time: UnixTime) -> [u8; 32] {
        let day = time.as_secs() / DAY;
        self.derive("lcroute 2026 text item", &day.to_be_bytes())
    }

    /// Returns the key that seals the record.
    #[must_use]
    pub fn seal(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.derive("lcroute 2026 text seal", &[]))
    }

    /// Returns whether the owner of the text has stated this network.
    #[must_use]
    pub fn attests(&self, network: &NetworkId, attestation: &[u8; 64]) -> bool {
        let stated = self
            .key
            .verify(ATTESTATION, &self.statement(network), attestation);
        stated.is_ok()
    }

    fn statement(&self, network: &NetworkId) -> Vec<u8> {
        let keys = [self.meeting(), *network];
        keys.map(|key| *key.public_key()).concat()
    }

    fn derive(&self, context: &str, more: &[u8]) -> [u8; 32] {
        derive(context, &[self.key.public_key(), &self.secret[..], more])
    }
}

/// Returns the attestation of a text's owner about its network.
#[must_use]
pub fn attest(owner: &SecretKey, text: &TextKey, network: &NetworkId) -> [u8; 64] {
    owner.sign(ATTESTATION, &text.statement(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn text(n: u8) -> TextKey {
        TextKey::new(owner(1).peer_id(), [n; 32])
    }

    #[test]
    fn derivations_are_frozen() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let text = text(2);
        let names = text.names(UnixTime::from_secs(1_800_000_000));
        let all = [
            hex(text.meeting().public_key()),
            hex(&text.seal()[..]),
            hex(&names[0]),
            hex(&text.item(UnixTime::from_secs(1_800_000_000)).0),
            hex(&derive(
                "golden",
                &[&attest(&owner(1), &text, &owner(3).peer_id())],
            )),
        ];
        let expected = [
            "fa9695fb98e61c34b84539b6cf039124d1e6e60ee04697e9c34ea63b6fa4302d",
            "be68155722e6f15483270af0274a3788036990cc21711c01be4463e1d5b4b99a",
            "09b7135729df55f9628314cd13cea3635675d388fd2c20274a52ec2d46e206cc",
            "32aea9bf7c2ac0d2d228afdd91cb84791a09603580b2a8919d1ffc5e7ad95143",
            "deec00a3f219a1628d76e658104abb15bbb7d886275b4a161c3a7b8b3c165ac6",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn only_the_owner_of_the_text_states_its_network() {
        let (network, other) = (owner(3).peer_id(), owner(4).peer_id());
        let attestation = attest(&owner(1), &text(2), &network);
        assert!(text(2).attests(&network, &attestation));
        assert!(!text(2).attests(&other, &attestation));
        let forged = attest(&owner(4), &text(2), &network);
        assert!(!text(2).attests(&network, &forged));
        // the owner's other text has another network
        assert!(!text(3).attests(&network, &attestation));
    }

    #[test]
    fn items_are_signed_by_the_owner_alone() {
        let (time, value) = (UnixTime::from_secs(1_800_000_000), &b"value"[..]);
        let verifies = |by: &SecretKey| {
            let key = text(2).item(time).0;
            let key = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap();
            let signature = text(2).sign_item(by, (7, value), time);
            let signature = ed25519_dalek::Signature::from_bytes(&signature);
            key.verify_strict(&signed_bytes(7, value), &signature)
                .is_ok()
        };
        assert!(verifies(&owner(1)));
        assert!(!verifies(&owner(4)));
    }

    #[test]
    fn a_secret_changes_all_and_a_day_the_names() {
        let time = UnixTime::from_secs(1_800_000_000);
        assert_ne!(text(2).meeting(), text(3).meeting());
        assert_ne!(text(2).seal(), text(3).seal());
        let [today, yesterday, tomorrow] = text(2).names(time);
        let later = UnixTime::from_secs(1_800_000_000 + DAY);
        assert_ne!(text(2).item(time), text(2).item(later));
        let later = text(2).names(later);
        assert_eq!((later[0], later[1]), (tomorrow, today));
        assert_ne!(today, yesterday);
        assert!(!format!("{:?}", text(2)).contains("[2"));
    }
}
