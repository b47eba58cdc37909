//! Two keys as a network: both owners derive the same from their own key and the other's.
//!
//! ```text
//! secret    derive("lcroute 2026 pair", X25519(own, other) | smaller key | larger key)
//! period    (unix seconds - shift) / 86,400, shift from the secret: pairs change at different times
//! network   the key of seed derive("lcroute 2026 pair network", secret | period 64)
//! member P  the key of seed derive("lcroute 2026 pair member", secret | period 64 | P)
//! hint      first 64 bits of derive("lcroute 2026 pair hint", secret | period 64)
//! ```
//!
//! Both sides know all of these keys, and nobody else does: there is nobody to deceive. Carriers
//! see names of one day that nobody can connect with either key. The true keys are proven later, by
//! the streams over the link.

use curve25519_dalek::montgomery::MontgomeryPoint;
use zeroize::Zeroizing;

use crate::cert::{CertError, Chain, Grant};
use crate::id::{IdError, NetworkId, PeerId, SecretKey, derive};
use crate::time::UnixTime;

/// Seconds of a period.
pub const PERIOD: u64 = 86_400;
/// Bytes of a hint.
pub const HINT_LEN: usize = 8;
/// Seconds before a change of the period from which both periods are held, and after it. Chosen:
/// clocks that are set by hand.
const OVERLAP: u64 = 3_600;
/// Name in the certificates of a pair, which name nobody.
const NAME: &str = "pair";

/// Periods of a day, which change at a time of their own.
#[derive(Debug, Clone, Copy)]
pub struct Periods {
    shift: u64,
}

impl Periods {
    /// Returns the periods that a hash chooses by its first 32 bits.
    #[must_use]
    pub fn of(hash: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = *hash;
        let shift = u64::from(u32::from_be_bytes([a, b, c, d])) % PERIOD;
        Self { shift }
    }

    /// Returns the number of the period at this time.
    pub fn at(&self, time: UnixTime) -> u64 {
        time.as_secs().saturating_sub(self.shift) / PERIOD
    }

    /// Returns the periods that are held at this time: the present one, and the nearer other one
    /// around a change.
    pub fn held(&self, time: UnixTime) -> Vec<u64> {
        let present = self.at(time);
        let passed = time.as_secs().saturating_sub(self.shift) % PERIOD;
        let mut periods = vec![present];
        periods.extend((passed < OVERLAP).then(|| present.saturating_sub(1)));
        periods.extend((passed >= PERIOD - OVERLAP).then_some(present + 1));
        periods.dedup();
        periods
    }

    /// Returns the next time at which [`Self::held`] changes.
    pub fn changes_at(&self, time: UnixTime) -> UnixTime {
        let start = self.start(self.at(time));
        let times = [OVERLAP, PERIOD - OVERLAP, PERIOD];
        let next = times.map(|after| start + after);
        let next = next.into_iter().find(|at| *at > time.as_secs());
        UnixTime::from_secs(next.unwrap_or(start + PERIOD))
    }

    /// Returns the beginning of a period, in unix seconds.
    #[must_use]
    pub fn start(&self, period: u64) -> u64 {
        period.saturating_mul(PERIOD).saturating_add(self.shift)
    }
}

/// The secret of two keys.
#[derive(Clone)]
pub struct PairSecret {
    secret: Zeroizing<[u8; 32]>,
    own: PeerId,
    other: PeerId,
}

impl std::fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PairSecret with {}", self.other)
    }
}

impl PairSecret {
    /// Returns the secret of `own` key and the key of `other`.
    ///
    /// # Errors
    /// [`IdError::BadKey`], also for two equal keys.
    pub fn agree(own: &SecretKey, other: &PeerId) -> Result<Self, IdError> {
        let peer = own.peer_id();
        if peer == *other {
            return Err(IdError::BadKey);
        }
        let shared = MontgomeryPoint(other.x25519()?).mul_clamped(*own.x25519());
        let shared = Zeroizing::new(shared.to_bytes());
        let (small, large) = (peer.min(*other), peer.max(*other));
        let parts = [
            shared.as_slice(),
            small.public_key().as_slice(),
            large.public_key(),
        ];
        let secret = Zeroizing::new(derive("lcroute 2026 pair", &parts));
        Ok(Self::of_bytes(secret, peer, *other))
    }

