//! A server behind TLS: trusted with its certificate in `SSL_CERT_FILE`, and only then.
//!
//! The certificate is made for this test: `openssl req -x509 -newkey ec -pkeyopt
//! ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=lcroute test" -addext
//! "basicConstraints=critical,CA:FALSE" -addext "subjectAltName=IP:127.0.0.1,DNS:localhost"`;
//! `authority.pem` lacks these two extensions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lcroute_overlay::Presence;
use lcroute_signalling::server::{Server, TlsFiles};
use lcroute_signalling::{CarrierEvent, Carriers, client};
use librecast::id::SecretKey;
use tokio::sync::mpsc;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn files(cert: &str, key: &str) -> TlsFiles {
    TlsFiles {
        cert: file(cert),
        key: file(key),
    }
}

/// Returns whether a client reaches a TLS server at `host` within `timeout`.
async fn connects(files: &TlsFiles, host: &str, timeout: Duration) -> bool {
    let server = Server::bind(([127, 0, 0, 1], 0).into(), Some(files))
        .await
        .unwrap();
    let url = format!("wss://{host}:{}", server.local_addr().unwrap().port());
    tokio::spawn(server.run(std::future::pending()));
    reaches(url, timeout).await
}

async fn reaches(url: String, timeout: Duration) -> bool {
    let (sender, mut events) = mpsc::channel(8);
    let key = Arc::new(SecretKey::generate());
    let mut carriers = Carriers::new(key.clone(), key.peer_id(), sender);
    carriers.set_servers(&[url], None);
    let up = async {
        while let Some(event) = events.recv().await {
            if matches!(event, CarrierEvent::Presence(_, Presence::CarrierUp)) {
                return;
            }
        }
    };
    tokio::time::timeout(timeout, up).await.is_ok()
}

const DEADLINE: Duration = Duration::from_secs(30);
const REFUSED: Duration = Duration::from_secs(2);

#[tokio::test]
#[ignore = "run by the test below, with SSL_CERT_FILE set"]
async fn a_trusted_server_is_used() {
    assert!(connects(&files("cert.pem", "key.pem"), "127.0.0.1", DEADLINE).await);
}

#[tokio::test]
#[ignore = "run by the test below, with SSL_CERT_FILE set"]
async fn a_trusted_self_signed_authority_is_used() {
    let own = files("authority.pem", "authority-key.pem");
    assert!(connects(&own, "127.0.0.1", DEADLINE).await);
    // trusted, but the certificate has another name
    assert!(!connects(&own, "localhost", REFUSED).await);
    // trust in one authority does not extend to another
    assert!(!connects(&files("cert.pem", "key.pem"), "127.0.0.1", REFUSED).await);
}

fn run_trusting(cert: &str, test: &str) {
    // the environment belongs to a process, so the test needs its own
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", &format!("tls::{test}")])
        .env("SSL_CERT_FILE", file(cert))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn ssl_cert_file_makes_a_server_trusted() {
    run_trusting("cert.pem", "a_trusted_server_is_used");
}

#[test]
fn ssl_cert_file_makes_what_openssl_makes_by_default_trusted() {
    run_trusting("authority.pem", "a_trusted_self_signed_authority_is_used");
}

#[tokio::test]
#[ignore = "run by the test below, with SSL_CERT_FILE set"]
async fn an_error_names_each_url_and_what_is_wrong_with_the_certificate() {
    let reason = async |files: TlsFiles, host: &str| {
        let server = Server::bind(([127, 0, 0, 1], 0).into(), Some(&files));
        let server = server.await.unwrap();
        let name = format!("{host}:{}", server.local_addr().unwrap().port());
        let task = tokio::spawn(server.run(std::future::pending()));
        let error = client::probe(&name, None).await.unwrap_err().to_string();
        task.abort();
        for url in [format!("wss://{name}: "), format!("ws://{name}: ")] {
            assert!(error.contains(&url), "{error}");
        }
        error
    };
    let own = files("authority.pem", "authority-key.pem");
    let other = reason(own, "localhost").await;
    assert!(other.contains("for another name"), "{other}");
    let unknown = reason(files("cert.pem", "key.pem"), "127.0.0.1").await;
    assert!(unknown.contains("not trusted"), "{unknown}");
}

#[test]
fn an_error_of_a_named_server_says_what_was_tried() {
    run_trusting(
        "authority.pem",
        "an_error_names_each_url_and_what_is_wrong_with_the_certificate",
    );
}

#[tokio::test]
async fn a_server_without_tls_is_found_by_its_name() {
    let server = Server::bind(([127, 0, 0, 1], 0).into(), None)
        .await
        .unwrap();
    let name = server.local_addr().unwrap().to_string();
    tokio::spawn(server.run(std::future::pending()));
    assert!(reaches(name, DEADLINE).await);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_used() {
    for (cert, key) in [
        ("cert.pem", "key.pem"),
        ("authority.pem", "authority-key.pem"),
    ] {
        assert!(!connects(&files(cert, key), "127.0.0.1", REFUSED).await);
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_without_a_restart_and_kept_if_the_new_one_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let own = TlsFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    let put = |cert: &str, key: &str| {
        std::fs::copy(file(cert), &own.cert).unwrap();
        std::fs::copy(file(key), &own.key).unwrap();
    };
    put("cert.pem", "key.pem");
    let server = Server::bind(([127, 0, 0, 1], 0).into(), Some(&own))
        .await
        .unwrap();
    let certificate = server.certificate().unwrap();
    put("authority.pem", "authority-key.pem");
    certificate.reload().unwrap();
    std::fs::write(&own.cert, "junk").unwrap();
    let error = certificate.reload().unwrap_err();
    assert!(error.to_string().contains("cert.pem"), "{error}");
    // a key that does not match the certificate
    put("authority.pem", "key.pem");
    assert!(certificate.reload().is_err());
}

#[tokio::test]
async fn missing_files_are_named() {
    let error = Server::bind(
        ([127, 0, 0, 1], 0).into(),
        Some(&files("none.pem", "key.pem")),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("none.pem"), "{error}");
}
