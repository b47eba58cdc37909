//! Messages between a node and a signalling server: one message in one binary WebSocket message.
//!
//! ```text
//! node                         server
//!   | <-------- CHALLENGE -------- |
//!   | -------- REGISTER ---------> |   key, room, role, signature over the challenge
//!   | <-------- PRESENT ---------- |   for each other node of the room, or four routers for a leaf
//!   | -------- SEND(to) ---------> |
//!   | <------ DELIVER(from) ------ |
//!   | <--------- RELAY ----------- |   credentials for the relay on the same port, renewed in time
//!   | ---------- ENTER ----------> |   one more room: key, room, signature over the challenge
//!   | <--- IN(key): PRESENT, GONE, DELIVER, REFUSED
//!   | --- IN(key): SEND ---------> |
//!   | ---------- LEAVE ----------> |
//! ```

use librecast::id::{NetworkId, PeerId, SecretKey, derive};
use librecast::plain::clean;
use librecast::wire::{Reader, WireError, Writer};

use std::fmt;

use crate::MAX_SIGNAL;

/// Version of CHALLENGE and REGISTER.
const VERSION: u8 = 1;
/// Context of the signature over the challenge, with room and role.
const PROOF_CONTEXT: &str = "lcroute 2026 register";
/// Context of the signature over the challenge for one more room.
const ENTER_CONTEXT: &str = "lcroute 2026 enter";
/// Message type of a message in an entered room.
const IN: u8 = 11;
/// Number of a router's role.
const ROLE_ROUTER: u8 = 0;
/// Number of a leaf's role.
const ROLE_LEAF: u8 = 1;

/// Maximum length of a message in bytes: of an envelope with two keys and types.
pub const MAX_MESSAGE: usize = MAX_SIGNAL + 128;
/// Maximum number of rooms that a connection enters beside the registered one. Chosen.
pub const MAX_ENTERED: usize = 64;
/// Default maximum of connections from one address: dozens of nodes behind one NAT, and dying ones.
pub const PER_ADDRESS: u32 = 256;

/// The meeting point of a network's nodes. It hides the network's key and name from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Room(pub [u8; 32]);

impl Room {
    /// Returns the room of a network.
    #[must_use]
    pub fn of(network: &NetworkId) -> Self {
        Self(derive("lcroute 2026 server", &[network.public_key()]))
    }
}

/// The role of a node on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// A router: the server reports it to all other routers, and these to it.
    #[default]
    Router,
    /// A leaf: the server reports a few routers to it, and reports it to no node.
    Leaf,
}

impl Role {
    fn number(self) -> u8 {
        match self {
            Self::Router => ROLE_ROUTER,
            Self::Leaf => ROLE_LEAF,
        }
    }

    fn of(number: u8) -> Result<Self, WireError> {
        match number {
            ROLE_ROUTER => Ok(Self::Router),
            ROLE_LEAF => Ok(Self::Leaf),
            _ => Err(WireError::Bad("role")),
        }
    }
}

/// Credentials for a relay.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayCredentials {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

impl fmt::Debug for RelayCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayCredentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Messages from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToNode {
    /// The first message: a challenge to be signed.
    Challenge([u8; 32]),
    /// Another node of the room is connected.
    Present(PeerId),
    /// A node of the room has disconnected.
    Gone(PeerId),
    /// A sealed message.
    Deliver {
        /// The node whose connection it came by.
        from: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The reason for which the server closes this connection.
    Refused(String),
    /// Permission to use the relay on the server's port.
    Relay {
        /// Validity in seconds.
        lifetime: u32,
        /// The credentials.
        credentials: RelayCredentials,
    },
    /// A message in an entered room: `Present`, `Gone`, `Deliver`, or why the node is not in it.
    In {
        /// The key by which the recipient has entered.
        own: PeerId,
        /// The message.
        message: Box<ToNode>,
    },
}

/// Messages to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToServer {
    /// Registration of this node in a room.
    Register {
        /// Its key.
        peer: PeerId,
        /// The network's room.
        room: Room,
        /// Its role.
        role: Role,
        /// Signature over challenge, room and role.
        signature: [u8; 64],
    },
    /// A sealed message.
    Send {
        /// The recipient in the room.
        to: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Entry into one more room, as a router.
    Enter {
        /// The key in that room; no other room of the connection has it.
        peer: PeerId,
        /// The room.
        room: Room,
        /// Signature over challenge and room.
        signature: [u8; 64],
    },
    /// The end of an entry.
    Leave(PeerId),
    /// A sealed message in an entered room.
    SendIn {
        /// The key by which the sender has entered.
        own: PeerId,
        /// The recipient in the room.
        to: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// Returns the bytes that a node signs to prove its PeerId in a room.
fn proof(challenge: &[u8; 32], room: &Room) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(challenge);
    bytes[32..].copy_from_slice(&room.0);
    bytes
}

/// Returns the bytes that a node signs to register: a router's signature is not valid for a leaf,
/// nor the reverse.
fn role_proof(challenge: &[u8; 32], room: &Room, role: Role) -> [u8; 65] {
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&proof(challenge, room));
    bytes[64] = role.number();
    bytes
}

/// A registered node, with its room and role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Its key.
    pub peer: PeerId,
    /// The room.
    pub room: Room,
    /// Router or leaf.
    pub role: Role,
}

