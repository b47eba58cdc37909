//! A backbone behind TLS: trusted if `SSL_CERT_FILE` says so, not otherwise.
//!
//! The certificate is made for this test: `openssl req -x509 -newkey ec -pkeyopt
//! ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=lcroute test" -addext
//! "basicConstraints=critical,CA:FALSE" -addext "subjectAltName=IP:127.0.0.1,DNS:localhost"`.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lcroute_overlay::Presence;
use lcroute_overlay::signal::client::{ClientEvent, Clients};
use lcroute_overlay::signal::server::{Server, TlsFiles};
use librecast::id::SecretKey;
use tokio::sync::mpsc;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Whether a client gets through to a TLS backbone within `patience`.
async fn connects(patience: Duration) -> bool {
    let files = TlsFiles {
        cert: file("cert.pem"),
        key: file("key.pem"),
    };
    let server = Server::bind(([127, 0, 0, 1], 0).into(), Some(&files))
        .await
        .unwrap();
    let url = format!("wss://127.0.0.1:{}", server.local_addr().unwrap().port());
    tokio::spawn(server.run(std::future::pending()));
    let (sender, mut events) = mpsc::channel(8);
    let key = Arc::new(SecretKey::generate());
    let mut clients = Clients::new(key.clone(), key.peer_id(), sender);
    clients.set_servers(&[url]);
    let up = async {
        while let Some(event) = events.recv().await {
            if matches!(event, ClientEvent::Presence(_, Presence::CarrierUp)) {
                return;
            }
        }
    };
    tokio::time::timeout(patience, up).await.is_ok()
}

#[tokio::test]
#[ignore = "run by the test below, with SSL_CERT_FILE set"]
async fn a_trusted_backbone_is_used() {
    assert!(connects(Duration::from_secs(30)).await);
}

#[test]
fn ssl_cert_file_makes_a_backbone_trusted() {
    // the environment is the process's: a process of its own
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_trusted_backbone_is_used"])
        .env("SSL_CERT_FILE", file("cert.pem"))
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_backbone_that_nobody_vouches_for_is_not_used() {
    assert!(!connects(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn missing_files_are_named() {
    let files = TlsFiles {
        cert: file("none.pem"),
        key: file("key.pem"),
    };
    let error = Server::bind(([127, 0, 0, 1], 0).into(), Some(&files))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("none.pem"), "{error}");
}
