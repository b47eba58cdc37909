//! Shares of lcsync that members offer to their group, in a file of its folder.

use std::io;
use std::path::Path;

use librecast::id::{PeerId, SecretKey, derive};
use librecast::text::{TextKind, encode};
use librecast_program::keyfile::SharedKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::content::Files;
use crate::stored_list::{Item, StoredList};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The member that shares it.
    pub author: PeerId,
    /// NAME of `lc:NAME`.
    pub name: String,
    /// Its key: `lck1...`.
    pub key: Zeroizing<String>,
    /// The public key that signs it.
    pub signer: PeerId,
}

impl Item for Offer {
    const OF_AUTHOR: usize = 64;
    // Chosen: the list stays below 2 MB
    const MOST: usize = 4_096;

    fn author(&self) -> PeerId {
        self.author
    }
}

/// All of them, the newest last.
#[derive(Debug)]
pub struct Offers(StoredList<Offer>);

impl Offers {
    /// Reads offers from a file, if it exists.
    ///
    /// # Errors
    /// I/O errors; a file without offers.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        StoredList::open(path).map(Self)
    }

    /// Adds a member's offer in place of its earlier one with that name.
    pub fn add(&mut self, author: PeerId, files: &Files) {
        self.0
            .retain(|offer| (offer.author, &offer.name) != (author, &files.name));
        self.0.add(Offer {
            author,
            name: files.name.clone(),
            key: encode(TextKind::SharedKey, &*files.key),
            signer: files.signer,
        });
    }

    /// Forgets own offers: the members have changed, so each is offered anew with a new key.
    pub fn end_own(&mut self, me: PeerId) {
        self.0.retain(|offer| offer.author != me);
    }

    /// The offers with a name.
    pub fn of_name(&self, name: &str) -> impl Iterator<Item = &Offer> {
        self.0.all().iter().filter(move |offer| offer.name == name)
    }

    /// Writes changed offers.
    ///
    /// # Errors
    /// I/O errors: the next call writes them.
    pub fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

/// Creates an offer of files; their new key and the member's own key determine the signing key.
pub fn offer(name: &str, key: Zeroizing<[u8; 32]>, author: &SecretKey) -> Files {
    let signer = signer(author, &key).peer_id();
    Files {
        name: name.to_owned(),
        key,
        signer,
    }
}

/// The signing key of a share with this key.
pub fn signer(author: &SecretKey, key: &[u8; 32]) -> SecretKey {
    let seed = Zeroizing::new(derive("lcgroup 2026 files", &[&*author.seed(), key]));
    SecretKey::from_seed(&seed)
}

impl Offer {
    /// The signing key, if the offer is this member's own.
    pub fn signer(&self, author: &SecretKey) -> Option<SecretKey> {
        let key = self.key.parse::<SharedKey>().ok()?;
        Some(signer(author, key.bytes())).filter(|signer| signer.peer_id() == self.signer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(name: &str, author: u8) -> Files {
        let author = SecretKey::from_seed(&[author; 32]);
        offer(name, Zeroizing::new([9; 32]), &author)
    }

    fn key(author: u8) -> PeerId {
        SecretKey::from_seed(&[author; 32]).peer_id()
    }

    #[test]
    fn offers_are_kept_and_one_member_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offers");
        let mut offers = Offers::open(&path).unwrap();
        offers.add(key(1), &files("plans", 1));
        for n in 0..200 {
            offers.add(key(2), &files(&format!("{n}"), 2));
        }
        offers.add(key(2), &files("plans", 2));
        assert_eq!(offers.0.all().len(), 1 + Offer::OF_AUTHOR);
        offers.sync().unwrap();
        let mut again = Offers::open(&path).unwrap();
        assert_eq!(again.0.all(), offers.0.all());
        let authors: Vec<_> = again.of_name("plans").map(|o| o.author).collect();
        assert_eq!(authors, [key(1), key(2)]);
        again.end_own(key(2));
        assert_eq!(again.0.all().len(), 1);
    }

    #[test]
    fn only_its_author_can_sign_it() {
        let mut offers = Offers::open(Path::new("/nonexistent/offers")).unwrap();
        offers.add(key(1), &files("plans", 1));
        let offer = offers.of_name("plans").next().unwrap();
        let signer = offer.signer(&SecretKey::from_seed(&[1; 32])).unwrap();
        assert_eq!(signer.peer_id(), offer.signer);
        assert!(offer.signer(&SecretKey::from_seed(&[2; 32])).is_none());
    }
}
