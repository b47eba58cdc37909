//! Invitation tokens, by which a node makes itself a member.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::certificate::{CLOCK_SKEW, Certificate, Grant};
use super::chain::Chain;
use super::error::{CertError, Kind, TokenError};
use super::member::EPHEMERAL;
use crate::epoch::secret::EpochSecret;
use crate::id::{NetworkId, PeerId, SecretKey};
use crate::text::{self, TextKind};
use crate::time::UnixTime;
use crate::wire::{Reader, Writer};

/// Most URLs in a token.
pub const MAX_URLS: u8 = 8;
/// Longest token in characters.
pub const MAX_TOKEN: usize = 8_192;
/// Bytes of the longest token: [`MAX_TOKEN`] characters.
const MAX_TOKEN_BYTES: usize = 5_980;

/// A bearer invitation: its holder can become a member until it expires.
pub struct Token {
    network: NetworkId,
    issuer: Certificate,
    pub(super) invitation: Certificate,
    pub(super) secret: SecretKey,
    /// Meeting places: `ws://HOST:PORT`, `wss://...`, or URIs of Matrix rooms.
    pub signal: Vec<String>,
    /// Number and secret of the network's rendezvous epoch; none: nobody had been expelled.
    pub epoch: Option<(u32, EpochSecret)>,
}

