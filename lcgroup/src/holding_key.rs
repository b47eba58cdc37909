//! The key of a holder: the space, and the key that opens its packets. It opens no message.

use lcgroup_core::outside::NetworkSecret;
use librecast::id::PeerId;
use librecast::text::{self, TextError, TextKind};
use librecast::wire::Reader;
use zeroize::Zeroizing;

/// Bytes of a holding key.
const LENGTH: usize = 32 + 32;
/// Bytes of the holding key of a group with a network of its own.
const LONGEST: usize = LENGTH + 32;

/// The key of a holder.
#[derive(Clone)]
pub struct HoldingKey {
    /// The group: its owner's key.
    pub group: PeerId,
    /// Opens packets of its log.
    pub read_key: Zeroizing<[u8; 32]>,
    /// The way into the group's own network, if it has one.
    pub network: Option<NetworkSecret>,
}

impl HoldingKey {
    /// The line of text, to be handed over secretly.
    pub fn encode(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; LONGEST]);
        bytes[..32].copy_from_slice(self.group.public_key());
        bytes[32..LENGTH].copy_from_slice(&self.read_key[..]);
        let mut length = LENGTH;
        if let Some(network) = &self.network {
            bytes[LENGTH..].copy_from_slice(&network.0[..]);
            length = LONGEST;
        }
        text::encode(TextKind::HoldingKey, &bytes[..length])
    }

    /// Decodes its text.
    pub fn decode(line: &str) -> Result<Self, TextError> {
        let damaged = TextError::Damaged(TextKind::HoldingKey);
        let bytes = text::decode(TextKind::HoldingKey, line, LONGEST)?;
        let mut r = Reader::new(&bytes);
        let (Ok(group), Ok(read_key)) = (r.array(), r.array()) else {
            return Err(damaged);
        };
        let network = match r.is_empty() {
            true => None,
            false => {
                let secret = r.array().map_err(|_| damaged)?;
                Some(NetworkSecret(Zeroizing::new(secret)))
            }
        };
        if !r.is_empty() {
            return Err(damaged);
        }
        Ok(Self {
            group: PeerId::from_public_key(group).map_err(|_| damaged)?,
            read_key: Zeroizing::new(read_key),
            network,
        })
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn a_holding_key_comes_back_from_its_text() {
        let key = HoldingKey {
            group: SecretKey::from_seed(&[1; 32]).peer_id(),
            read_key: Zeroizing::new([2; 32]),
            network: None,
        };
        let text = key.encode();
        assert!(text.starts_with("lch1"));
        let back = HoldingKey::decode(&text).unwrap();
        assert_eq!((back.group, &back.read_key), (key.group, &key.read_key));
        assert!(HoldingKey::decode(&text[..text.len() - 1]).is_err());
        assert!(HoldingKey::decode("lcg1xyz").is_err());
        let outside = HoldingKey {
            network: Some(NetworkSecret(Zeroizing::new([3; 32]))),
            ..key
        };
        let back = HoldingKey::decode(&outside.encode()).unwrap();
        assert_eq!(back.network, outside.network);
        assert_eq!(back.read_key, outside.read_key);
    }
}
