//! The certificates from the network key to a node: verified as a whole, and renewed.

use super::certificate::{CLOCK_SKEW, Certificate, Grant, MAX_CERTIFICATE};
use super::error::{CertError, Kind};
use super::member::{KeysAbove, Member, TokenBound};
use crate::id::{NetworkId, NodeAddresses, PeerId, SecretKey};
use crate::time::UnixTime;
use crate::wire::{Reader, WireError, Writer};

/// Longest chain in bytes.
pub const MAX_CHAIN: usize = 3 * (MAX_CERTIFICATE + 2) + 1;

/// The certificates from the network key to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Vec<Certificate>);

impl Chain {
    /// Signs an issuer with the network's key, and a node with the issuer's.
    pub fn sign(
        network: &SecretKey,
        (issuer, issuers): (&SecretKey, Grant),
        (node, nodes): (PeerId, Grant),
    ) -> Result<Self, CertError> {
        let id = network.peer_id();
        let issued = Certificate::sign(Kind::Issuer, id, issuer.peer_id(), issuers, network)?;
        let node = Certificate::sign(Kind::Node, id, node, nodes, issuer)?;
        Self::new(vec![issued, node])
    }

    /// Makes the chain of a node that is the issuer itself.
    ///
    /// # Errors
    /// [`CertError::Order`] if the certificate is not that of this key as an issuer; as
    /// [`Certificate::sign`].
    pub fn of_issuer(
        issuer: Certificate,
        key: &SecretKey,
        grant: Grant,
    ) -> Result<Self, CertError> {
        if issuer.subject != key.peer_id() {
            return Err(CertError::Order);
        }
        let node = Certificate::sign(Kind::Node, issuer.network, issuer.subject, grant, key)?;
        Self::new(vec![issuer, node])
    }

    /// Makes a chain from issuer to node, with or without an invitation between.
    ///
    /// # Errors
    /// [`CertError::Order`] for any other kinds.
    pub fn new(certificates: Vec<Certificate>) -> Result<Self, CertError> {
        let kinds: Vec<_> = certificates.iter().map(|c| c.kind).collect();
        match kinds.as_slice() {
            [Kind::Issuer, Kind::Node] | [Kind::Issuer, Kind::Invitation, Kind::Node] => {
                Ok(Self(certificates))
            }
            _ => Err(CertError::Order),
        }
    }

    /// Returns the issuer's certificate.
    pub fn issuer(&self) -> &Certificate {
        // the constructor ensures 2 or 3 certificates
        &self.0[0]
    }

    /// Returns the node's certificate.
    pub fn node(&self) -> &Certificate {
        // the constructor ensures 2 or 3 certificates
        &self.0[self.0.len() - 1]
    }

    /// Returns when the node's certificate was made, in Unix seconds: the later of two chains
    /// counts.
    pub fn issued(&self) -> u64 {
        self.node().grant.not_before
    }

    /// Returns its end in Unix seconds, the earliest expiry in a chain that verifies.
    pub fn not_after(&self) -> u64 {
        self.node().grant.not_after
    }

    /// Returns the invitation by which the node joined; none: an issuer signed its certificate.
    #[must_use]
    pub fn invitation(&self) -> Option<&Certificate> {
        match self.0.as_slice() {
            [_, invitation, _] => Some(invitation),
            _ => None,
        }
    }

    /// Returns the bound of its invitation.
    pub fn bound(&self) -> Option<TokenBound> {
        let invitation = &self.invitation()?.grant;
        Some(TokenBound {
            uses: invitation.uses?,
            until: invitation.not_after,
        })
    }

    /// Returns the life of a renewed membership in seconds, as signed by an issuer.
    #[must_use]
    pub fn life(&self) -> u64 {
        let grant = &self.invitation().unwrap_or(self.node()).grant;
        match grant.renew_for {
            0 => grant.not_after.saturating_sub(grant.not_before),
            life => life,
        }
    }