impl ToServer {
    /// Returns the answer to a challenge.
    #[must_use]
    pub fn register(key: &SecretKey, room: Room, role: Role, challenge: &[u8; 32]) -> Self {
        Self::Register {
            peer: key.peer_id(),
            room,
            role,
            signature: key.sign(PROOF_CONTEXT, &role_proof(challenge, &room, role)),
        }
    }

    /// Returns the entry into one more room.
    #[must_use]
    pub fn enter(key: &SecretKey, room: Room, challenge: &[u8; 32]) -> Self {
        Self::Enter {
            peer: key.peer_id(),
            room,
            signature: key.sign(ENTER_CONTEXT, &proof(challenge, &room)),
        }
    }

    /// Returns the registration, if there is a valid signature over this challenge.
    #[must_use]
    pub fn registered(&self, challenge: &[u8; 32]) -> Option<Registration> {
        let Self::Register {
            peer,
            room,
            role,
            signature,
        } = self
        else {
            return None;
        };
        let proven = peer.verify(
            PROOF_CONTEXT,
            &role_proof(challenge, room, *role),
            signature,
        );
        proven.is_ok().then_some(Registration {
            peer: *peer,
            room: *room,
            role: *role,
        })
    }

    /// Returns the entry into one more room, if there is a valid signature over this challenge.
    #[must_use]
    pub fn entered(&self, challenge: &[u8; 32]) -> Option<Registration> {
        let Self::Enter {
            peer,
            room,
            signature,
        } = self
        else {
            return None;
        };
        let proven = peer.verify(ENTER_CONTEXT, &proof(challenge, room), signature);
        proven.is_ok().then_some(Registration {
            peer: *peer,
            room: *room,
            role: Role::Router,
        })
    }
}

impl ToNode {
    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Challenge(challenge) => w.u8(1).u8(VERSION).put(challenge),
            Self::Present(peer) => w.u8(3).put(peer.public_key()),
            Self::Gone(peer) => w.u8(4).put(peer.public_key()),
            Self::Deliver { from, bytes } => w.u8(6).put(from.public_key()).put(bytes),
            Self::Refused(reason) => w.u8(7).put(reason.as_bytes()),
            Self::Relay {
                lifetime,
                credentials: RelayCredentials { user, password },
            } => {
                let lengths = [user, password].map(|text| text.len() as u8);
                w.u8(8).u32(*lifetime);
                w.u8(lengths[0]).put(user.as_bytes());
                w.u8(lengths[1]).put(password.as_bytes())
            }
            Self::In { own, message } => return in_room(own, &message.encode()),
        };
        w.into_vec()
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// The bytes are not a message, of another version, or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = reader(bytes)?;
        let message = match r.u8()? {
            1 => {
                r.version(VERSION)?;
                Self::Challenge(r.array()?)
            }
            3 => Self::Present(peer(&mut r)?),
            4 => Self::Gone(peer(&mut r)?),
            6 => {
                return Ok(Self::Deliver {
                    from: peer(&mut r)?,
                    bytes: r.rest().to_vec(),
                });
            }
            7 => {
                let reason = String::from_utf8_lossy(r.rest());
                let reason: String = reason.chars().take(200).collect();
                return Ok(Self::Refused(clean(&reason)));
            }
            8 => Self::Relay {
                lifetime: r.u32()?,
                credentials: RelayCredentials {
                    user: r.text8()?.to_owned(),
                    password: r.text8()?.to_owned(),
                },
            },
            IN => {
                let own = peer(&mut r)?;
                let rest = r.rest();
                if rest.first() == Some(&IN) {
                    return Err(WireError::Bad("a room in a room"));
                }
                let message = Self::decode(rest)?;
                return match message {
                    Self::Present(_) | Self::Gone(_) | Self::Deliver { .. } | Self::Refused(_) => {
                        let message = Box::new(message);
                        Ok(Self::In { own, message })
                    }
                    _ => Err(WireError::Bad("message in a room")),
                };
            }
            _ => return Err(WireError::Bad("message type")),
        };
        r.finish()?;
        Ok(message)
    }
}

