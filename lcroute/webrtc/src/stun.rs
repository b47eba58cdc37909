//! STUN (RFC 8489) beside the stack's: server-reflexive addresses, answers to such requests, and
//! hellos on a link's path by ICE consent checks (RFC 7675).

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use rtc::crypto::{HmacAlgorithm, RTCCrypto};
use rtc::stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
    AttrType, RawAttribute,
};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, CLASS_ERROR_RESPONSE, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE,
    METHOD_BINDING, Message, Setter, TransactionId, is_stun_message,
};
use rtc::stun::textattrs::Username;
use rtc::stun::xoraddr::XorMappedAddress;
use tracing::warn;

use crate::fence::fenced;

/// GOOG-NETWORK-INFO, part of each check of Chromium; optional for receivers (RFC 8489 14).
const ATTR_NETWORK_INFO: AttrType = AttrType(0xC057);
/// Its value for a page without access to networks: network 0, highest cost. From a capture.
const NETWORK_INFO: [u8; 4] = [0, 0, 0x03, 0xE7];
/// Random bytes of a transaction id; a mark may follow. Chosen: one in 2^32 ids has it by chance.
const RANDOM_ID: usize = 8;
/// Label in the MAC that marks a transaction, beside its random bytes.
const MARK_LABEL: &[u8] = b"lcroute hellos";
/// Bytes of HMAC-SHA-256.
const HMAC: usize = 32;

/// Bound of a STUN message in bytes: checks have about 100.
const MAX_MESSAGE: usize = 1_280;

/// Identifies a request and its response.
pub(crate) type TxId = [u8; 12];

/// Class of a STUN message, from its first 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Request,
    Response,
    Other,
}

#[derive(Debug)]
pub(crate) struct Binding {
    message: Message,
}

/// User fragments and passwords of both ends of a link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    pub(crate) local_ufrag: String,
    pub(crate) local_pwd: String,
    pub(crate) remote_ufrag: String,
    pub(crate) remote_pwd: String,
}

/// Attributes of an ICE check (RFC 8445, section 7.1): priority, and role with the tie-breaker.
/// Some stacks answer no check without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckAttributes {
    priority: Vec<u8>,
    role: (AttrType, Vec<u8>),
}

impl CheckAttributes {
    /// Returns the attributes of a check of our stack; `None` if the datagram is not a check.
    pub(crate) fn of(datagram: &[u8]) -> Option<Self> {
        request_id(datagram)?;
        Self::in_message(&Binding::parse(datagram)?.message)
    }

    fn in_message(message: &Message) -> Option<Self> {
        let value = |typ| guarded(|| message.get(typ).ok());
        let mut roles = [ATTR_ICE_CONTROLLING, ATTR_ICE_CONTROLLED].into_iter();
        Some(Self {
            priority: value(ATTR_PRIORITY)?,
            role: roles.find_map(|typ| Some((typ, value(typ)?)))?,
        })
    }
}

fn raw(typ: AttrType, value: &[u8]) -> Box<dyn Setter> {
    Box::new(RawAttribute {
        typ,
        // all values are shorter than a user name
        length: value.len() as u16,
        value: value.to_vec(),
    })
}