    /// Returns the keys that it depends on; its issuer's is the first.
    fn keys(&self) -> KeysAbove {
        let mut keys = KeysAbove::default();
        for certificate in &self.0 {
            keys.add(certificate.kind, certificate.subject);
        }
        let previous = &self.node().previous;
        for key in &previous.issuers {
            keys.add(Kind::Issuer, *key);
        }
        for key in &previous.invitations {
            keys.add(Kind::Invitation, *key);
        }
        keys
    }

    /// Renews a node for `ttl` seconds from `now` (Unix seconds) with an issuer's key: same name,
    /// labels, prefixes and `core`, directly under that issuer, and no longer than its certificate.
    ///
    /// # Errors
    /// [`CertError::Order`] if `key` is not the issuer's; as [`Self::verify`]: the chain has
    /// expired (with a day of skew), or grants more than that issuer could.
    pub fn renew(
        &self,
        issuer: &Certificate,
        key: &SecretKey,
        now: UnixTime,
        ttl: u64,
    ) -> Result<Self, CertError> {
        self.renew_as(&self.node().grant.name, issuer, key, now, ttl)
    }

    /// As [`Self::renew`], with another name, for two nodes with the same.
    pub fn renew_as(
        &self,
        name: &str,
        issuer: &Certificate,
        key: &SecretKey,
        now: UnixTime,
        ttl: u64,
    ) -> Result<Self, CertError> {
        self.renew_under(name, issuer, key, (now, ttl), self.keys())
    }

    /// As [`Self::renew_as`] for a node that the issuer itself has admitted: revoking the invitation
    /// by which it came, or another issuer, does not end its membership.
    pub fn renew_admitted(
        &self,
        name: &str,
        issuer: &Certificate,
        key: &SecretKey,
        now: UnixTime,
        ttl: u64,
    ) -> Result<Self, CertError> {
        self.renew_under(name, issuer, key, (now, ttl), KeysAbove::default())
    }

    fn renew_under(
        &self,
        name: &str,
        issuer: &Certificate,
        key: &SecretKey,
        (now, ttl): (UnixTime, u64),
        mut previous: KeysAbove,
    ) -> Result<Self, CertError> {
        if issuer.kind != Kind::Issuer || issuer.subject != key.peer_id() {
            return Err(CertError::Order);
        }
        let network = issuer.network;
        self.verify(&network, now)?;
        let old = self.node();
        // later than the old one by any clock: of two chains the later one counts
        let later = old.grant.not_before.saturating_add(1);
        let not_before = now.as_secs().max(later).max(issuer.grant.not_before);
        let grant = Grant {
            not_before,
            not_after: not_before.saturating_add(ttl).min(issuer.grant.not_after),
            renew_for: self.life(),
            name: name.to_owned(),
            ..old.grant.clone()
        };
        previous.issuers.retain(|key| *key != issuer.subject);
        let node = Certificate::sign_with(Kind::Node, network, old.subject, grant, previous, key)?;
        let renewed = Self::new(vec![issuer.clone(), node])?;
        renewed.verify(&network, now)?;
        Ok(renewed)
    }

