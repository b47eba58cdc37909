//! OpenVPN with tap interfaces; the server runs on the sending host and floods.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::super::system::{System, bring_up, numbered, system, wait_interface};
use lcroute_demo::lab::Host;

const TAP: &str = "tap0";
const PORT: u16 = 1194;

pub fn start(hosts: Vec<Host>) -> Result<System> {
    let fingerprints: Vec<String> = hosts.iter().map(certificate).collect::<Result<_>>()?;
    let numbered = numbered(&hosts)?;
    let (_, _, server) = numbered.first().context("no hosts")?;
    let mut processes = Vec::new();
    for (number, host, _) in &numbered {
        let known: &[String] = if *number == 1 {
            &fingerprints[1..]
        } else {
            &fingerprints[..1]
        };
        let mut config = format!(
            "dev {TAP}\ndev-type tap\nproto udp\ncert node.crt\nkey node.key\nverb 3\n\
             keepalive 10 60\nauth-nocache\n<peer-fingerprint>\n{}\n</peer-fingerprint>\n",
            known.join("\n")
        );
        if *number == 1 {
            write!(
                config,
                "mode server\ntls-server\ndh none\nclient-to-client\nport {PORT}\n"
            )?;
        } else {
            write!(config, "client\nnobind\nremote {server} {PORT}\n")?;
        }
        host.write("openvpn.conf", config)?;
        let mut process = host.spawn("openvpn", &["--config", "openvpn.conf"])?;
        wait_interface(host, TAP, &mut process)?;
        bring_up(host, *number, TAP)?;
        processes.push(process);
    }
    Ok(system(hosts, TAP, processes))
}

/// Makes a key and a certificate; returns the fingerprint by which other hosts know this one.
fn certificate(host: &Host) -> Result<String> {
    let name = format!("/CN={}", host.name());
    host.run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "node.key",
            "-out",
            "node.crt",
            "-days",
            "3650",
            "-subj",
            &name,
        ],
    )?
    .success()?;
    let said = host
        .run(
            "openssl",
            &[
                "x509",
                "-in",
                "node.crt",
                "-noout",
                "-sha256",
                "-fingerprint",
            ],
        )?
        .success()?
        .stdout;
    let (_, fingerprint) = said.trim().split_once('=').with_context(|| said.clone())?;
    Ok(fingerprint.to_owned())
}
