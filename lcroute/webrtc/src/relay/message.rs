//! STUN messages of TURN, decoded by the crate `rtc` inside the fence.

use std::net::{IpAddr, SocketAddr};

use rtc::stun::attributes::{
    ATTR_REQUESTED_TRANSPORT, ATTR_XOR_PEER_ADDRESS, AttrType, Attributes,
};
use rtc::stun::error_code::ErrorCodeAttribute;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_REQUEST, Getter, METHOD_ALLOCATE, Message, MessageType, Setter,
    TransactionId, is_stun_message,
};
use rtc::stun::xoraddr::XorMappedAddress;

use super::framing::MAX_FRAME;
use crate::stun::{build, guarded};

pub(super) fn parse(datagram: &[u8]) -> Option<Message> {
    if datagram.len() > MAX_FRAME || !is_stun_message(datagram) {
        return None;
    }
    let mut message = Message {
        raw: datagram.to_vec(),
        ..Message::default()
    };
    guarded(|| message.decode().ok())?;
    Some(message)
}

pub(super) fn text(message: &Message, attribute: AttrType) -> Option<String> {
    String::from_utf8(guarded(|| message.get(attribute).ok())?).ok()
}

/// Returns a value of exactly four bytes.
pub(super) fn word(message: &Message, attribute: AttrType) -> Option<u32> {
    let value = guarded(|| message.get(attribute).ok())?;
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

pub(super) fn error_code(message: &Message) -> Option<u16> {
    let mut code = ErrorCodeAttribute::default();
    guarded(|| code.get_from(message).ok())?;
    Some(code.code.0)
}

/// Returns all peers in a message; `None` if one of them is malformed.
pub(super) fn peers(message: &Message) -> Option<Vec<SocketAddr>> {
    let named = message.attributes.0.iter();
    let named = named.filter(|a| a.typ == ATTR_XOR_PEER_ADDRESS);
    let peers = named.map(|attribute| {
        let alone = Message {
            attributes: Attributes(vec![attribute.clone()]),
            transaction_id: message.transaction_id,
            ..Message::default()
        };
        let mut address = XorMappedAddress::default();
        guarded(|| address.get_from_as(&alone, ATTR_XOR_PEER_ADDRESS).ok())?;
        Some(SocketAddr::new(address.ip.to_canonical(), address.port))
    });
    peers.collect()
}

/// An attribute with an address.
pub(super) struct Address(pub(super) AttrType, pub(super) SocketAddr);

impl Setter for Address {
    fn add_to(&self, message: &mut Message) -> rtc::shared::error::Result<()> {
        let (ip, port): (IpAddr, u16) = (self.1.ip(), self.1.port());
        XorMappedAddress { ip, port }.add_to_as(message, self.0)
    }
}

/// An attribute with raw bytes.
pub(super) struct Raw<'a>(pub(super) AttrType, pub(super) &'a [u8]);

impl Setter for Raw<'_> {
    fn add_to(&self, message: &mut Message) -> rtc::shared::error::Result<()> {
        message.add(self.0, self.1);
        Ok(())
    }
}

/// Makes an Allocate request without credentials, which a relay refuses.
pub fn relay_probe(id: [u8; 12]) -> Option<Vec<u8>> {
    build(&[
        Box::new(TransactionId(id)),
        Box::new(MessageType::new(METHOD_ALLOCATE, CLASS_REQUEST)),
        Box::new(Raw(ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0])),
        Box::new(FINGERPRINT),
    ])
}

/// Whether this is a relay's refusal of it.
pub fn is_relay_answer(datagram: &[u8], id: [u8; 12]) -> bool {
    let refused = MessageType::new(METHOD_ALLOCATE, CLASS_ERROR_RESPONSE);
    parse(datagram).is_some_and(|m| m.typ == refused && m.transaction_id.0 == id)
}