impl Binding {
    /// Decodes a binding request or response; returns `None` for anything else.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        if datagram.len() > MAX_MESSAGE || !is_stun_message(datagram) {
            return None;
        }
        let mut message = Message {
            raw: datagram.to_vec(),
            ..Message::default()
        };
        guarded(|| message.decode().ok())?;
        (message.typ.method == METHOD_BINDING).then_some(Self { message })
    }

    pub(crate) fn class(&self) -> Class {
        match self.message.typ.class {
            CLASS_REQUEST => Class::Request,
            CLASS_SUCCESS_RESPONSE | CLASS_ERROR_RESPONSE => Class::Response,
            _ => Class::Other,
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        self.message.typ.class == CLASS_SUCCESS_RESPONSE
    }

    pub(crate) fn id(&self) -> TxId {
        self.message.transaction_id.0
    }

    /// Returns the USERNAME of an ICE check, `receiver:sender`.
    pub(crate) fn username(&self) -> Option<String> {
        let name = guarded(|| self.message.get(ATTR_USERNAME).ok());
        String::from_utf8(name?).ok()
    }

    pub(crate) fn nominates(&self) -> bool {
        self.message.contains(ATTR_USE_CANDIDATE)
    }

    /// Whether the sender requests hellos; `password` is the one of this check.
    pub(crate) fn asks_for_hellos(&self, password: &str, crypto: &dyn RTCCrypto) -> bool {
        let id = self.id();
        marked(id, password, crypto) == Some(id)
    }

    /// Makes a check with these attributes, in the order of Chromium's.
    fn check(&self, password: &str, crypto: &dyn RTCCrypto) -> Option<Vec<u8>> {
        let check = CheckAttributes::in_message(&self.message)?;
        check_request(
            (self.id(), &self.username()?),
            (Some(&check), self.nominates()),
            (password, crypto),
        )
    }

    /// Returns the XOR-MAPPED-ADDRESS of a response.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        use rtc::stun::message::Getter;
        let mut mapped = XorMappedAddress::default();
        guarded(|| mapped.get_from(&self.message).ok())?;
        let ip = match mapped.ip {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
            ip => ip,
        };
        (mapped.port != 0 && !ip.is_unspecified()).then(|| SocketAddr::new(ip, mapped.port))
    }

    /// Whether its MESSAGE-INTEGRITY was made with this password.
    pub(crate) fn is_authentic(&mut self, password: &str, crypto: &dyn RTCCrypto) -> bool {
        let (message, password) = (&mut self.message, password.as_bytes());
        guarded(|| MessageIntegrity::check(message, password, crypto).ok()).is_some()
    }

    /// Makes the response, with `integrity` if the request was an ICE check.
    pub(crate) fn success(
        &self,
        from: SocketAddr,
        integrity: Option<(&str, &dyn RTCCrypto)>,
    ) -> Option<Vec<u8>> {
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(TransactionId(self.id())),
            Box::new(BINDING_SUCCESS),
            Box::new(XorMappedAddress {
                ip: from.ip(),
                port: from.port(),
            }),
        ];
        if let Some((password, crypto)) = integrity {
            let key = password.as_bytes().to_vec();
            setters.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(
                key, crypto,
            )));
        }
        setters.push(Box::new(FINGERPRINT));
        build(&setters)
    }
}

/// Makes a request for the server-reflexive address.
pub fn address_request(id: [u8; 12]) -> Option<Vec<u8>> {
    build(&[
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId(id)),
        Box::new(FINGERPRINT),
    ])
}

/// Returns the address in the response to the request `id`.
pub fn mapped_address(datagram: &[u8], id: [u8; 12]) -> Option<SocketAddr> {
    let answer = Binding::parse(datagram).filter(|b| b.is_success() && b.id() == id)?;
    answer.mapped()
}

/// Makes a consent check (RFC 7675), which only the peer can answer; it may request hellos.
pub(crate) fn hello(
    (id, asks): (TxId, bool),
    credentials: &Credentials,
    check: Option<&CheckAttributes>,
    crypto: &dyn RTCCrypto,
) -> Option<Vec<u8>> {
    let username = format!("{}:{}", credentials.remote_ufrag, credentials.local_ufrag);
    let password = &credentials.remote_pwd;
    let id = if asks {
        marked(id, password, crypto)?
    } else {
        id
    };
    check_request((id, &username), (check, false), (password, crypto))
}

/// Returns a check of the stack in Chromium's form; `None` if it is not of these credentials.
pub(crate) fn dressed(
    datagram: &[u8],
    credentials: &Credentials,
    crypto: &dyn RTCCrypto,
) -> Option<Vec<u8>> {
    request_id(datagram)?;
    let mut check = Binding::parse(datagram)?;
    let password = &credentials.remote_pwd;
    let is_ours = check.is_authentic(password, crypto);
    is_ours.then(|| check.check(password, crypto))?
}

/// Marks a transaction id as a request for hellos; only holders of the password recognise it.
fn marked(mut id: TxId, password: &str, crypto: &dyn RTCCrypto) -> Option<TxId> {
    let mut mac = [0; HMAC];
    let (random, mark) = id.split_at_mut(RANDOM_ID);
    crypto
        .new_hmac(HmacAlgorithm::Sha256, password.as_bytes())
        .and_then(|mut key| key.sign(&[MARK_LABEL, random], &mut mac))
        .ok()?;
    mark.copy_from_slice(&mac[..mark.len()]);
    Some(id)
}