impl Token {
    /// Makes an invitation with an issuer's key.
    ///
    /// # Errors
    /// [`CertError::Order`] if `key` is not the issuer's, [`CertError::Widened`] if the grant
    /// exceeds the issuer's, [`TokenError::Urls`] for more or longer URLs than the format allows.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn invite(
        issuer: &Certificate,
        key: &SecretKey,
        grant: Grant,
        signal: Vec<String>,
    ) -> Result<Self, CertError> {
        Self::invite_with(issuer, key, SecretKey::generate(), grant, signal)
    }

    /// The same with this key for the invitation: a page has no randomness of its own.
    pub fn invite_with(
        issuer: &Certificate,
        key: &SecretKey,
        secret: SecretKey,
        grant: Grant,
        signal: Vec<String>,
    ) -> Result<Self, CertError> {
        if issuer.kind != Kind::Issuer || issuer.subject != key.peer_id() {
            return Err(CertError::Order);
        }
        if signal.len() > MAX_URLS.into() || signal.iter().any(|url| url.len() > 255) {
            return Err(TokenError::Urls.into());
        }
        let network = issuer.network;
        let invitation =
            Certificate::sign(Kind::Invitation, network, secret.peer_id(), grant, key)?;
        invitation.narrows(issuer)?;
        Ok(Self {
            network,
            issuer: issuer.clone(),
            invitation,
            secret,
            signal,
            epoch: None,
        })
    }

    /// Returns its network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Returns the invitation's certificate; revoking the token revokes its subject.
    pub fn invitation(&self) -> &Certificate {
        &self.invitation
    }

    /// Returns the key of its issuer, if the network has certified that at `now`.
    ///
    /// # Errors
    /// The certificate is forged, foreign or out of time.
    pub fn verified_issuer(&self, now: UnixTime) -> Result<PeerId, CertError> {
        let network = &self.network;
        self.issuer.verify_by(network, network, now, CLOCK_SKEW)?;
        match self.issuer.kind {
            Kind::Issuer => Ok(self.issuer.subject),
            _ => Err(CertError::Order),
        }
    }

    /// Makes `node` a member called `name` at `now`.
    ///
    /// # Errors
    /// [`CertError::Expired`] after the token's end (no skew: own clock); certificate errors.
    pub fn join(&self, node: PeerId, name: &str, now: UnixTime) -> Result<Chain, CertError> {
        let labels = self.invitation.grant.labels.clone();
        self.join_with(node, name, labels, now)
    }

    /// The same as an ephemeral member, as nodes without a disk are.
    pub fn join_ephemeral(
        &self,
        node: PeerId,
        name: &str,
        now: UnixTime,
    ) -> Result<Chain, CertError> {
        let mut labels = self.invitation.grant.labels.clone();
        let (label, value) = EPHEMERAL;
        labels.entry(label.into()).or_insert_with(|| value.into());
        self.join_with(node, name, labels, now)
    }

    fn join_with(
        &self,
        node: PeerId,
        name: &str,
        labels: BTreeMap<String, String>,
        now: UnixTime,
    ) -> Result<Chain, CertError> {
        self.issuer
            .verify_by(&self.network, &self.network, now, CLOCK_SKEW)?;
        self.invitation
            .verify_by(&self.issuer.subject, &self.network, now, 0)
            .or_else(|e| match e {
                // just issued, by a clock that is ahead of ours
                CertError::NotYetValid(_)
                    if self.invitation.grant.not_before <= now.as_secs() + CLOCK_SKEW =>
                {
                    Ok(())
                }
                e => Err(e),
            })?;
        let invited = &self.invitation.grant;
        // the inviting host's clock may be ahead of ours
        let not_before = now.as_secs().max(invited.not_before);
        let not_after = match invited.renew_for {
            0 => invited.not_after,
            life => invited.not_after.min(not_before.saturating_add(life)),
        };
        let grant = Grant {
            name: name.to_owned(),
            uses: None,
            uplink: false,
            not_before,
            not_after,
            labels,
            ..invited.clone()
        };
        let node = Certificate::sign(Kind::Node, self.network, node, grant, &self.secret)?;
        Chain::new(vec![self.issuer.clone(), self.invitation.clone(), node])
    }

    /// Returns one line of text, to be passed on secretly.
    pub fn encode(&self) -> Zeroizing<String> {
        text::encode(TextKind::Token, &self.to_bytes())
    }

    /// Returns the content of the text.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::new();
        w.put(self.network.public_key())
            .put(self.secret.seed().as_slice());
        for certificate in [&self.issuer, &self.invitation] {
            w.u16(certificate.bytes.len() as u16)
                .put(&certificate.bytes);
        }
        w.u8(self.signal.len() as u8);
        for url in &self.signal {
            // constructor and decoder ensure at most 255 bytes
            w.u8(url.len() as u8).put(url.as_bytes());
        }
        if let Some((number, secret)) = &self.epoch {
            w.u32(*number).put(secret.bytes());
        }
        Zeroizing::new(w.into_vec())
    }

    /// Reads the content of a text.
    ///
    /// # Errors
    /// It is not a token.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CertError> {
        let mut r = Reader::new(bytes);
        let network = PeerId::from_public_key(r.array()?).map_err(|_| TokenError::NetworkKey)?;
        let secret = SecretKey::from_seed(&Zeroizing::new(r.array()?));
        let issuer = Certificate::decode(r.bytes16()?)?;
        let invitation = Certificate::decode(r.bytes16()?)?;
        let urls = r.u8()?;
        if urls > MAX_URLS {
            return Err(TokenError::TooManyUrls.into());
        }
        let signal = (0..urls)
            .map(|_| r.text8().map(str::to_owned))
            .collect::<Result<_, _>>()?;
        let epoch = match r.is_empty() {
            true => None,
            false => Some((r.u32()?, EpochSecret::new(r.array()?))),
        };
        r.finish()?;
        let right = issuer.kind == Kind::Issuer
            && invitation.kind == Kind::Invitation
            && invitation.subject == secret.peer_id();
        if !right {
            return Err(TokenError::Parts.into());
        }
        Ok(Self {
            network,
            issuer,
            invitation,
            secret,
            signal,
            epoch,
        })
    }
}

impl FromStr for Token {
    type Err = CertError;