impl ToServer {
    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Register {
                peer,
                room,
                role,
                signature,
            } => {
                w.u8(2).u8(VERSION).put(peer.public_key()).put(&room.0);
                w.u8(role.number()).put(signature)
            }
            Self::Send { to, bytes } => w.u8(5).put(to.public_key()).put(bytes),
            Self::Enter {
                peer,
                room,
                signature,
            } => w.u8(9).put(peer.public_key()).put(&room.0).put(signature),
            Self::Leave(own) => w.u8(10).put(own.public_key()),
            Self::SendIn { own, to, bytes } => {
                w.u8(IN).put(own.public_key());
                w.u8(5).put(to.public_key()).put(bytes)
            }
        };
        w.into_vec()
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// The bytes are not a message, of another version, or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = reader(bytes)?;
        match r.u8()? {
            2 => {
                r.version(VERSION)?;
                let message = Self::Register {
                    peer: peer(&mut r)?,
                    room: Room(r.array()?),
                    role: Role::of(r.u8()?)?,
                    signature: r.array()?,
                };
                r.finish()?;
                Ok(message)
            }
            5 => Ok(Self::Send {
                to: peer(&mut r)?,
                bytes: r.rest().to_vec(),
            }),
            9 => {
                let message = Self::Enter {
                    peer: peer(&mut r)?,
                    room: Room(r.array()?),
                    signature: r.array()?,
                };
                r.finish()?;
                Ok(message)
            }
            10 => {
                let message = Self::Leave(peer(&mut r)?);
                r.finish()?;
                Ok(message)
            }
            IN => {
                let own = peer(&mut r)?;
                match r.u8()? {
                    5 => Ok(Self::SendIn {
                        own,
                        to: peer(&mut r)?,
                        bytes: r.rest().to_vec(),
                    }),
                    _ => Err(WireError::Bad("message in a room")),
                }
            }
            _ => Err(WireError::Bad("message type")),
        }
    }
}

/// Returns an encoded message as one in the room that `own` has entered.
#[must_use]
pub fn in_room(own: &PeerId, message: &[u8]) -> Vec<u8> {
    [&[IN], &own.public_key()[..], message].concat()
}

fn reader(bytes: &[u8]) -> Result<Reader<'_>, WireError> {
    if bytes.len() > MAX_MESSAGE {
        Err(WireError::Bad("length"))
    } else {
        Ok(Reader::new(bytes))
    }
}

