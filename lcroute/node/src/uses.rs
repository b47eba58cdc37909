//! Counts of nodes that joined by bounded tokens, which issuers keep.
//!
//! A token works without an issuer, so an issuer learns of a node after it has joined. Of the
//! issuers that reach each other, one decides: it counts nodes in the order in which it sees them,
//! and expels those beyond the bound. The other issuers count only nodes that an issuer has
//! renewed, and renew no others. A renewed node stays: issuers that were apart may each have
//! admitted the full number. For ephemeral members the bound applies to those present at a time.

use std::collections::{BTreeMap, BTreeSet};

use librecast::cert::{CLOCK_SKEW, Member};
use librecast::id::PeerId;
use librecast::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Maximum number of tokens; the first to end is dropped. Chosen: an issuer makes a few a day.
const MAX_TOKENS: usize = 1_024;
/// Maximum number of nodes of all tokens; the token that ends first is dropped. Chosen: 4 networks.
const MAX_NODES: usize = 16_384;
/// Nodes that are expelled per token. Chosen: a token's holder can make any number, which must not
/// displace the other 4,096 revocations. Routers bound the rest.
const MAX_EXPELLED: usize = 64;

/// A line of the file: a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    invitation: PeerId,
    /// The maximum number of nodes.
    uses: u32,
    /// End of the time for joining, in Unix seconds.
    until: u64,
    nodes: BTreeSet<PeerId>,
    /// Nodes that were expelled as beyond the bound.
    expelled: BTreeSet<PeerId>,
}

/// Bounded tokens, with the nodes that joined by them.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    tokens: BTreeMap<PeerId, Token>,
    changed: bool,
}

/// An issuer's decision about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It is within the bound of its token, or the token has none.
    Admitted,
    /// Another issuer decides.
    Undecided,
    /// It is beyond the bound, and has to be expelled.
    Beyond,
    /// Beyond the bound after `MAX_EXPELLED` expulsions: the token has to be expelled.
    Abused,
}

impl Uses {
    /// Parses the file's text, a token a line; skips damaged lines.
    pub fn parse(text: &str) -> Self {
        let tokens = text.lines().take(MAX_TOKENS);
        let tokens = tokens.filter_map(|line| serde_json::from_str::<Token>(line).ok());
        let mut all = Self {
            tokens: tokens.map(|token| (token.invitation, token)).collect(),
            changed: false,
        };
        all.make_room();
        all
    }

    /// Returns the file's text, if it has changed since the last call.
    pub fn take_text(&mut self) -> Option<String> {
        std::mem::take(&mut self.changed).then(|| {
            let lines = self.tokens.values();
            let lines = lines.filter_map(|token| serde_json::to_string(token).ok());
            lines.map(|line| line + "\n").collect()
        })
    }

    /// Counts a node. `decides`: this issuer enforces bounds; `others`: known nodes of this token.
    pub(crate) fn count(
        &mut self,
        member: &Member,
        decides: bool,
        others: impl FnOnce(&PeerId) -> BTreeSet<PeerId>,
        now: UnixTime,
    ) -> Counted {
        let Some(invitation) = member.invitation() else {
            return Counted::Admitted;
        };
        let Some(bound) = member.bound else {
            if let Some(token) = self.tokens.get_mut(invitation) {
                self.changed |= token.nodes.insert(member.peer);
                self.make_room();
            }
            return Counted::Admitted;
        };
        let is_over =
            |token: &Token| now > UnixTime::from_secs(token.until.saturating_add(CLOCK_SKEW));
        let before = self.tokens.len();
        self.tokens.retain(|_, token| !is_over(token));
        self.changed |= self.tokens.len() < before;
        let token = self.tokens.entry(*invitation).or_insert_with(|| {
            self.changed = true;
            Token {
                invitation: *invitation,
                uses: bound.uses,
                until: bound.until,
                nodes: others(invitation),
                expelled: BTreeSet::new(),
            }
        });
        if token.nodes.contains(&member.peer) {
            return Counted::Admitted;
        }
        if !decides {
            return Counted::Undecided;
        }
        if token.nodes.len() < token.uses as usize {
            self.changed = true;
            token.nodes.insert(member.peer);
            self.make_room();
            return Counted::Admitted;
        }
        if token.expelled.contains(&member.peer) {
            return Counted::Beyond;
        }
        if token.expelled.len() >= MAX_EXPELLED {
            return Counted::Abused;
        }
        self.changed |= token.expelled.insert(member.peer);
        Counted::Beyond
    }