    fn from_str(text: &str) -> Result<Self, CertError> {
        let bytes = text::decode(TextKind::Token, text, MAX_TOKEN_BYTES);
        Self::from_bytes(&bytes.map_err(TokenError::Text)?)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of network {}", self.network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::cert::Member;
    use crate::cert::fixture::{DAY, NOW, TODAY, at, grant, network, signed_by_the_holder, token};

    const WIDENED: Result<Member, CertError> = Err(CertError::Widened(Kind::Node));

    #[test]
    fn a_token_makes_a_member() {
        let n = network();
        let mut invited = grant("");
        invited.labels.insert("site".into(), "berlin".into());
        let text = token(&n, invited).encode();
        let token: Token = text.parse().unwrap();
        assert_eq!(token.signal, ["ws://host:7117"]);
        let node = SecretKey::generate().peer_id();
        let chain = token.join(node, "alpha", at(NOW + 5)).unwrap();
        let chain = Chain::decode(&chain.encode()).unwrap();
        let member = chain.verify(&n.key.peer_id(), at(NOW + 10)).unwrap();
        assert_eq!((member.peer, member.name.as_str()), (node, "alpha"));
        assert_eq!(member.labels["site"], "berlin");
        assert_eq!(member.not_after, NOW + 7 * DAY);
        assert_eq!(
            chain.verify(&SecretKey::generate().peer_id(), TODAY),
            Err(CertError::OtherNetwork)
        );
    }

    #[test]
    fn nobody_grants_more_than_he_has() {
        let n = network();
        let narrow = Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            ..grant("")
        };
        let token = token(&n, narrow);
        let node = SecretKey::generate();
        let net = n.key.peer_id();
        let wide =
            Certificate::sign(Kind::Node, net, node.peer_id(), grant("x"), &token.secret).unwrap();
        let chain = Chain::new(vec![n.issuer.clone(), token.invitation.clone(), wide]).unwrap();
        assert_eq!(chain.verify(&net, TODAY), WIDENED);
        let core = Grant {
            core: true,
            name: "x".into(),
            ..token.invitation.grant.clone()
        };
        let core = Certificate::sign(Kind::Node, net, node.peer_id(), core, &token.secret).unwrap();
        let chain = Chain::new(vec![n.issuer.clone(), token.invitation.clone(), core]).unwrap();
        assert_eq!(chain.verify(&net, TODAY), WIDENED);
        // an issuer's invitation, too
        let issuer = Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            ..n.issuer.grant.clone()
        };
        let issuer =
            Certificate::sign(Kind::Issuer, net, n.issuer_key.peer_id(), issuer, &n.key).unwrap();
        assert!(matches!(
            Token::invite(&issuer, &n.issuer_key, grant(""), vec![]),
            Err(CertError::Widened(Kind::Invitation))
        ));
    }

    #[test]
    fn who_is_a_gateway_for_whom_is_said_by_an_issuer() {
        let n = network();
        let (net, node) = (n.key.peer_id(), SecretKey::generate().peer_id());
        let [wide, narrow] = ["2001:db8::/32", "2001:db8:5::/64"].map(|p| vec![p.parse().unwrap()]);
        let of = |name, gateway: &Vec<_>| Grant {
            gateway: gateway.clone(),
            ..grant(name)
        };
        let all = vec![crate::cert::SourcePrefix::ANY];
        for (granted, taken, ok) in [
            (&wide, &narrow, true),
            (&narrow, &wide, false),
            (&Vec::new(), &narrow, false),
            (&all, &narrow, true),
            (&narrow, &all, false),
        ] {
            let token = token(&n, of("", granted));
            let cert =
                Certificate::sign(Kind::Node, net, node, of("x", taken), &token.secret).unwrap();
            let chain = signed_by_the_holder(&n, &token, &cert);
            let member = chain.verify(&net, TODAY);
            assert_eq!(member.is_ok(), ok, "{granted:?} {taken:?}");
            if let Ok(member) = member {
                assert_eq!(&member.gateway, taken);
                // renewal keeps it, and grants no more
                let renewed = chain.renew(&n.issuer, &n.issuer_key, TODAY, 60).unwrap();
                assert_eq!(&renewed.verify(&net, TODAY).unwrap().gateway, taken);
            }
        }
    }

    #[test]
    fn a_token_for_leaves_makes_nobody_a_router() {
        let n = network();
        let (net, node) = (n.key.peer_id(), SecretKey::generate().peer_id());
        let of = |name, leaf| Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            leaf,
            ..grant(name)
        };
        let token: Token = token(&n, of("", true)).encode().parse().unwrap();
        let chain = token.join(node, "a", TODAY).unwrap();
        let member = chain.verify(&net, TODAY).unwrap();
        assert!(member.leaf && member.prefixes == of("", true).prefixes);
        assert!(!member.uplink);
        let renewed = chain.renew(&n.issuer, &n.issuer_key, TODAY, DAY).unwrap();
        assert!(renewed.verify(&net, TODAY).unwrap().leaf);
        // its holder signs a wider certificate
        let router = Certificate::sign(Kind::Node, net, node, of("a", false), &token.secret);
        let chain = signed_by_the_holder(&n, &token, &router.unwrap());
        assert_eq!(chain.verify(&net, TODAY), WIDENED);
        let wide = Grant {
            leaf: true,
            ..grant("a")
        };
        let wide = Certificate::sign(Kind::Node, net, node, wide, &token.secret).unwrap();
        let chain = signed_by_the_holder(&n, &token, &wide);
        assert_eq!(chain.verify(&net, TODAY), WIDENED);
    }

    #[test]
    fn whether_leaves_may_ask_is_said_by_an_issuer() {
        let n = network();
        let (net, node) = (n.key.peer_id(), SecretKey::generate().peer_id());
        let asking = Grant {
            leaf: true,
            uplink: true,
            ..grant("")
        };
        let token: Token = token(&n, asking).encode().parse().unwrap();
        let chain = token.join(node, "a", TODAY).unwrap();
        let chain = Chain::decode(&chain.encode()).unwrap();
        let member = chain.verify(&net, TODAY).unwrap();
        assert!(member.leaf && member.uplink);
    }

    #[test]
    fn a_bound_of_uses_stays_with_the_invitation() {
        let n = network();
        let (net, node) = (n.key.peer_id(), SecretKey::generate().peer_id());
        let two = Grant {
            uses: Some(2),
            ..grant("")
        };
        let token: Token = token(&n, two).encode().parse().unwrap();
        let chain = token.join(node, "a", TODAY).unwrap();
        let member = chain.verify(&net, TODAY).unwrap();
        let bound = member.bound.unwrap();
        assert_eq!((bound.uses, bound.until), (2, NOW + 7 * DAY));
        // once an issuer has admitted it, the bound is void, the invitation is not
        let renewed = chain.renew(&n.issuer, &n.issuer_key, TODAY, DAY).unwrap();
        let renewed = renewed.verify(&net, TODAY).unwrap();
        assert_eq!(renewed.bound, None);
        assert_eq!(renewed.invitation(), Some(&token.invitation().subject()));
        assert_eq!(member.invitation(), renewed.invitation());
    }

    #[test]
    fn an_ephemeral_member_stays_one_after_renewals_and_cannot_say_otherwise() {
        let n = network();
        let (net, node) = (n.key.peer_id(), SecretKey::generate().peer_id());
        let (label, value) = EPHEMERAL;
        let invited = Grant {
            labels: [(label.into(), value.into())].into(),
            ..grant("")
        };
        let token: Token = token(&n, invited).encode().parse().unwrap();
        let chain = token.join(node, "a", TODAY).unwrap();
        assert!(chain.verify(&net, TODAY).unwrap().is_ephemeral());
        // as an issuer renews it
        let renewed = chain.renew(&n.issuer, &n.issuer_key, TODAY, DAY).unwrap();
        assert!(renewed.verify(&net, TODAY).unwrap().is_ephemeral());
        for labels in [[].into(), [(label.into(), "long".into())].into()] {
            let lasting = Grant {
                labels,
                ..grant("a")
            };
            let lasting = Certificate::sign(Kind::Node, net, node, lasting, &token.secret).unwrap();
            let chain = signed_by_the_holder(&n, &token, &lasting);
            assert_eq!(chain.verify(&net, TODAY), WIDENED);
        }
        let lasting = crate::cert::fixture::token(&n, grant(""));
        let chain = lasting.join(node, "a", TODAY).unwrap();
        let is_ephemeral = |chain: &Chain| {
            let member = chain.verify(&net, TODAY);
            member.unwrap().is_ephemeral()
        };
        assert!(!is_ephemeral(&chain));
        // a node without a disk requests it itself
        let chain = lasting.join_ephemeral(node, "a", TODAY);
        assert!(is_ephemeral(&chain.unwrap()));
    }

    #[test]
    fn a_token_carries_the_epoch_where_there_is_one() {
        let n = network();
        let mut made = token(&n, grant(""));
        let without = made.encode();
        let read: Token = without.parse().unwrap();
        assert_eq!(read.epoch, None);
        made.epoch = Some((5, EpochSecret::new([7; 32])));
        let text = made.encode();
        let read: Token = text.parse().unwrap();
        assert_eq!(read.epoch, made.epoch);
        // half of it is damage
        let bytes = text::decode(TextKind::Token, &text, MAX_TOKEN_BYTES).unwrap();
        let cut = text::encode(TextKind::Token, &bytes[..bytes.len() - 1]);
        assert!(cut.parse::<Token>().is_err());
        let plain = text::decode(TextKind::Token, &without, MAX_TOKEN_BYTES).unwrap();
        assert_eq!(bytes[..plain.len()], plain[..]);
        assert_eq!(bytes[plain.len()..plain.len() + 4], [0, 0, 0, 5]);
    }

    #[test]
    fn damaged_tokens_say_so() {
        let n = network();
        let text = token(&n, grant("")).encode();
        assert!(text[..text.len() - 3].parse::<Token>().is_err());
        assert!("lct1".parse::<Token>().is_err());
        assert!("hello".parse::<Token>().is_err());
        assert!("1".repeat(100_000).parse::<Token>().is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000)) {
            let _ = Certificate::decode(&bytes);
            let _ = Chain::decode(&bytes);
            // base58 takes the square of the length
            let text = text::encode(TextKind::Token, &bytes[..bytes.len().min(600)]);
            prop_assert!(text.parse::<Token>().is_err());
        }

        /// A certificate by a token holder is valid only within the token's grant and time.
        #[test]
        fn a_token_holder_grants_himself_nothing(
            from in prop_oneof![Just(0), NOW - DAY..NOW + 20 * DAY, Just(u64::MAX)],
            until in prop_oneof![Just(0), NOW - DAY..NOW + 20 * DAY, Just(u64::MAX)],
            renew_for: u64,
            core: bool,
            at in NOW..NOW + 10 * DAY,
        ) {
            let n = network();
            let token = token(&n, Grant { renew_for: DAY, ..grant("") });
            let given = token.invitation.grant.clone();
            let greedy = Grant { not_before: from, not_after: until, renew_for, core, ..grant("x") };
            let node = SecretKey::generate().peer_id();
            let node = Certificate::sign(Kind::Node, n.key.peer_id(), node, greedy, &token.secret).unwrap();
            let chain = signed_by_the_holder(&n, &token, &node);
            if let Ok(member) = chain.verify(&n.key.peer_id(), UnixTime::from_secs(at)) {
                prop_assert!(member.not_after <= given.not_after && from >= given.not_before && !member.core);
                prop_assert_eq!(chain.life(), DAY);
            }
        }
    }
}