    /// Returns the secret that another program of this host has agreed.
    #[must_use]
    pub fn of_bytes(secret: Zeroizing<[u8; 32]>, own: PeerId, other: PeerId) -> Self {
        Self { secret, own, other }
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Returns the other key.
    pub fn other(&self) -> PeerId {
        self.other
    }

    /// Returns the periods of this pair: pairs change at different times.
    fn days(&self) -> Periods {
        Periods::of(&derive(
            "lcroute 2026 pair period",
            &[self.secret.as_slice()],
        ))
    }

    /// Returns the number of the period at this time.
    pub fn period(&self, time: UnixTime) -> u64 {
        self.days().at(time)
    }

    /// Returns the periods under which the other is awaited at this time.
    pub fn periods(&self, time: UnixTime) -> Vec<u64> {
        self.days().held(time)
    }

    /// Returns the next time at which [`Self::periods`] changes.
    pub fn changes_at(&self, time: UnixTime) -> UnixTime {
        self.days().changes_at(time)
    }

    /// Returns the member key of one of both in a period.
    pub fn member(&self, period: u64, peer: &PeerId) -> SecretKey {
        let number = period.to_be_bytes();
        let parts = [self.secret.as_slice(), &number, peer.public_key()];
        SecretKey::from_seed(&Zeroizing::new(derive("lcroute 2026 pair member", &parts)))
    }

    /// Returns the pair as a network in one period.
    pub fn network(&self, period: u64) -> Result<PairNetwork, CertError> {
        let number = period.to_be_bytes();
        let secret = self.secret.as_slice();
        let key = |seed: [u8; 32]| SecretKey::from_seed(&Zeroizing::new(seed));
        let network = key(derive("lcroute 2026 pair network", &[secret, &number]));
        let (own, other) = (
            self.member(period, &self.own),
            self.member(period, &self.other),
        );
        let [a, b, c, d, e, f, g, h, ..] = derive("lcroute 2026 pair hint", &[secret, &number]);
        let start = self.days().start(period);
        // clocks may differ by half a day, and links last over a change
        let times = (start.saturating_sub(PERIOD), start + 2 * PERIOD);
        let (issuer, node) = (Grant::new("", times), Grant::new(NAME, times));
        let chain = Chain::sign(&network, (&own, issuer), (own.peer_id(), node))?;
        Ok(PairNetwork {
            period,
            network: network.peer_id(),
            own,
            other: other.peer_id(),
            chain,
            hint: [a, b, c, d, e, f, g, h],
        })
    }
}

/// A pair as a network of two members, in one period.
#[derive(Debug)]
pub struct PairNetwork {
    /// Number of the period.
    pub period: u64,
    /// The network's public key.
    pub network: NetworkId,
    /// The own member key.
    pub own: SecretKey,
    /// The only other member.
    pub other: PeerId,
    /// The own certificates.
    pub chain: Chain,
    /// Finds the pair of a datagram in a table.
    pub hint: [u8; HINT_LEN],
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn secrets() -> [PairSecret; 2] {
        let (a, b) = (key(1), key(2));
        let one = PairSecret::agree(&a, &b.peer_id()).unwrap();
        [one, PairSecret::agree(&b, &a.peer_id()).unwrap()]
    }

    #[test]
    fn golden_bytes() {
        let [secret, _] = secrets();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let network = secret.network(20_000).unwrap();
        assert_eq!(
            [
                hex(secret.bytes()),
                secret.days().shift.to_string(),
                network.network.to_string(),
                network.own.peer_id().to_string(),
                network.other.to_string(),
                hex(&network.hint),
            ],
            GOLDEN
        );
    }

    const GOLDEN: [&str; 6] = [
        "da501e78288d1794780abe1dda2bdc02d6d590b263ce54ff6db5c62a0f8687dd",
        "15930",
        "12D3KooWKc8UMdiGHDH1V6LV6jcu9HV3NKWbtyHPKhpWvKG4z327",
        "12D3KooWNkhXLWeqfBDnsU39mhGdAp6frnvgDrc8mWhY4GFphkzw",
        "12D3KooWE8TT7w3XNvHVGY6HPwYfirkvexxNCLcRDS7f8fUbtrJ6",
        "25dd110df68bcff5",
    ];

    #[test]
    fn both_sides_are_members_of_one_network_and_a_third_is_not() {
        let [a, b] = secrets();
        assert_eq!(a.bytes(), b.bytes());
        let (here, there) = (a.network(20_000).unwrap(), b.network(20_000).unwrap());
        assert_eq!(here.network, there.network);
        assert_eq!(here.hint, there.hint);
        assert_eq!(here.own.peer_id(), there.other);
        assert_eq!(there.own.peer_id(), here.other);
        for skew in [0, PERIOD / 2, PERIOD + PERIOD / 2] {
            let time = UnixTime::from_secs(a.days().start(20_000) - PERIOD / 2 + skew);
            let member = there.chain.verify(&here.network, time).unwrap();
            assert_eq!(member.peer, here.other);
        }
        let third = PairSecret::agree(&key(3), &key(2).peer_id()).unwrap();
        let third = third.network(20_000).unwrap();
        assert_ne!(third.network, here.network);
        assert_ne!(third.hint, here.hint);
        assert!(PairSecret::agree(&key(1), &key(1).peer_id()).is_err());
    }

    #[test]
    fn nothing_of_one_period_is_in_another() {
        let [a, _] = secrets();
        let (today, next) = (a.network(7).unwrap(), a.network(8).unwrap());
        assert_ne!(today.network, next.network);
        assert_ne!(today.other, next.other);
        assert_ne!(today.hint, next.hint);
    }

    proptest! {
        #[test]
        fn around_a_change_both_periods_are_held(secs in 100_000_u64..4_000_000_000) {
            let [a, _] = secrets();
            let time = UnixTime::from_secs(secs);
            let periods = a.periods(time);
            prop_assert!(periods.contains(&a.period(time)));
            prop_assert!(periods.len() <= 2);
            for skew in [secs - OVERLAP, secs + OVERLAP] {
                let theirs = a.periods(UnixTime::from_secs(skew));
                prop_assert!(theirs.iter().any(|period| periods.contains(period)));
            }
            let next = a.changes_at(time);
            prop_assert!(next > time && next.as_secs() <= secs + PERIOD);
            let before = UnixTime::from_secs(next.as_secs() - 1);
            prop_assert_eq!(a.periods(before), periods);
        }
    }
}