fn peer(r: &mut Reader<'_>) -> Result<PeerId, WireError> {
    PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("peer id"))
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_the_wire(seed: [u8; 32], bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let peer = SecretKey::from_seed(&seed).peer_id();
            for m in [
                ToNode::Challenge(seed),
                ToNode::Present(peer),
                ToNode::Gone(peer),
                ToNode::Deliver { from: peer, bytes: bytes.clone() },
                ToNode::Refused("no".into()),
                ToNode::Relay { lifetime: 7, credentials: RelayCredentials { user: "9:n".into(), password: "p".into() } },
            ] {
                prop_assert_eq!(ToNode::decode(&m.encode()).unwrap(), m.clone());
                // in a room there is neither a challenge nor a relay, nor another room
                let inside = ToNode::In { own: peer, message: Box::new(m.clone()) };
                let decoded = ToNode::decode(&inside.encode());
                match m {
                    ToNode::Challenge(_) | ToNode::Relay { .. } => prop_assert!(decoded.is_err()),
                    _ => prop_assert_eq!(decoded.unwrap(), inside.clone()),
                }
                let twice = ToNode::In { own: peer, message: Box::new(inside) };
                prop_assert!(ToNode::decode(&twice.encode()).is_err());
            }
            for m in [
                ToServer::Register { peer, room: Room(seed), role: Role::Router, signature: [7; 64] },
                ToServer::Register { peer, room: Room(seed), role: Role::Leaf, signature: [7; 64] },
                ToServer::Send { to: peer, bytes: bytes.clone() },
                ToServer::Enter { peer, room: Room(seed), signature: [7; 64] },
                ToServer::Leave(peer),
                ToServer::SendIn { own: peer, to: peer, bytes },
            ] {
                prop_assert_eq!(ToServer::decode(&m.encode()).unwrap(), m);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = ToNode::decode(&bytes);
            let _ = ToServer::decode(&bytes);
        }
    }

    #[test]
    fn a_servers_reason_steers_no_terminal() {
        let told = ToNode::Refused("no\u{1b}[2J\u{9b}2J\u{202e}\nyes".into());
        let shown = ToNode::Refused("no\u{fffd}[2J\u{fffd}2J\u{fffd}\u{fffd}yes".into());
        assert_eq!(ToNode::decode(&told.encode()), Ok(shown));
    }

    #[test]
    fn only_the_key_itself_registers_for_this_challenge_and_room() {
        let (key, room) = (SecretKey::from_seed(&[1; 32]), Room([2; 32]));
        let register = ToServer::register(&key, room, Role::Router, &[3; 32]);
        let registered = Some(Registration {
            peer: key.peer_id(),
            room,
            role: Role::Router,
        });
        assert_eq!(register.registered(&[3; 32]), registered);
        assert_eq!(register.registered(&[4; 32]), None);
        let ToServer::Register {
            peer, signature, ..
        } = register
        else {
            unreachable!()
        };
        let moved = ToServer::Register {
            peer,
            room: Room([5; 32]),
            role: Role::Router,
            signature,
        };
        assert_eq!(moved.registered(&[3; 32]), None);
        let other = ToServer::Register {
            peer,
            room,
            role: Role::Leaf,
            signature,
        };
        assert_eq!(other.registered(&[3; 32]), None);
    }

    #[test]
    fn routers_and_leaves_register_with_their_role() {
        let (key, room) = (SecretKey::from_seed(&[1; 32]), Room([2; 32]));
        let [router, leaf] = [Role::Router, Role::Leaf].map(|role| {
            let register = ToServer::register(&key, room, role, &[3; 32]);
            let bytes = register.encode();
            assert_eq!(ToServer::decode(&bytes).unwrap(), register);
            bytes
        });
        let key = key.peer_id();
        let head = [&[2, 1], &key.public_key()[..], &[2; 32]].concat();
        for (bytes, role) in [(&router, 0), (&leaf, 1)] {
            assert_eq!((&bytes[..66], bytes.len()), (&head[..], 67 + 64));
            assert_eq!(bytes[66], role);
        }
        let mut unknown = leaf;
        unknown[66] = 7;
        assert!(ToServer::decode(&unknown).is_err());
    }

    #[test]
    fn an_entry_looks_like_this_and_its_signature_is_for_no_registration() {
        let (key, room, challenge) = (SecretKey::from_seed(&[1; 32]), Room([2; 32]), [3; 32]);
        let enter = ToServer::enter(&key, room, &challenge);
        let bytes = enter.encode();
        let head = [&[9], &key.peer_id().public_key()[..], &[2; 32]].concat();
        assert_eq!((&bytes[..65], bytes.len()), (&head[..], 65 + 64));
        let entered = enter.entered(&challenge).unwrap();
        assert_eq!((entered.peer, entered.room), (key.peer_id(), room));
        assert_eq!(entered.role, Role::Router);
        assert_eq!(enter.entered(&[4; 32]), None, "another connection");
        assert_eq!(enter.registered(&challenge), None);
        let ToServer::Enter {
            peer, signature, ..
        } = enter
        else {
            unreachable!()
        };
        let moved = ToServer::Enter {
            peer,
            room: Room([5; 32]),
            signature,
        };
        assert_eq!(moved.entered(&challenge), None);
        let role = Role::Router;
        let registers = ToServer::Register {
            peer,
            room,
            role,
            signature,
        };
        assert_eq!(registers.registered(&challenge), None);
    }

    #[test]
    fn the_longest_envelope_fits_into_a_room() {
        let peer = SecretKey::from_seed(&[1; 32]).peer_id();
        let bytes = vec![7; MAX_SIGNAL];
        let sent = ToServer::SendIn {
            own: peer,
            to: peer,
            bytes: bytes.clone(),
        };
        assert_eq!(ToServer::decode(&sent.encode()), Ok(sent));
        let message = Box::new(ToNode::Deliver { from: peer, bytes });
        let came = ToNode::In { own: peer, message };
        assert_eq!(ToNode::decode(&came.encode()), Ok(came));
    }

    #[test]
    fn a_relays_password_is_not_shown() {
        let credentials = RelayCredentials {
            user: "1:a".into(),
            password: "secret".into(),
        };
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn credentials_look_like_this() {
        let credentials = RelayCredentials {
            user: "1:a".into(),
            password: "b=".into(),
        };
        let message = ToNode::Relay {
            lifetime: 3_600,
            credentials,
        };
        let golden = [8, 0, 0, 14, 16, 3, b'1', b':', b'a', 2, b'b', b'='];
        assert_eq!(message.encode(), golden);
    }

    #[test]
    fn longer_messages_than_allowed_are_refused() {
        let long = vec![5; MAX_MESSAGE + 1];
        assert!(ToServer::decode(&long).is_err());
    }
}