/// Whether `id` is that of the transaction `sent`, possibly marked.
pub(crate) fn is_same_transaction(sent: TxId, id: TxId) -> bool {
    sent[..RANDOM_ID] == id[..RANDOM_ID]
}

/// Makes a check with attributes in the order of Chromium's.
fn check_request(
    (id, username): (TxId, &str),
    (check, nominates): (Option<&CheckAttributes>, bool),
    (password, crypto): (&str, &dyn RTCCrypto),
) -> Option<Vec<u8>> {
    let mut setters: Vec<Box<dyn Setter + '_>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId(id)),
        Box::new(Username::new(ATTR_USERNAME, username.to_owned())),
        raw(ATTR_NETWORK_INFO, &NETWORK_INFO),
    ];
    if let Some(CheckAttributes { role, .. }) = check {
        setters.push(raw(role.0, &role.1));
    }
    if nominates {
        setters.push(raw(ATTR_USE_CANDIDATE, &[]));
    }
    if let Some(CheckAttributes { priority, .. }) = check {
        setters.push(raw(ATTR_PRIORITY, priority));
    }
    let key = password.as_bytes().to_vec();
    setters.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(
        key, crypto,
    )));
    setters.push(Box::new(FINGERPRINT));
    build(&setters)
}

/// Returns a STUN server's answer to a datagram: a stateless success response, or nothing.
#[must_use]
pub fn respond(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let request = Binding::parse(datagram)?;
    if request.class() != Class::Request {
        return None;
    }
    request.success(from, None)
}

/// Returns the transaction of a STUN request in our own datagram, without decoding it.
pub(crate) fn request_id(datagram: &[u8]) -> Option<TxId> {
    let is_request = datagram.starts_with(&[0, 1]) && is_stun_message(datagram);
    if is_request {
        datagram.get(8..20)?.try_into().ok()
    } else {
        None
    }
}

/// Calls the stack with untrusted bytes; returns `None` as well if it panics.
pub(crate) fn guarded<R>(call: impl FnOnce() -> Option<R>) -> Option<R> {
    static TOLD: Once = Once::new();
    fenced(call).unwrap_or_else(|panic| {
        // once: anybody may cause it any number of times
        TOLD.call_once(|| warn!("the WebRTC stack panicked over a STUN message: {panic}"));
        None
    })
}

