//! Helpers: hosts that are further routers of the network of a station's own.

use std::collections::BTreeMap;
use std::time::Duration;

use librecast::cert::{CLOCK_SKEW, CertError, Certificate, Grant, Kind, Token};
use librecast::code::CodeKeys;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::revocation::{Revocation, RevocationError};
use librecast::time::UnixTime;
use zeroize::Zeroizing;

/// The label of a helper's certificate.
const LABEL: (&str, &str) = ("serves", "station");
/// Most helpers of a station. Chosen: 16 copies of a stream are what a good uplink carries.
pub const MAX_HELPERS: usize = 16;
/// Longest validity of an invitation, and validity of its withdrawal. Chosen: a year.
pub const MAX_TTL: Duration = Duration::from_secs(366 * 86_400);

/// Returns whether these are the labels of a helper.
#[must_use]
pub fn is_helper(labels: &BTreeMap<String, String>) -> bool {
    let (label, value) = LABEL;
    labels.get(label).is_some_and(|known| known == value)
}

/// Returns the key of the invitation that a helper of this name gets, by the seed of the network.
#[must_use]
pub fn invitation(seed: &[u8; 32], name: &str) -> SecretKey {
    let seed = Zeroizing::new(derive("lcradio 2026 helper", &[seed, name.as_bytes()]));
    SecretKey::from_seed(&seed)
}

/// Returns a token that makes a host a helper: it routes and has leaves, and sends to no group.
///
/// # Errors
/// More or longer URLs than tokens have.
pub fn token(
    seed: &[u8; 32],
    name: &str,
    signal: Vec<String>,
    (now, ttl): (UnixTime, Duration),
) -> Result<Token, CertError> {
    let keys = CodeKeys::of_random(seed);
    let network = keys.network();
    let begin = now.as_secs();
    let until = begin.saturating_add(ttl.min(MAX_TTL).as_secs());
    let of_issuer = Grant {
        core: true,
        ..Grant::new("", (begin.saturating_sub(CLOCK_SKEW), until))
    };
    let (kind, issuer) = (Kind::Issuer, keys.issuer());
    let issuer = Certificate::sign(
        kind,
        network.peer_id(),
        issuer.peer_id(),
        of_issuer,
        network,
    )?;
    let (label, value) = LABEL;
    let grant = Grant {
        labels: [(label.into(), value.into())].into(),
        prefixes: Vec::new(),
        ..Grant::new("", (begin, until))
    };
    let invitation = invitation(seed, name);
    let mut token = Token::invite_with(&issuer, keys.issuer(), invitation, grant, signal)?;
    // it meets the caster by the secret of members
    let member = CodeKeys::text_token(seed, SecretKey::generate(), Vec::new(), now)?;
    token.epoch = member.epoch;
    Ok(token)
}

/// Returns the statements that expel helpers by these invitations from the network.
///
/// # Errors
/// Those of signing.
pub fn withdrawals(
    seed: &[u8; 32],
    invitations: &[PeerId],
    now: UnixTime,
) -> Result<Vec<Revocation>, RevocationError> {
    let keys = CodeKeys::of_random(seed);
    let until = now.as_secs().saturating_add(MAX_TTL.as_secs());
    let withdraw = |key: &PeerId| Revocation::by_network(keys.network(), *key, now, until);
    invitations.iter().map(withdraw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_helper_routes_sends_nothing_and_ends_with_its_token() {
        let seed = [7; 32];
        let token = token(&seed, "eve", vec!["ws://a".into()], (NOW, HOUR)).unwrap();
        let read: Token = token.encode().parse().unwrap();
        let key = SecretKey::generate().peer_id();
        let chain = read.join_ephemeral(key, "helper", NOW).unwrap();
        let member = chain.verify(&token.network(), NOW).unwrap();
        assert!(is_helper(&member.labels) && member.is_ephemeral());
        assert!(!member.leaf && !member.core && member.prefixes.is_empty());
        assert_eq!(member.not_after, NOW.as_secs() + 3_600);
        assert!(read.epoch.is_some());
        let late = UnixTime::from_secs(NOW.as_secs() + 3_601);
        assert!(read.join_ephemeral(key, "helper", late).is_err());
        // members by other tokens are none
        let other = CodeKeys::text_token(&seed, SecretKey::generate(), Vec::new(), NOW).unwrap();
        let other = other.join_ephemeral(key, "caster", NOW).unwrap();
        let other = other.verify(&token.network(), NOW).unwrap();
        assert!(!is_helper(&other.labels));
    }

    #[test]
    fn a_withdrawal_expels_helpers_of_one_name_alone() {
        let seed = [7; 32];
        let member = |name: &str| {
            let token = token(&seed, name, Vec::new(), (NOW, HOUR)).unwrap();
            let key = SecretKey::generate().peer_id();
            let chain = token.join_ephemeral(key, "helper", NOW).unwrap();
            chain.verify(&token.network(), NOW).unwrap()
        };
        let eve = invitation(&seed, "eve").peer_id();
        let all = withdrawals(&seed, &[eve], NOW).unwrap();
        assert!(all[0].expels(&member("eve")));
        assert!(!all[0].expels(&member("dan")));
        let network = CodeKeys::of_random(&seed).network().peer_id();
        all[0].verify(&network).unwrap();
    }
}
