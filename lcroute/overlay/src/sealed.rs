//! Boxes that carry records: nonce 192, tag 128 and content, sealed by XSalsa20-Poly1305.

use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, Nonce, Tag, XSalsa20Poly1305};

/// Bytes of a nonce.
pub(crate) const NONCE: usize = 24;
const TAG: usize = 16;
/// Bytes of a box beside its content.
pub(crate) const OVERHEAD: usize = NONCE + TAG;

/// Returns the box of this content.
pub(crate) fn seal(key: &[u8; 32], nonce: &[u8; NONCE], mut content: Vec<u8>) -> Vec<u8> {
    let cipher = XSalsa20Poly1305::new(key.into());
    // it fails only for messages longer than memory
    let tag = cipher.encrypt_in_place_detached(Nonce::from_slice(nonce), b"", &mut content);
    [&nonce[..], &tag.unwrap_or_default(), &content].concat()
}

/// Returns the content of a box; `None`: it is too short, or not sealed by this key.
pub(crate) fn open(key: &[u8; 32], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE)?;
    let (tag, content) = rest.split_at_checked(TAG)?;
    let mut content = content.to_vec();
    let cipher = XSalsa20Poly1305::new(key.into());
    let (nonce, tag) = (Nonce::from_slice(nonce), Tag::from_slice(tag));
    let opened = cipher.decrypt_in_place_detached(nonce, b"", &mut content, tag);
    opened.ok().map(|()| content)
}