pub(crate) fn build(setters: &[Box<dyn Setter + '_>]) -> Option<Vec<u8>> {
    let mut message = Message::new();
    guarded(|| message.build(setters).ok())?;
    Some(message.raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn credentials() -> Credentials {
        Credentials {
            local_ufrag: "ours".into(),
            local_pwd: "our password".into(),
            remote_ufrag: "theirs".into(),
            remote_pwd: "their password".into(),
        }
    }

    #[test]
    fn a_server_tells_the_address_it_sees() {
        for from in ["192.0.2.1:4242", "[2001:db8::1]:4242"] {
            let from: SocketAddr = from.parse().unwrap();
            let response = respond(&address_request([7; 12]).unwrap(), from).unwrap();
            let response = Binding::parse(&response).unwrap();
            assert!(response.is_success());
            assert_eq!(response.id(), [7; 12]);
            assert_eq!(response.mapped(), Some(from));
        }
    }

    #[test]
    fn a_response_is_not_answered() {
        let from: SocketAddr = "192.0.2.1:4242".parse().unwrap();
        let response = respond(&address_request([7; 12]).unwrap(), from).unwrap();
        assert_eq!(
            respond(&response, from),
            None,
            "two servers would talk for ever"
        );
    }

    #[test]
    fn only_the_password_makes_a_hello_authentic() {
        let provider = rtc::crypto::default_provider().unwrap();
        let check = CheckAttributes {
            priority: vec![1, 2, 3, 4],
            role: (ATTR_ICE_CONTROLLED, vec![5; 8]),
        };
        let hello = |asks| {
            hello(
                ([1; 12], asks),
                &credentials(),
                Some(&check),
                provider.crypto(),
            )
            .unwrap()
        };
        let asks = |hello: &[u8], password| {
            let hello = Binding::parse(hello).unwrap();
            hello.asks_for_hellos(password, provider.crypto())
        };
        assert!(!asks(&hello(false), "their password"));
        assert!(asks(&hello(true), "their password"));
        assert!(
            !asks(&hello(true), "our password"),
            "who does not know it sees nothing"
        );
        assert_eq!(hello(true).len(), hello(false).len());
        let request = hello(true);
        assert_eq!(CheckAttributes::of(&request), Some(check.clone()));
        let mut request = Binding::parse(&request).unwrap();
        assert!(is_same_transaction([1; 12], request.id()));
        assert_eq!(request.username().as_deref(), Some("theirs:ours"));
        assert!(request.is_authentic("their password", provider.crypto()));
        assert!(!request.is_authentic("our password", provider.crypto()));
        let from = "192.0.2.1:4242".parse().unwrap();
        let answer = request
            .success(from, Some(("their password", provider.crypto())))
            .unwrap();
        let mut answer = Binding::parse(&answer).unwrap();
        assert!(answer.is_authentic("their password", provider.crypto()));
    }

    #[test]
    fn a_check_that_is_not_of_these_credentials_stays_as_it_is() {
        let provider = rtc::crypto::default_provider().unwrap();
        let check = CheckAttributes {
            priority: vec![1, 2, 3, 4],
            role: (ATTR_ICE_CONTROLLING, vec![5; 8]),
        };
        let setters: [Box<dyn Setter>; 6] = [
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId([1; 12])),
            Box::new(Username::new(ATTR_USERNAME, "theirs:ours".into())),
            raw(ATTR_USE_CANDIDATE, &[]),
            raw(check.role.0, &check.role.1),
            raw(ATTR_PRIORITY, &check.priority),
        ];
        let key = b"their password".to_vec();
        let integrity = MessageIntegrity::new_raw_integrity_with_provider(key, provider.crypto());
        let mut stack = Message::new();
        stack.build(&setters).unwrap();
        integrity.add_to(&mut stack).unwrap();
        FINGERPRINT.add_to(&mut stack).unwrap();
        let dressed = |credentials| dressed(&stack.raw, &credentials, provider.crypto());
        let other = Credentials {
            remote_pwd: "another password".into(),
            ..credentials()
        };
        assert_eq!(dressed(other), None);
        let dressed = dressed(credentials()).unwrap();
        assert_eq!(CheckAttributes::of(&dressed), Some(check));
        let mut dressed = Binding::parse(&dressed).unwrap();
        assert!(dressed.is_authentic("their password", provider.crypto()));
        assert!(dressed.nominates());
        assert_eq!(dressed.id(), [1; 12]);
        assert_eq!(dressed.username().as_deref(), Some("theirs:ours"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), stun: bool) {
            if stun && bytes.len() >= 20 {
                bytes[0] = 0;
                bytes[1] &= 1;
                bytes[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
                let length = u16::try_from(bytes.len() - 20).unwrap();
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
            }
            let provider = rtc::crypto::default_provider().unwrap();
            let _ = respond(&bytes, "192.0.2.1:1".parse().unwrap());
            if let Some(mut binding) = Binding::parse(&bytes) {
                let _ = (binding.username(), binding.mapped(), binding.nominates());
                prop_assert!(!binding.is_authentic("password", provider.crypto()));
            }
        }

        /// Attributes of any length in valid framing: they reach the inner parts of the parser.
        #[test]
        fn arbitrary_attributes_do_not_panic(attributes in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6)) {
            let mut bytes = vec![1, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
            bytes.extend([9; 12]);
            for (typ, value) in attributes {
                let typ = [0x0001, 0x0006, 0x0008, 0x0020, 0x8028, typ][usize::from(typ) % 6];
                bytes.extend(typ.to_be_bytes());
                bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend(&value);
                bytes.extend(vec![0; (4 - value.len() % 4) % 4]);
            }
            let length = u16::try_from(bytes.len() - 20).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            let provider = rtc::crypto::default_provider().unwrap();
            if let Some(mut binding) = Binding::parse(&bytes) {
                let _ = (binding.username(), binding.mapped());
                prop_assert!(!binding.is_authentic("password", provider.crypto()));
            }
        }
    }
}
