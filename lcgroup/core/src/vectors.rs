//! Tests our cipher suite with foreign vectors: crypto-basics and passive-client-welcome of the MLS
//! working group (github.com/mlswg/mls-implementations, suite 1), and small ones of mls-rs, which
//! the providers of RustCrypto and OpenSSL pass.

use data_encoding::HEXLOWER;
use mls_rs::client_builder::ClientBuilder;
use mls_rs::group::ExportedTree;
use mls_rs::identity::basic::BasicIdentityProvider;
use mls_rs::storage_provider::in_memory::InMemoryKeyPackageStorage;
use mls_rs::{CipherSuiteProvider, MlsMessage};
use mls_rs_codec::MlsEncode;
use mls_rs_core::crypto::HpkeCiphertext;
use mls_rs_core::key_package::KeyPackageData;
use serde_json::Value;

use crate::provider::{Provider, SUITE};
use crate::random::Random;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/suite1.json")).unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn provider() -> Provider {
    Provider::new(Random::new(&[1; 32]))
}

/// A variable-length vector of RFC 9420 §2.1.2.
fn vector(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    mls_rs_codec::byte_vec::mls_encode(&bytes, &mut out).unwrap();
    out
}

fn labelled(label: &Value, content: &[u8]) -> Vec<u8> {
    let label = format!("MLS 1.0 {}", label.as_str().unwrap());
    [vector(label.as_bytes()), vector(content)].concat()
}

fn expand(secret: &[u8], label: &Value, context: &[u8], length: u16) -> Vec<u8> {
    let info = [&length.to_be_bytes()[..], &labelled(label, context)].concat();
    let out = provider().kdf_expand(secret, &info, length.into()).unwrap();
    out.to_vec()
}

#[test]
fn crypto_basics_of_rfc_9420() {
    let (all, provider) = (vectors(), provider());
    let basics = &all["crypto_basics"];
    let v = &basics["expand_with_label"];
    assert_eq!(
        expand(&hex(&v["secret"]), &v["label"], &hex(&v["context"]), 16),
        hex(&v["out"])
    );
    let v = &basics["derive_secret"];
    assert_eq!(
        expand(&hex(&v["secret"]), &v["label"], &[], 32),
        hex(&v["out"])
    );
    let v = &basics["derive_tree_secret"];
    let generation = (v["generation"].as_u64().unwrap() as u32).to_be_bytes();
    assert_eq!(
        expand(&hex(&v["secret"]), &v["label"], &generation, 32),
        hex(&v["out"])
    );
    let v = &basics["ref_hash"];
    let label = v["label"].as_str().unwrap();
    let input = [vector(label.as_bytes()), vector(&hex(&v["value"]))].concat();
    assert_eq!(provider.hash(&input).unwrap(), hex(&v["out"]));
    let v = &basics["sign_with_label"];
    let content = labelled(&v["label"], &hex(&v["content"]));
    let public = hex(&v["pub"]).into();
    provider
        .verify(&public, &hex(&v["signature"]), &content)
        .unwrap();
    let secret = hex(&v["priv"]).into();
    assert_eq!(
        provider.sign(&secret, &content).unwrap(),
        hex(&v["signature"])
    );
    assert_eq!(
        provider.signature_key_derive_public(&secret).unwrap(),
        public
    );
    let v = &basics["encrypt_with_label"];
    let info = labelled(&v["label"], &hex(&v["context"]));
    let sealed = HpkeCiphertext {
        kem_output: hex(&v["kem_output"]),
        ciphertext: hex(&v["ciphertext"]),
    };
    let (secret, public) = (hex(&v["priv"]).into(), hex(&v["pub"]).into());
    let opened = provider
        .hpke_open(&sealed, &secret, &public, &info, None)
        .unwrap();
    assert_eq!(opened.to_vec(), hex(&v["plaintext"]));
}

#[test]
fn keys_are_derived_as_rfc_9180_says_and_boxes_of_others_open() {
    let (all, provider) = (vectors(), provider());
    let v = &all["crypto_provider"];
    let (secret, public) = provider.kem_derive(&hex(&v["ikm"])).unwrap();
    assert_eq!(secret.to_vec(), hex(&v["secret"]));
    assert_eq!(public.to_vec(), hex(&v["public"]));
    for case in v["open"].as_array().unwrap() {
        let mut sealed = HpkeCiphertext {
            kem_output: hex(&case["kem_output"]),
            ciphertext: hex(&case["ciphertext"]),
        };
        let (info, aad) = (hex(&case["info"]), hex(&case["aad"]));
        let aad = (!aad.is_empty()).then_some(&aad[..]);
        let opened = provider
            .hpke_open(&sealed, &secret, &public, &info, aad)
            .unwrap();
        assert_eq!(opened.to_vec(), hex(&case["plaintext"]));
        sealed.ciphertext[0] ^= 1;
        assert!(
            provider
                .hpke_open(&sealed, &secret, &public, &info, aad)
                .is_err()
        );
    }
    for case in v["aead"].as_array().unwrap() {
        let [key, nonce, sealed, aad, plain] =
            ["key", "iv", "ct", "aad", "pt"].map(|name| hex(&case[name]));
        let opened = provider
            .aead_open(&key, &sealed, Some(&aad), &nonce)
            .unwrap();
        assert_eq!(*opened, plain);
        assert_eq!(
            provider
                .aead_seal(&key, &plain, Some(&aad), &nonce)
                .unwrap(),
            sealed
        );
        assert!(
            provider
                .aead_open(&key, &sealed, Some(b"other"), &nonce)
                .is_err()
        );
    }
    let case = &v["signature"];
    let signature = provider.sign(&hex(&case["secret"]).into(), &hex(&case["data"]));
    assert_eq!(signature.unwrap(), hex(&case["signature"]));
}

#[test]
fn a_shared_secret_of_zeros_is_refused() {
    let provider = provider();
    let order_of_one = vec![0; 32].into();
    assert!(provider.hpke_seal(&order_of_one, b"", None, b"x").is_err());
}

#[test]
fn we_join_groups_of_the_working_groups_vectors() {
    let all = vectors();
    let cases = all["passive_client_welcome"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let provider = provider();
        let message = MlsMessage::from_bytes(&hex(&case["key_package"])).unwrap();
        let reference = message.key_package_reference(&provider).unwrap().unwrap();
        let package = message.as_key_package().unwrap();
        let data = KeyPackageData::new(
            package.mls_encode_to_vec().unwrap(),
            hex(&case["init_priv"]).into(),
            hex(&case["encryption_priv"]).into(),
            package.expiration().unwrap().seconds_since_epoch(),
        );
        let packages = InMemoryKeyPackageStorage::new();
        packages.insert(reference.to_vec(), data);
        let client = ClientBuilder::new()
            .key_package_repo(packages)
            .crypto_provider(provider)
            .identity_provider(BasicIdentityProvider::new())
            .signing_identity(
                package.signing_identity().clone(),
                hex(&case["signature_priv"]).into(),
                SUITE,
            )
            .build();
        let welcome = MlsMessage::from_bytes(&hex(&case["welcome"])).unwrap();
        let tree = case["ratchet_tree"]
            .as_str()
            .map(|_| hex(&case["ratchet_tree"]));
        let tree = tree
            .as_deref()
            .map(|tree| ExportedTree::from_bytes(tree).unwrap());
        let (group, _) = client.join_group(tree, &welcome, None).unwrap();
        let authenticator = group.epoch_authenticator().unwrap();
        assert_eq!(
            authenticator.as_bytes(),
            hex(&case["initial_epoch_authenticator"])
        );
    }
}
