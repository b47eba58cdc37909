//! Shares of lcsync that members offer to their group, in a file of its folder.

use std::io;
use std::path::{Path, PathBuf};

use librecast::durable;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::private_file;
use librecast::text::{TextKind, encode};
use librecast_program::keyfile::SharedKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::content::Files;

/// Stored offers of one member, the last ones.
const MAX_OF_AUTHOR: usize = 64;
/// Stored offers. Chosen: the file, written whole, stays below 2 MB.
const MAX_OFFERS: usize = 4_096;
/// Bytes of their file.
const MAX_FILE: u64 = 4 << 20;

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

/// All of them, the newest last.
#[derive(Debug)]
pub struct Offers {
    path: PathBuf,
    all: Vec<Offer>,
    changed: bool,
}

impl Offers {
    /// Reads offers from a file, if it exists.
    ///
    /// # Errors
    ///
    /// I/O errors; a file without offers.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let all = match path.try_exists()? {
            true => serde_json::from_slice(&private_file::read(path, MAX_FILE)?)?,
            false => Vec::new(),
        };
        Ok(Self {
            path: path.to_owned(),
            all,
            changed: false,
        })
    }

    /// Adds a member's offer in place of its earlier one with that name.
    pub fn add(&mut self, author: PeerId, files: &Files) {
        self.all
            .retain(|offer| (offer.author, &offer.name) != (author, &files.name));
        let is_of = |offer: &Offer| offer.author == author;
        let of_author = self.all.iter().filter(|offer| is_of(offer)).count();
        if of_author >= MAX_OF_AUTHOR
            && let Some(oldest) = self.all.iter().position(is_of)
        {
            self.all.remove(oldest);
        } else if self.all.len() >= MAX_OFFERS {
            self.all.remove(0);
        }
        self.all.push(Offer {
            author,
            name: files.name.clone(),
            key: encode(TextKind::SharedKey, &*files.key),
            signer: files.signer,
        });
        self.changed = true;
    }

    /// Forgets own offers: the members have changed, so each is offered anew with a new key.
    pub fn end_own(&mut self, me: PeerId) {
        let before = self.all.len();
        self.all.retain(|offer| offer.author != me);
        self.changed |= self.all.len() != before;
    }

    /// The offers with a name.
    pub fn of_name(&self, name: &str) -> impl Iterator<Item = &Offer> {
        self.all.iter().filter(move |offer| offer.name == name)
    }

    /// Writes changed offers.
    ///
    /// # Errors
    ///
    /// I/O errors: the next call writes them.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.changed {
            let bytes = Zeroizing::new(serde_json::to_vec(&self.all)?);
            durable::replace(&self.path, &bytes)?;
            self.changed = false;
        }
        Ok(())
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
        assert_eq!(offers.all.len(), 1 + MAX_OF_AUTHOR);
        offers.sync().unwrap();
        let mut again = Offers::open(&path).unwrap();
        assert_eq!(again.all, offers.all);
        let authors: Vec<_> = again.of_name("plans").map(|o| o.author).collect();
        assert_eq!(authors, [key(1), key(2)]);
        again.end_own(key(2));
        assert_eq!(again.all.len(), 1);
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