    /// Returns whether a node may be renewed: it is within the bound of its token.
    pub(crate) fn admits(&self, member: &Member) -> bool {
        let token = member.bound.and(member.invitation());
        token.is_none_or(|invitation| {
            let token = self.tokens.get(invitation);
            token.is_some_and(|token| token.nodes.contains(&member.peer))
        })
    }

    /// Releases the places of ephemeral members that were forgotten.
    pub(crate) fn release(&mut self, forgotten: &[PeerId]) {
        for token in self.tokens.values_mut() {
            let before = token.nodes.len();
            token.nodes.retain(|peer| !forgotten.contains(peer));
            self.changed |= token.nodes.len() < before;
        }
    }

    fn make_room(&mut self) {
        let nodes = |all: &Self| all.tokens.values().map(|t| t.nodes.len()).sum::<usize>();
        while self.tokens.len() > MAX_TOKENS || nodes(self) > MAX_NODES {
            let first = self.tokens.values().min_by_key(|t| (t.until, t.invitation));
            let Some(invitation) = first.map(|token| token.invitation) else {
                return;
            };
            self.tokens.remove(&invitation);
        }
    }
}

#[cfg(test)]
mod tests {
    use librecast::cert::{KeysAbove, TokenBound};
    use librecast::id::{NodeAddresses, SecretKey};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(n: u32) -> PeerId {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    /// Returns node `n`, which joined by this token, bounded by `uses` unless it has been renewed.
    fn member(n: u32, token: u32, uses: Option<u32>) -> Member {
        let bound = |uses| TokenBound {
            uses,
            until: NOW + 1_000 + u64::from(token),
        };
        Member {
            peer: key(n),
            name: format!("node-{n}"),
            labels: BTreeMap::new(),
            prefixes: Vec::new(),
            gateway: Vec::new(),
            core: false,
            leaf: false,
            uplink: false,
            not_after: NOW + 1_000,
            addresses: NodeAddresses::derive(&key(0), &key(n)),
            keys: KeysAbove {
                issuers: vec![key(1_000)],
                invitations: vec![key(1_000_000 + token)],
            },
            bound: uses.map(bound),
        }
    }

    fn count(uses: &mut Uses, of: &Member, decides: bool) -> Counted {
        uses.count(of, decides, |_| BTreeSet::new(), UnixTime::from_secs(NOW))
    }

    #[test]
    fn those_that_come_first_are_admitted_also_after_a_restart_and_after_a_renewal() {
        let mut uses = Uses::default();
        let [a, b, c] = [1, 2, 3].map(|n| member(n, 7, Some(2)));
        for _ in 0..2 {
            assert_eq!(count(&mut uses, &a, true), Counted::Admitted);
            assert_eq!(count(&mut uses, &b, true), Counted::Admitted);
        }
        let mut uses = Uses::parse(&(uses.take_text().unwrap() + "damage\n{}\n"));
        assert_eq!(uses.take_text(), None, "nothing has changed since");
        assert!(uses.admits(&a) && uses.admits(&b) && !uses.admits(&c));
        // the first one renewed, and seen before the second
        let renewed = member(1, 7, None);
        assert_eq!(count(&mut uses, &renewed, true), Counted::Admitted);
        assert!(uses.admits(&renewed));
        assert_eq!(count(&mut uses, &c, true), Counted::Beyond);
        assert_eq!(count(&mut uses, &b, true), Counted::Admitted);
        // again, in case the first revocation was lost
        let mut uses = Uses::parse(&uses.take_text().unwrap());
        assert_eq!(count(&mut uses, &c, true), Counted::Beyond);
        // other tokens have their own count, or none
        assert_eq!(
            count(&mut uses, &member(3, 8, Some(1)), true),
            Counted::Admitted
        );
        assert_eq!(
            count(&mut uses, &member(4, 9, None), true),
            Counted::Admitted
        );
    }

    #[test]
    fn who_is_forgotten_leaves_its_place_to_another() {
        let mut uses = Uses::default();
        for n in 0..100 {
            let member = member(n, 7, Some(1));
            assert_eq!(count(&mut uses, &member, true), Counted::Admitted);
            uses.take_text();
            uses.release(&[member.peer, key(10_000)]);
            assert!(uses.take_text().is_some(), "it has to be stored");
            assert!(!uses.admits(&member));
        }
        uses.release(&[key(10_000)]);
        assert_eq!(uses.take_text(), None);
    }

    #[test]
    fn one_issuer_decides_and_the_others_count_whom_it_has_renewed() {
        let mut uses = Uses::default();
        let [a, b] = [1, 2].map(|n| member(n, 7, Some(1)));
        assert_eq!(count(&mut uses, &a, false), Counted::Undecided);
        assert_eq!(count(&mut uses, &b, false), Counted::Undecided);
        assert!(!uses.admits(&a) && !uses.admits(&b));
        assert_eq!(
            count(&mut uses, &member(2, 7, None), false),
            Counted::Admitted
        );
        // from now on it decides
        assert_eq!(count(&mut uses, &a, true), Counted::Beyond);
        // a node that a separate issuer has renewed stays
        assert_eq!(
            count(&mut uses, &member(3, 7, None), true),
            Counted::Admitted
        );
    }

    #[test]
    fn who_was_renewed_before_the_token_was_seen_counts() {
        let mut uses = Uses::default();
        let others = |_: &PeerId| BTreeSet::from([key(1), key(2)]);
        let late = member(3, 7, Some(2));
        assert_eq!(
            uses.count(&late, true, others, UnixTime::from_secs(NOW)),
            Counted::Beyond
        );
    }

    #[test]
    fn what_is_counted_and_who_is_expelled_is_bounded() {
        let mut uses = Uses::default();
        assert_eq!(
            count(&mut uses, &member(0, 7, Some(1)), true),
            Counted::Admitted
        );
        for n in 1..=MAX_EXPELLED as u32 {
            assert_eq!(
                count(&mut uses, &member(n, 7, Some(1)), true),
                Counted::Beyond
            );
        }
        uses.take_text();
        let more = member(10_000, 7, Some(1));
        assert_eq!(count(&mut uses, &more, true), Counted::Abused);
        assert_eq!(uses.take_text(), None, "nothing to be written");
        for token in 0..=MAX_TOKENS as u32 {
            count(&mut uses, &member(0, 100 + token, Some(1)), true);
        }
        assert_eq!(uses.tokens.len(), MAX_TOKENS);
        assert!(!uses.admits(&member(0, 7, Some(1))), "ended first");
        let mut full = Token {
            nodes: (0..MAX_NODES as u32).map(key).collect(),
            ..uses.tokens.values().next().unwrap().clone()
        };
        full.until = NOW + 9_000;
        uses.tokens.insert(full.invitation, full);
        uses.make_room();
        assert_eq!(uses.tokens.len(), 1);
    }

    #[test]
    fn a_token_that_is_over_is_forgotten() {
        let mut uses = Uses::default();
        count(&mut uses, &member(1, 7, Some(1)), true);
        let later = NOW + 2_000 + CLOCK_SKEW;
        let mut other = member(2, 8, Some(1));
        other.bound = Some(TokenBound {
            uses: 1,
            until: later,
        });
        uses.count(
            &other,
            true,
            |_| BTreeSet::new(),
            UnixTime::from_secs(later),
        );
        assert_eq!(uses.tokens.len(), 1);
    }
}
