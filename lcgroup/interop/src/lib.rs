//! Members by openmls, another implementation with another crypto library, in a group of ours.
//!
//! This crate includes the interface to mls-rs by path: it is private to `lcgroup-core`.

#![cfg(test)]
#![allow(dead_code, reason = "the guests need a part of it")]

#[path = "../../core/src/mls.rs"]
mod mls;
#[path = "../../core/src/provider.rs"]
mod provider;
#[path = "../../core/src/random.rs"]
mod random;
#[cfg(feature = "vectors")]
mod vectors;

/// As in `lcgroup-core`.
const MAX_NAME: usize = 64;

fn printable(name: &str) -> String {
    name.to_owned()
}


use librecast::time::UnixTime;
use librecast::id::SecretKey;
use mls::{Mls, OwnKeyPackage, Who, check_key_package};
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, MlsGroup, MlsGroupJoinConfig,
    MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, ProcessedMessageContent, ProtocolMessage,
    RatchetTreeIn, StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use provider::Provider;
use random::Random;
use tls_codec::{Deserialize as _, Serialize as _};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A member that runs openmls.
struct Guest {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    package: Vec<u8>,
    group: Option<MlsGroup>,
}

impl Guest {
    fn new(who: &Who) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        let mut identity = who.author.public_key().to_vec();
        identity.extend_from_slice(who.name.as_bytes());
        let credential = CredentialWithKey {
            credential: BasicCredential::new(identity).into(),
            signature_key: signer.to_public_vec().into(),
        };
        let package = KeyPackage::builder()
            .build(SUITE, &provider, &signer, credential)
            .unwrap();
        let message = MlsMessageOut::from(package.key_package().clone());
        Self {
            provider,
            signer,
            package: message.tls_serialize_detached().unwrap(),
            group: None,
        }
    }

    fn join(&mut self, welcome: &[u8], tree: &[u8]) {
        let message = MlsMessageIn::tls_deserialize_exact(welcome).unwrap();
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            panic!("no Welcome");
        };
        let tree = RatchetTreeIn::tls_deserialize_exact(tree).unwrap();
        let config = MlsGroupJoinConfig::default();
        let staged =
            StagedWelcome::new_from_welcome(&self.provider, &config, welcome, Some(tree)).unwrap();
        self.group = Some(staged.into_group(&self.provider).unwrap());
    }

    /// Processes a commit or a message; returns the message's content.
    fn take(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let message = MlsMessageIn::tls_deserialize_exact(message).unwrap();
        let message = ProtocolMessage::try_from(message).unwrap();
        let group = self.group.as_mut().unwrap();
        let taken = group.process_message(&self.provider, message).unwrap();
        match taken.into_content() {
            ProcessedMessageContent::ApplicationMessage(content) => Some(content.into_bytes()),
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                group.merge_staged_commit(&self.provider, *commit).unwrap();
                None
            }
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, content: &[u8]) -> Vec<u8> {
        let group = self.group.as_mut().unwrap();
        let message = group.create_message(&self.provider, &self.signer, content);
        message.unwrap().tls_serialize_detached().unwrap()
    }

    fn export(&self, label: &str) -> Vec<u8> {
        let (group, provider) = (self.group.as_ref().unwrap(), &self.provider);
        use openmls::prelude::OpenMlsProvider as _;
        group
            .export_secret(provider.crypto(), label, b"context", 32)
            .unwrap()
    }
}

fn who(n: u8) -> Who {
    Who {
        author: SecretKey::from_seed(&[n; 32]).peer_id(),
        name: format!("member {n}"),
    }
}

#[test]
fn members_by_openmls_follow_commits_talk_and_derive_the_same_secrets() {
    let now = UnixTime::now();
    let provider = Provider::new(Random::new(&[1; 32]));
    let mut owner = Mls::create(&provider, &who(0), now).unwrap();
    // three guests, and one member of ours
    let mut guests: Vec<Guest> = (1..=3).map(|n| Guest::new(&who(n))).collect();
    let ours = OwnKeyPackage::new(&provider, &who(4), now).unwrap();
    let mut add: Vec<Vec<u8>> = guests.iter().map(|guest| guest.package.clone()).collect();
    add.push(ours.public.clone());
    for (n, package) in add.iter().enumerate() {
        assert_eq!(
            check_key_package(&provider, package, now).unwrap(),
            who(n as u8 + 1)
        );
    }
    let commit = owner.commit(&provider, &[], &add, now).unwrap();
    for (n, guest) in guests.iter_mut().enumerate() {
        assert_eq!(commit.welcomes[n].0, who(n as u8 + 1).author);
        guest.join(&commit.welcomes[n].1, &commit.tree);
    }
    let mut ours = Mls::join(&provider, &ours, &commit.welcomes[3].1, &commit.tree, None).unwrap();

    for round in 0..3_u8 {
        // an empty commit, then messages in both directions
        let commit = owner.commit(&provider, &[], &[], now).unwrap();
        ours.apply(&commit.message, None).unwrap();
        for guest in &mut guests {
            assert_eq!(guest.take(&commit.message), None);
        }
        let said = owner.seal(&[round; 300]).unwrap();
        assert_eq!(&ours.open(&who(0).author, &said).unwrap()[..], [round; 300]);
        for n in 0..guests.len() {
            assert_eq!(guests[n].take(&said).unwrap(), [round; 300]);
            let said = guests[n].say(b"of a guest");
            let author = who(n as u8 + 1).author;
            assert_eq!(&owner.open(&author, &said).unwrap()[..], b"of a guest");
            assert_eq!(&ours.open(&author, &said).unwrap()[..], b"of a guest");
        }
        let secret = owner.export("label", b"context").unwrap();
        assert_eq!(secret, ours.export("label", b"context").unwrap());
        for guest in &guests {
            assert_eq!(secret.to_vec(), guest.export("label"));
        }
    }

    // one is removed, one gets a new leaf
    let renewed = Guest::new(&who(2));
    let remove = [who(1).author, who(2).author];
    let commit = owner.commit(
        &provider,
        &remove,
        std::slice::from_ref(&renewed.package),
        now,
    );
    let commit = commit.unwrap();
    for guest in &mut guests {
        guest.take(&commit.message);
    }
    assert!(!guests[0].group.as_ref().unwrap().is_active());
    guests[1] = renewed;
    guests[1].join(&commit.welcomes[0].1, &commit.tree);
    ours.apply(&commit.message, None).unwrap();
    let said = guests[1].say(b"with a new leaf");
    assert_eq!(
        &owner.open(&who(2).author, &said).unwrap()[..],
        b"with a new leaf"
    );
    let said = ours.seal(b"to all").unwrap();
    assert_eq!(guests[1].take(&said).unwrap(), b"to all");
    assert_eq!(guests[2].take(&said).unwrap(), b"to all");
}