    /// Encodes a count, then each certificate after a two-byte length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(self.0.len() as u8);
        for certificate in &self.0 {
            // a certificate is at most MAX_CERTIFICATE long
            w.u16(certificate.bytes.len() as u16)
                .put(&certificate.bytes);
        }
        w.into_vec()
    }

    /// Decodes the output of [`Chain::encode`].
    ///
    /// # Errors
    /// Format errors; [`Self::verify`] checks signatures.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_CHAIN {
            return Err(WireError::Bad("length of the chain"));
        }
        let mut r = Reader::new(bytes);
        let n = r.u8()?;
        if !(2..=3).contains(&n) {
            return Err(WireError::Bad("number of certificates"));
        }
        let certificates = (0..n)
            .map(|_| Certificate::decode(r.bytes16()?))
            .collect::<Result<_, _>>()?;
        r.finish()?;
        Self::new(certificates).map_err(|_| WireError::Bad("order of certificates"))
    }

    /// Verifies the whole chain at `now`, within [`CLOCK_SKEW`].
    ///
    /// # Errors
    /// The first certificate that is forged, out of time, foreign, or exceeds the one above.
    pub fn verify(&self, network: &NetworkId, now: UnixTime) -> Result<Member, CertError> {
        // a token holder signs the node's certificate: it could name keys that nobody may revoke
        if self.invitation().is_some() && self.node().previous.len() > 0 {
            return Err(CertError::Widened(Kind::Node));
        }
        let (mut signer, mut above) = (*network, None::<&Certificate>);
        for certificate in &self.0 {
            certificate.verify_by(&signer, network, now, CLOCK_SKEW)?;
            if let Some(above) = above {
                certificate.narrows(above)?;
            }
            signer = certificate.subject;
            above = Some(certificate);
        }
        let grant = &above.ok_or(CertError::Order)?.grant;
        Ok(Member {
            peer: signer,
            name: grant.name.clone(),
            labels: grant.labels.clone(),
            prefixes: grant.prefixes.clone(),
            gateway: grant.gateway.clone(),
            core: grant.core,
            leaf: grant.leaf,
            uplink: grant.leaf && self.invitation().is_some_and(|above| above.grant.uplink),
            not_after: grant.not_after,
            addresses: NodeAddresses::derive(network, &signer),
            keys: self.keys(),
            bound: self.bound(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::SEGMENT;
    use crate::cert::fixture::{DAY, NOW, grant, network, signed_by_the_holder, token};

    #[test]
    fn expiry_counts_with_a_day_of_tolerance_but_a_token_without() {
        let n = network();
        let token = token(&n, grant(""));
        let chain = token
            .join(
                SecretKey::generate().peer_id(),
                "a",
                UnixTime::from_secs(NOW),
            )
            .unwrap();
        let net = n.key.peer_id();
        assert!(
            chain
                .verify(&net, UnixTime::from_secs(NOW + 8 * DAY))
                .is_ok()
        );
        assert_eq!(
            chain.verify(&net, UnixTime::from_secs(NOW + 8 * DAY + 1)),
            Err(CertError::Expired(Kind::Invitation))
        );
        assert!(chain.verify(&net, UnixTime::from_secs(NOW - DAY)).is_ok());
        assert_eq!(
            chain.verify(&net, UnixTime::from_secs(NOW - DAY - 1)),
            Err(CertError::NotYetValid(Kind::Issuer))
        );
        let late = token.join(
            SecretKey::generate().peer_id(),
            "a",
            UnixTime::from_secs(NOW + 7 * DAY + 1),
        );
        assert_eq!(late, Err(CertError::Expired(Kind::Invitation)));
    }

    #[test]
    fn forged_and_misplaced_certificates_are_refused() {
        let n = network();
        let net = n.key.peer_id();
        let stranger = SecretKey::generate();
        let node =
            Certificate::sign(Kind::Node, net, stranger.peer_id(), grant("x"), &stranger).unwrap();
        let chain = Chain::new(vec![n.issuer.clone(), node.clone()]).unwrap();
        assert_eq!(
            chain.verify(&net, UnixTime::from_secs(NOW)),
            Err(CertError::Forged(Kind::Node))
        );
        assert_eq!(Chain::new(vec![node.clone()]), Err(CertError::Order));
        assert_eq!(
            Chain::new(vec![node, n.issuer.clone()]),
            Err(CertError::Order)
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let n = network();
        let chain = token(&n, grant(""))
            .join(
                SecretKey::generate().peer_id(),
                "a",
                UnixTime::from_secs(NOW),
            )
            .unwrap();
        let bytes = chain.encode();
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            let verdict =
                Chain::decode(&bad).map(|c| c.verify(&n.key.peer_id(), UnixTime::from_secs(NOW)));
            assert!(!matches!(verdict, Ok(Ok(_))), "byte {i}");
        }
    }

    #[test]
    fn a_renewed_node_keeps_what_it_had_and_remembers_whom_it_owes_it() {
        let n = network();
        let net = n.key.peer_id();
        let mut invited = grant("");
        invited.labels.insert("site".into(), "berlin".into());
        let token = token(&n, invited);
        let node = SecretKey::generate().peer_id();
        // joined in the invitation's last minute, but granted for a week
        let chain = token
            .join(node, "alpha", UnixTime::from_secs(NOW + 7 * DAY - 60))
            .unwrap();
        assert_eq!(chain.life(), 7 * DAY);
        let later = NOW + 7 * DAY - 30;
        let renewed = chain
            .renew(
                &n.issuer,
                &n.issuer_key,
                UnixTime::from_secs(later),
                chain.life(),
            )
            .unwrap();
        let renewed = Chain::decode(&renewed.encode()).unwrap();
        let (old, new) = (
            chain.verify(&net, UnixTime::from_secs(later)).unwrap(),
            renewed
                .verify(&net, UnixTime::from_secs(later + 8 * DAY))
                .unwrap(),
        );
        assert_eq!(new.not_after, later + 7 * DAY);
        assert_eq!(renewed.not_after(), new.not_after);
        assert!(renewed.issued() > chain.issued());
        assert_eq!(new.keys, old.keys);
        assert_eq!(new.keys.invitations, [token.invitation().subject()]);
        let without_time = |m: &Member| Member {
            not_after: 0,
            ..m.clone()
        };
        assert_eq!(without_time(&new), without_time(&old));
        // and once more, by another issuer
        let other_key = SecretKey::generate();
        let other = Certificate::sign(
            Kind::Issuer,
            net,
            other_key.peer_id(),
            n.issuer.grant.clone(),
            &n.key,
        )
        .unwrap();
        let again = renewed
            .renew(&other, &other_key, UnixTime::from_secs(later + 5), 60)
            .unwrap();
        let again = again.verify(&net, UnixTime::from_secs(later + 5)).unwrap();
        assert_eq!(
            again.keys.issuers,
            [other_key.peer_id(), n.issuer_key.peer_id()]
        );
        assert_eq!(again.keys.invitations, new.keys.invitations);
        // the issuer's clock is behind: newer than the old one all the same
        let behind = renewed
            .renew(
                &n.issuer,
                &n.issuer_key,
                UnixTime::from_secs(later - DAY / 2),
                DAY,
            )
            .unwrap();
        assert!(behind.issued() > renewed.issued());
    }

    #[test]
    fn nobody_renews_what_he_could_not_grant_or_what_is_over() {
        let n = network();
        let net = n.key.peer_id();
        let chain = token(&n, grant(""))
            .join(
                SecretKey::generate().peer_id(),
                "a",
                UnixTime::from_secs(NOW),
            )
            .unwrap();
        let narrow = Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            ..n.issuer.grant.clone()
        };
        let key = SecretKey::generate();
        let issuer = |grant: &Grant| {
            Certificate::sign(Kind::Issuer, net, key.peer_id(), grant.clone(), &n.key).unwrap()
        };
        assert_eq!(
            chain.renew(&issuer(&narrow), &key, UnixTime::from_secs(NOW), DAY),
            Err(CertError::Widened(Kind::Node))
        );
        assert_eq!(
            chain.renew(&n.issuer, &key, UnixTime::from_secs(NOW), DAY),
            Err(CertError::Order),
            "not its key"
        );
        let node = chain.node();
        assert_eq!(
            chain.renew(node, &key, UnixTime::from_secs(NOW), DAY),
            Err(CertError::Order),
            "no issuer"
        );
        assert_eq!(
            chain.renew(
                &n.issuer,
                &n.issuer_key,
                UnixTime::from_secs(NOW + 8 * DAY + 1),
                DAY
            ),
            Err(CertError::Expired(Kind::Invitation))
        );
        let short = Grant {
            not_after: NOW + 60,
            ..n.issuer.grant.clone()
        };
        let renewed = chain
            .renew(&issuer(&short), &key, UnixTime::from_secs(NOW), DAY)
            .unwrap();
        assert_eq!(renewed.not_after(), NOW + 60, "no longer than the issuer");
        let other = network();
        assert_eq!(
            chain.renew(
                &other.issuer,
                &other.issuer_key,
                UnixTime::from_secs(NOW),
                DAY
            ),
            Err(CertError::OtherNetwork)
        );
    }

    #[test]
    fn a_token_holder_names_no_earlier_keys() {
        let n = network();
        let (net, issuer) = (n.key.peer_id(), n.issuer_key.peer_id());
        let token = token(&n, grant(""));
        let (node, invitation) = (
            SecretKey::generate().peer_id(),
            token.invitation().subject(),
        );
        let immune = KeysAbove {
            issuers: vec![invitation, node],
            invitations: Vec::new(),
        };
        let forged = Certificate::sign_with(
            Kind::Node,
            net,
            node,
            grant("evil"),
            immune.clone(),
            &token.secret,
        );
        let forged = signed_by_the_holder(&n, &token, &forged.unwrap());
        let widened = Err(CertError::Widened(Kind::Node));
        assert_eq!(forged.verify(&net, UnixTime::from_secs(NOW)), widened);
        assert!(
            forged
                .renew(&n.issuer, &n.issuer_key, UnixTime::from_secs(NOW), DAY)
                .is_err()
        );
        // even if an issuer has signed them, they make no node an issuer and protect none
        let lent = KeysAbove {
            invitations: vec![invitation],
            ..immune
        };
        let lent =
            Certificate::sign_with(Kind::Node, net, node, grant("m"), lent, &n.issuer_key).unwrap();
        let member = Chain::new(vec![n.issuer.clone(), lent]).unwrap();
        let member = member.verify(&net, UnixTime::from_secs(NOW)).unwrap();
        assert!(!member.is_issuer());
        assert!(member.is_expelled_by(&node, false) && member.is_expelled_by(&invitation, false));
        assert!(!member.is_expelled_by(&issuer, false) && member.is_expelled_by(&issuer, true));
    }

    #[test]
    fn only_an_issuer_gives_the_label_of_a_segment() {
        let n = network();
        let net = n.key.peer_id();
        let node = SecretKey::generate().peer_id();
        let labelled = |name: &str, value: Option<&str>| {
            let mut grant = grant(name);
            let value = value.map(|value| (SEGMENT.to_owned(), value.to_owned()));
            grant.labels.extend(value);
            grant
        };
        let widened = Err(CertError::Widened(Kind::Node));
        let home = Some("home");
        for (invited, claimed, is_valid) in [
            (None, None, true),
            (home, home, true),
            (None, home, false),
            (home, Some("office"), false),
        ] {
            let token = token(&n, labelled("", invited));
            let own = labelled("m", claimed);
            let own = Certificate::sign(Kind::Node, net, node, own, &token.secret).unwrap();
            let chain = signed_by_the_holder(&n, &token, &own);
            let member = chain.verify(&net, UnixTime::from_secs(NOW));
            assert_eq!(member.is_ok(), is_valid, "{invited:?} {claimed:?}");
            if !is_valid {
                assert_eq!(member, widened);
                assert!(
                    chain
                        .renew(&n.issuer, &n.issuer_key, UnixTime::from_secs(NOW), DAY)
                        .is_err()
                );
            }
        }
        // directly by an issuer
        let own = Certificate::sign(Kind::Node, net, node, labelled("m", home), &n.issuer_key);
        let chain = Chain::new(vec![n.issuer.clone(), own.unwrap()]).unwrap();
        assert_eq!(
            chain.verify(&net, UnixTime::from_secs(NOW)).unwrap().labels[SEGMENT],
            "home"
        );
    }

    #[test]
    fn what_a_token_made_stays_revocable_by_issuers_after_renewals() {
        let n = network();
        let net = n.key.peer_id();
        let token = token(&n, grant(""));
        let (node, invitation) = (
            SecretKey::generate().peer_id(),
            token.invitation().subject(),
        );
        let mut chain = token.join(node, "a", UnixTime::from_secs(NOW)).unwrap();
        for round in 0..3 {
            let member = chain
                .verify(&net, UnixTime::from_secs(NOW + round))
                .unwrap();
            for key in [node, invitation] {
                assert!(member.is_expelled_by(&key, false), "after {round} renewals");
            }
            chain = chain
                .renew(
                    &n.issuer,
                    &n.issuer_key,
                    UnixTime::from_secs(NOW + round),
                    DAY,
                )
                .unwrap();
        }
    }
}
