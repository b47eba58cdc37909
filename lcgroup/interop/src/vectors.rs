//! Commits of the MLS working group's vectors, with our crypto provider.
//!
//! `passive-client.json` is from github.com/mlswg/mls-implementations, commit cfd4502: the cases of
//! suite 1 in `passive-client-handling-commit.json`, which begin alike and are written once, and the
//! first 16 of 200 epochs in `passive-client-random.json`. They use proposals by reference and
//! pre-shared keys, which our groups refuse: a build with these features of mls-rs reads them.

use mls_rs::MlsMessage;
use mls_rs::client_builder::{ClientBuilder, MlsConfig};
use mls_rs::identity::basic::BasicIdentityProvider;
use mls_rs::psk::ExternalPskId;
use mls_rs::storage_provider::in_memory::InMemoryKeyPackageStorage;
use mls_rs_codec::MlsEncode as _;
use mls_rs_core::key_package::KeyPackageData;
use serde_json::Value;

use crate::provider::{Provider, SUITE};
use crate::random::Random;

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The group that the passive client of a case joins.
fn join(case: &Value) -> mls_rs::Group<impl MlsConfig> {
    let provider = Provider::new(Random::new(&[1; 32]));
    let message = MlsMessage::from_bytes(&bytes(&case["key_package"])).unwrap();
    let reference = message.key_package_reference(&provider).unwrap().unwrap();
    let package = message.as_key_package().unwrap();
    let data = KeyPackageData::new(
        package.mls_encode_to_vec().unwrap(),
        bytes(&case["init_priv"]).into(),
        bytes(&case["encryption_priv"]).into(),
        package.expiration().unwrap().seconds_since_epoch(),
    );
    let packages = InMemoryKeyPackageStorage::new();
    packages.insert(reference.to_vec(), data);
    let mut client = ClientBuilder::new()
        .key_package_repo(packages)
        .crypto_provider(provider)
        .identity_provider(BasicIdentityProvider::new());
    for key in list(&case["external_psks"]) {
        let id = ExternalPskId::new(bytes(&key["psk_id"]));
        client = client.psk(id, bytes(&key["psk"]).into());
    }
    let identity = package.signing_identity().clone();
    let client = client.signing_identity(identity, bytes(&case["signature_priv"]).into(), SUITE);
    let welcome = MlsMessage::from_bytes(&bytes(&case["welcome"])).unwrap();
    let (group, _) = client.build().join_group(None, &welcome, None).unwrap();
    group
}

#[test]
fn we_follow_commits_of_the_working_groups_vectors() {
    let all: Value = serde_json::from_str(include_str!("../passive-client.json")).unwrap();
    let mut epochs = 0;
    for case in list(&all) {
        for end in list(&case["ends"]) {
            let mut group = join(case);
            let mut authenticator = &case["initial_epoch_authenticator"];
            for epoch in list(&case["begin"]).chain(list(end)) {
                let expected = bytes(authenticator);
                assert_eq!(group.epoch_authenticator().unwrap().to_vec(), expected);
                for message in list(&epoch["proposals"]).chain([&epoch["commit"]]) {
                    let message = MlsMessage::from_bytes(&bytes(message)).unwrap();
                    group.process_incoming_message(message).unwrap();
                }
                authenticator = &epoch["epoch_authenticator"];
                epochs += 1;
            }
            let expected = bytes(authenticator);
            assert_eq!(group.epoch_authenticator().unwrap().to_vec(), expected);
        }
    }
    assert_eq!(epochs, 13 * 2 + 16);
}
