//! A private Tor network, for hidden hosts; `netns-tests/setup all` fetches the program.
//!
//! ```text
//!   host: client, SOCKS5 on its loopback ── relay ── relay ── relay as exit ── server
//! ```

use crate::foreign::{foreign, said};
use crate::prelude::*;

/// SOCKS5 address of a client.
pub(crate) const SOCKS: &str = "127.0.0.1:9050";
/// Number of relays, all of them exits: a path has three, and a fourth gives a choice.
const RELAYS: usize = 4;
/// Number of directory authorities among them. Two make a consensus if one is late.
const AUTHORITIES: usize = 3;
/// Timeout of a broken test: consensus, descriptors and circuits take 10 to 60 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Relays on public hosts of their own.
#[derive(Debug)]
pub(crate) struct TorNetwork {
    pub(crate) relays: Vec<Host>,
    /// The authorities, in the syntax of Tor's configuration.
    directory: String,
    _running: Vec<Process>,
}

impl TorNetwork {
    /// Starts the relays. Clients wait for the first consensus.
    pub(crate) fn start(lab: &Lab) -> Result<TorNetwork> {
        let relays = (1..=RELAYS).map(|n| lab.host(&format!("tor{n}")));
        let relays = relays.collect::<Result<Vec<_>>>()?;
        let mut directory = String::new();
        for host in &relays {
            host.write("torrc", relay(host)?)?;
        }
        for host in &relays[..AUTHORITIES] {
            directory += &authority(host)?;
        }
        let running = relays
            .iter()
            .map(|host| tor(host, "torrc", &directory))
            .collect::<Result<_>>()?;
        Ok(TorNetwork {
            relays,
            directory,
            _running: running,
        })
    }

    /// Starts a client on this host, and waits for a circuit.
    pub(crate) fn client(&self, host: &Host) -> Result<Process> {
        self.client_with(host, "")
    }

    /// The same with an onion service to a port of the host; returns its name.
    pub(crate) fn service(&self, host: &Host, port: u16) -> Result<(Process, String)> {
        let folder = host.path("service");
        let (at, shown) = (host.v4()?, folder.display());
        let more = format!("HiddenServiceDir {shown}\nHiddenServicePort {port} {at}:{port}\n");
        let client = self.client_with(host, &more)?;
        let name = within(PATIENCE, "the service has a name", || {
            Ok(fs::read_to_string(folder.join("hostname"))?)
        })?;
        Ok((client, name.trim().to_owned()))
    }

    fn client_with(&self, host: &Host, more: &str) -> Result<Process> {
        let config = format!(
            "TestingTorNetwork 1\nDataDirectory {}\nSocksPort {SOCKS}\nLog notice stdout\n\
             ClientRejectInternalAddresses 0\nClientDNSRejectInternalAddresses 0\n{more}",
            host.path("tor").display()
        );
        host.write("torrc", config)?;
        let client = tor(host, "torrc", &self.directory)?;
        within(PATIENCE, "the Tor client has a circuit", || {
            let said = said(&client);
            holds!(said.contains("Bootstrapped 100%"), "{said}")
        })?;
        Ok(client)
    }

    /// Returns the version of Tor.
    pub(crate) fn version(&self) -> Result<String> {
        let shown = run(&self.relays[0], "tor", &["--version"])?;
        Ok(shown.lines().next().unwrap_or_default().to_owned())
    }
}

/// Returns the configuration of a relay with an unrestricted exit, private addresses included.
fn relay(host: &Host) -> Result<String> {
    let (name, data) = (host.name(), host.path("tor"));
    let (address, data) = (host.v4()?, data.display());
    Ok(format!(
        "TestingTorNetwork 1\nDataDirectory {data}\nNickname {name}\nAddress {address}\n\
         ORPort {address}:5000 IPv4Only\nSocksPort 0\nAssumeReachable 1\nExtendAllowPrivateAddresses 1\n\
         ExitRelay 1\nExitPolicy accept *:*\nExitPolicyRejectPrivate 0\nLog notice stdout\n"
    ))
}

/// Makes this relay an authority, with keys; returns its line for all configurations.
fn authority(host: &Host) -> Result<String> {
    let (name, address) = (host.name(), host.v4()?);
    // votes every 10 s, the shortest interval that Tor permits
    let config = format!(
        "{}AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nDirPort {address}:7000\nContactInfo lab\n\
         TestingDirAuthVoteExit *\nTestingDirAuthVoteGuard *\nTestingDirAuthVoteHSDir *\n\
         TestingV3AuthInitialVotingInterval 10\nTestingV3AuthInitialVoteDelay 2\n\
         TestingV3AuthInitialDistDelay 2\nV3AuthVotingInterval 10\nV3AuthVoteDelay 2\nV3AuthDistDelay 2\n",
        relay(host)?
    );
    let torrc = host.write("torrc", config)?.display().to_string();
    let at = format!("{address}:7000");
    let args = ["--create-identity-key", "--passphrase-fd", "0", "-a", &at];
    let make = foreign("tor-gencert", &args)?.join(" ");
    let script = format!("umask 077; mkdir -p tor/keys; cd tor/keys; echo lab | env {make}");
    host.sh(&script)?.success()?;
    let certificate = fs::read_to_string(host.path("tor/keys/authority_certificate"))?;
    let mut lines = certificate.lines();
    let identity = lines.find_map(|line| line.strip_prefix("fingerprint "));
    let identity = identity.context("no fingerprint")?;
    // without a known authority Tor does not print its fingerprint
    let none = "0".repeat(40);
    let nobody = format!("nobody v3ident={none} 127.0.0.1:1 {none}");
    let args = [
        "-f",
        &torrc,
        "--quiet",
        "--list-fingerprint",
        "--DirAuthority",
        &nobody,
    ];
    let said = run(host, "tor", &args)?;
    let (_, fingerprint) = said.trim().split_once(' ').context("no fingerprint")?;
    let fingerprint = fingerprint.replace(' ', "");
    Ok(format!(
        "DirAuthority {name} orport=5000 v3ident={identity} {at} {fingerprint}\n"
    ))
}

/// Starts Tor with a configuration of the host and these authorities.
fn tor(host: &Host, config: &str, directory: &str) -> Result<Process> {
    let config = host.path(config);
    let whole = fs::read_to_string(&config)? + directory;
    fs::write(&config, whole)?;
    crate::foreign::start(host, "tor", &["-f", &config.display().to_string()])
}

/// Returns the output of a program of Tor.
fn run(host: &Host, program: &str, args: &[&str]) -> Result<String> {
    let args = foreign(program, args)?;
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    Ok(host.run("env", &args)?.success()?.stdout)
}
