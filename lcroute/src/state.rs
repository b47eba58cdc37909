//! The state directory: identity, membership, revocations, incarnation. Modes: files 0600, folder
//! 0700.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use lcroute_control::config::Config;
use lcroute_control::settings::Common;
use lcroute_node::{Epochs, Members, Revocations, Uses};
use librecast::cert::{CertError, Chain, Member};
use librecast::durable;
use librecast::epoch::EpochSecret;
use librecast::id::{IdError, NetworkId, SecretKey};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::service;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const NODE_KEY: &str = "node.key";
/// The node's key as a credential of a service manager, which avoids a key in clear on disk.
const NODE_CREDENTIALS: [&str; 2] = ["lcroute.node.key", NODE_KEY];
/// Root follows no symbolic link that the directory's owner may have made.
const NO_LINK: i32 = nix::libc::O_NOFOLLOW;
const NETWORK_KEY: &str = "network.key";
const MEMBERSHIP: &str = "membership.toml";
const INCARNATION: &str = "incarnation";
const REVOCATIONS: &str = "revocations";
/// Rendezvous epochs, with their secrets.
const EPOCHS: &str = "epochs";
const MEMBERS: &str = "members";
const USES: &str = "uses";
/// Pasted presence records.
const TEXTS: &str = "texts";
/// The UDP port of all links: known addresses stay valid over a restart.
const PORT: &str = "port";
/// The last IPv4 address of this node.
const IPV4: &str = "ipv4";
/// Earliest time of a membership: the beginning of 2025, in Unix seconds.
pub const EARLIEST: UnixTime = UnixTime::from_secs(1_735_689_600);
/// Most pasted records kept.
const MAX_TEXTS: usize = 64;
/// Bound in bytes, above the size of all kept members with all labels.
const MAX_MEMBERS_FILE: u64 = 32 << 20;
/// Bound in bytes, above the size of all counted tokens and nodes.
const MAX_USES_FILE: u64 = 8 << 20;
/// Bound in bytes, above the size of all kept epochs in base58.
const MAX_EPOCHS_FILE: u64 = 512 << 10;
/// Bound in bytes, above [`MAX_REVOCATIONS`] of the longest in base58.
const MAX_REVOCATIONS_FILE: u64 = 16 << 20;

/// Number of this run of the node; routers prefer LSAs of a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// The number.
    pub number: u32,
    /// Whether it is on disk; if not, the next start may get the same number.
    pub is_stored: bool,
}

/// Pasted presence records, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts(Vec<Vec<u8>>);

impl Texts {
    /// Adds a record, in place of the oldest if the list is full.
    pub fn add(&mut self, sealed: Vec<u8>) {
        self.0.retain(|known| *known != sealed);
        if self.0.len() == MAX_TEXTS {
            self.0.remove(0);
        }
        self.0.push(sealed);
    }

    /// Returns all records.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().take(MAX_TEXTS);
        let records = lines.filter_map(|line| bs58::decode(line.trim()).into_vec().ok());
        Self(records.collect())
    }

    fn text(&self) -> String {
        let lines = self.iter().map(|sealed| bs58::encode(sealed).into_string());
        lines.map(|line| line + "\n").collect()
    }
}

/// An opened state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// The membership of a network, as on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The network's public key.
    pub network: NetworkId,
    /// Signalling servers of the token.
    #[serde(default)]
    pub signal: Vec<String>,
    /// The certificate chain in base58.
    chain: String,
}

impl Membership {
    /// Creates a membership from a fresh chain.
    #[must_use]
    pub fn new(network: NetworkId, signal: Vec<String>, chain: &Chain) -> Self {
        Self {
            network,
            signal,
            chain: bs58::encode(chain.encode()).into_string(),
        }
    }

    /// Returns the same membership with a renewed chain.
    #[must_use]
    pub fn renewed(&self, chain: &Chain) -> Self {
        Self::new(self.network, self.signal.clone(), chain)
    }

    /// Decodes the certificate chain.
    pub fn chain(&self) -> anyhow::Result<Chain> {
        let bytes = bs58::decode(&self.chain)
            .into_vec()
            .context("chain is not base58")?;
        Chain::decode(&bytes).context("chain")
    }
}

/// Key and membership: everything that a node needs to authenticate itself.
#[derive(Debug)]
pub struct Identity {
    /// The node's key.
    pub key: Arc<SecretKey>,
    /// Its network.
    pub membership: Membership,
    /// Its certificate chain.
    pub chain: Chain,
    /// The content of its certificates.
    pub member: Member,
    /// Number and secret of the rendezvous epoch, for tokens.
    pub epoch: Option<(u32, EpochSecret)>,
}

impl StateDir {
    /// Creates a handle; the directory is made with the first file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the directory of these settings.
    #[must_use]
    pub fn of(common: &Common, config: &Config) -> Self {
        Self::new(common.state_dir(config))
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn create(&self) -> anyhow::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|e| permission(&e, &self.path))
    }

    /// Returns the node's key, if it has one.
    pub fn node_key(&self) -> anyhow::Result<Option<SecretKey>> {
        match NODE_CREDENTIALS.into_iter().find_map(service::credential) {
            Some(path) => load_key(&path),
            None => self.load_key(NODE_KEY),
        }
    }

    /// Returns the network's key, if this directory holds it.
    pub fn network_key(&self) -> anyhow::Result<Option<SecretKey>> {
        self.load_key(NETWORK_KEY)
    }

    fn load_key(&self, name: &str) -> anyhow::Result<Option<SecretKey>> {
        load_key(&self.path.join(name))
    }

    /// Returns the node's key; makes it if it is missing.
    pub fn node_key_or_new(&self) -> anyhow::Result<SecretKey> {
        if let Some(key) = self.node_key()? {
            return Ok(key);
        }
        self.store_new_key(NODE_KEY, SecretKey::generate())
    }

    /// Stores a new network key; never overwrites one.
    pub fn store_network_key(&self, key: SecretKey) -> anyhow::Result<SecretKey> {
        self.store_new_key(NETWORK_KEY, key)
    }

    fn store_new_key(&self, name: &str, key: SecretKey) -> anyhow::Result<SecretKey> {
        self.create()?;
        let path = self.path.join(name);
        match key.store(&path) {
            Ok(()) => {}
            Err(IdError::Io { source, .. }) => return Err(permission(&source, &path)),
            Err(e) => return Err(e.into()),
        }
        let give = || {
            self.give(
                &OpenOptions::new()
                    .read(true)
                    .custom_flags(NO_LINK)
                    .open(&path)?,
            )
        };
        give().map_err(|e| permission(&e, &path))?;
        Ok(key)
    }

    /// Gives root's file to the directory's owner: the daemon runs as another user.
    fn give(&self, file: &File) -> std::io::Result<()> {
        let owner = std::fs::metadata(&self.path)?;
        if nix::unistd::geteuid().is_root() && owner.uid() != 0 {
            std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }

    /// Returns the membership, if the node has one.
    pub fn membership(&self) -> anyhow::Result<Option<Membership>> {
        let path = self.path.join(MEMBERSHIP);
        let damaged = |e: &dyn std::fmt::Display| self.damaged(e);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).map_err(|e| damaged(&e))?;
                let membership = toml::from_str(&text).map_err(|e| damaged(&e.message()))?;
                Ok(Some(membership))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(permission(&e, &path)),
        }
    }

    fn damaged(&self, why: &dyn std::fmt::Display) -> ExitError {
        let path = self.path.join(MEMBERSHIP);
        ExitError::new(
            Exit::NotPermitted,
            format!(
                "{}: damaged ({why}); put back a copy, or remove it and run `lcroute join TOKEN` again",
                path.display()
            ),
        )
    }

    /// Replaces the membership.
    pub fn store_membership(&self, membership: &Membership) -> anyhow::Result<()> {
        self.write(MEMBERSHIP, toml::to_string(membership)?.as_bytes())
    }

    /// Returns key and membership, verified at `now`; exit code 4 if they are missing or expired.
    pub fn identity(&self, now: UnixTime) -> anyhow::Result<Identity> {
        self.identity_now(now)?
            .map_err(|error| self.refuse(&error).into())
    }

    /// Returns the error of an invalid membership, with a remedy.
    #[must_use]
    pub fn refuse(&self, error: &CertError) -> ExitError {
        let remedy = match error {
            CertError::NotYetValid(_) => "set the clock (timedatectl set-ntp true)",
            _ => "`lcroute join TOKEN` with a new token renews it",
        };
        ExitError::new(
            Exit::NotPermitted,
            format!("own membership: {error}; {remedy}"),
        )
    }

    /// As [`Self::identity`], but an invalid membership is no error yet: the clock may be wrong.
    pub fn identity_now(&self, now: UnixTime) -> anyhow::Result<Result<Identity, CertError>> {
        let missing = |what: &str| {
            ExitError::new(
                Exit::NotPermitted,
                format!(
                    "{}: {what}; run `lcroute init` to found a network or `lcroute join TOKEN` to join one",
                    self.path.display()
                ),
            )
        };
        let key = self.node_key()?.ok_or_else(|| missing("no node key"))?;
        let membership = self
            .membership()?
            .ok_or_else(|| missing("member of no network"))?;
        let chain = membership
            .chain()
            .map_err(|e| self.damaged(&format!("{e:#}")))?;
        let member = match chain.verify(&membership.network, now) {
            Ok(member) => member,
            Err(error) => return Ok(Err(error)),
        };
        if member.peer != key.peer_id() {
            return Err(missing("the certificate belongs to another key").into());
        }
        let epochs = self.epochs(&membership.network, now)?;
        Ok(Ok(Identity {
            key: Arc::new(key),
            membership,
            chain,
            member,
            epoch: epochs.newest(),
        }))
    }

    /// Returns the incarnation of this start: the last one plus one, written before use. If the
    /// disk takes nothing, it is the clock, which exceeds any count of starts and also rises.
    pub fn next_incarnation(&self) -> anyhow::Result<Incarnation> {
        let path = self.path.join(INCARNATION);
        let last = match std::fs::read(&path) {
            // a damaged file must not cause an old incarnation
            Ok(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or_else(|| UnixTime::now().as_secs() as u32),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(permission(&e, &path)),
        };
        let number = last.wrapping_add(1).max(1);
        let Err(e) = self.store_incarnation(number) else {
            return Ok(Incarnation {
                number,
                is_stored: true,
            });
        };
        if e.downcast_ref::<ExitError>().is_some() {
            return Err(e);
        }
        tracing::error!("{e:#}; going on without");
        Ok(Incarnation {
            number: number.max(UnixTime::now().as_secs() as u32),
            is_stored: false,
        })
    }

    /// Stores the used incarnation; the next start takes a later one. On a full disk overwrites.
    pub fn store_incarnation(&self, used: u32) -> anyhow::Result<()> {
        // constant length: overwriting takes no room
        let text = format!("{used:010}\n");
        self.write(INCARNATION, text.as_bytes()).or_else(|error| {
            let overwritten = self.overwrite(INCARNATION, text.as_bytes());
            overwritten.map_err(|_| error)
        })
    }

    /// Overwrites a file of the same length. A power cut during the write may damage it.
    fn overwrite(&self, name: &str, contents: &[u8]) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .custom_flags(NO_LINK)
            .open(self.path.join(name))?;
        if file.metadata()?.len() != contents.len() as u64 {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        file.write_all_at(contents, 0)?;
        file.sync_all()
    }

    /// Returns the known, unexpired revocations. Skips damaged lines.
    pub fn revocations(&self, network: &NetworkId, now: UnixTime) -> anyhow::Result<Revocations> {
        let path = self.path.join(REVOCATIONS);
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(MAX_REVOCATIONS_FILE).read_to_end(&mut bytes));
        match read {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(permission(&e, &path)),
            _ => {
                let text = String::from_utf8_lossy(&bytes);
                let (all, damaged) = Revocations::parse(&text, network, now);
                warn_of_damage(&path, damaged);
                Ok(all)
            }
        }
    }

    /// Returns the known rendezvous epochs, those of expelled issuers last. Skips damaged lines.
    pub fn epochs(&self, network: &NetworkId, now: UnixTime) -> anyhow::Result<Epochs> {
        let path = self.path.join(EPOCHS);
        let mut text = Zeroizing::new(String::new());
        let read =
            File::open(&path).and_then(|file| file.take(MAX_EPOCHS_FILE).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                tracing::warn!("{}: damaged and left out", path.display());
            }
            Err(e) => return Err(permission(&e, &path)),
        }
        let (mut all, damaged) = Epochs::parse(&text, *network);
        warn_of_damage(&path, damaged);
        for revocation in self.revocations(network, now)?.iter() {
            all.expel(revocation);
        }
        Ok(all)
    }

    /// Replaces the rendezvous epochs.
    pub fn store_epochs(&self, text: &str) -> anyhow::Result<()> {
        self.write(EPOCHS, text.as_bytes())
    }

    /// Returns the members that this node has seen; none if unreadable: the network sends them.
    pub fn members(&self) -> Members {
        let mut text = String::new();
        let read = File::open(self.path.join(MEMBERS))
            .and_then(|file| file.take(MAX_MEMBERS_FILE).read_to_string(&mut text));
        match read {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}/{MEMBERS}: {e}", self.path.display());
                Members::default()
            }
            _ => Members::parse(&text),
        }
    }

    /// Returns the counted uses of bounded tokens, as far as readable.
    pub fn uses(&self) -> Uses {
        let mut text = String::new();
        let read = File::open(self.path.join(USES))
            .and_then(|file| file.take(MAX_USES_FILE).read_to_string(&mut text));
        match read {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(
                    "{}/{USES}: {e}: who has come by tokens is counted anew",
                    self.path.display()
                );
                Uses::default()
            }
            _ => Uses::parse(&text),
        }
    }

    /// Replaces the counted uses of bounded tokens.
    pub fn store_uses(&self, text: &str) -> anyhow::Result<()> {
        self.write(USES, text.as_bytes())
    }

    /// Replaces the list of members.
    pub fn store_members(&self, text: &str) -> anyhow::Result<()> {
        self.write(MEMBERS, text.as_bytes())
    }

    /// Returns pasted records; none if unreadable, as they are valid for a day only.
    pub fn texts(&self) -> Texts {
        let mut text = String::new();
        let file = File::open(self.path.join(TEXTS));
        // length of the longest, in base58
        let longest = (MAX_TEXTS * 1_024) as u64;
        let read = file.and_then(|file| file.take(longest).read_to_string(&mut text));
        match read {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}/{TEXTS}: {e}", self.path.display());
                Texts::default()
            }
            _ => Texts::parse(&text),
        }
    }

    /// Replaces the pasted records.
    pub fn store_texts(&self, texts: &Texts) -> anyhow::Result<()> {
        self.write(TEXTS, texts.text().as_bytes())
    }

    /// Returns the port of the last run, if the system chose it.
    pub fn port(&self) -> Option<u16> {
        let text = std::fs::read_to_string(self.path.join(PORT)).ok()?;
        text.trim().parse().ok()
    }

    /// Stores the port for the next run. After a failure that run has another port.
    pub fn store_port(&self, port: u16) {
        if self.port() != Some(port)
            && let Err(e) = self.write(PORT, format!("{port}\n").as_bytes())
        {
            tracing::warn!("{e:#}");
        }
    }

    /// Returns the IPv4 address of the last run.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        let text = std::fs::read_to_string(self.path.join(IPV4)).ok()?;
        text.trim().parse().ok()
    }

    /// Stores the IPv4 address for the next run.
    pub fn store_ipv4(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        if self.ipv4() == Some(address) {
            return Ok(());
        }
        self.write(IPV4, format!("{address}\n").as_bytes())
    }

    /// Forgets the network; the key stays.
    pub fn forget_membership(&self) -> anyhow::Result<()> {
        self.remove(MEMBERSHIP)
    }

    fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(permission(&e, &path)),
            _ => Ok(()),
        }
    }

    /// Forgets network and key. The network's own key stays.
    pub fn forget(&self) -> anyhow::Result<()> {
        // the membership first: without it the key is useless
        let all = [
            MEMBERSHIP,
            NODE_KEY,
            REVOCATIONS,
            EPOCHS,
            MEMBERS,
            USES,
            INCARNATION,
            TEXTS,
            PORT,
        ];
        all.into_iter().try_for_each(|name| self.remove(name))
    }

    /// Replaces the revocations.
    pub fn store_revocations(&self, all: &Revocations) -> anyhow::Result<()> {
        self.write(REVOCATIONS, all.text().as_bytes())
    }

    fn write(&self, name: &str, contents: &[u8]) -> anyhow::Result<()> {
        self.create()?;
        let path = self.path.join(name);
        durable::replace_with(&path, contents, |file| self.give(file))
            .map_err(|e| permission(&e, &path))
    }
}

fn load_key(path: &Path) -> anyhow::Result<Option<SecretKey>> {
    match SecretKey::load(path) {
        Ok(key) => Ok(Some(key)),
        Err(IdError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(e) => Err(ExitError::new(Exit::NotPermitted, e.to_string()).into()),
    }
}

fn warn_of_damage(path: &Path, lines: usize) {
    if lines > 0 {
        let path = path.display();
        tracing::warn!("{path}: damaged lines, which are left out: {lines}");
    }
}

fn permission(e: &std::io::Error, path: &Path) -> anyhow::Error {
    let message = format!("{}: {e}", path.display());
    match e.kind() {
        std::io::ErrorKind::PermissionDenied => ExitError::new(Exit::NotPermitted, message).into(),
        _ => anyhow::Error::msg(message),
    }
}

#[cfg(test)]
pub(crate) mod testing {

    use std::time::Duration;

    use librecast::cert::Grant;

    use super::*;

    /// Returns a founder's chain in `network`, and its renewal.
    pub(crate) fn chains(network: &SecretKey, now: UnixTime) -> (Chain, Chain) {
        let key = SecretKey::generate();
        let grant = |name| Grant {
            core: true,
            ..Grant::new(name, (now.as_secs(), now.as_secs() + 1_000))
        };
        let founder = (key.peer_id(), grant("founder"));
        let old = Chain::sign(network, (&key, grant("")), founder).unwrap();
        let new = old
            .renew(old.issuer(), &key, now + Duration::from_secs(500), 400)
            .unwrap();
        (old, new)
    }
}

#[cfg(test)]
mod tests {
    use librecast::revocation::Revocation;

    use super::*;

    #[test]
    fn incarnation_rises_at_every_start_and_survives_damage() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("deep/state"));
        let next = || state.next_incarnation().unwrap().number;
        assert_eq!([next(), next()], [1, 2]);
        for garbage in [b"garbage".as_slice(), b"", b"\xff\xfe\x00"] {
            std::fs::write(state.path().join(INCARNATION), garbage).unwrap();
            assert!(next() > 1_000_000);
        }
    }

    /// The obstacle to the new file acts like a full disk, for tests run by any user.
    #[test]
    fn incarnation_is_written_over_where_there_is_no_room_and_is_the_clock_where_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().into());
        assert_eq!(state.next_incarnation().unwrap().number, 1);
        std::fs::create_dir_all(dir.path().join("incarnation.new/in the way")).unwrap();
        let overwritten = state.next_incarnation().unwrap();
        assert_eq!((overwritten.number, overwritten.is_stored), (2, true));
        assert_eq!(state.next_incarnation().unwrap().number, 3);

        // a file of another length is not written over
        std::fs::write(dir.path().join(INCARNATION), "3\n").unwrap();
        let clock = state.next_incarnation().unwrap();
        assert!(clock.number > 1_000_000 && !clock.is_stored);
        std::fs::remove_dir_all(dir.path().join("incarnation.new")).unwrap();
        state.store_incarnation(clock.number).unwrap();
        let next = state.next_incarnation().unwrap();
        assert!(next.number > clock.number && next.is_stored);
    }

    #[test]
    fn a_damaged_membership_is_named_and_not_permitted() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().into());
        state.node_key_or_new().unwrap();
        let network = SecretKey::generate().peer_id();
        let no_chain = format!("network = \"{network}\"\nchain = \"0OIl\"\n");
        for text in [
            b"".as_slice(),
            b"network = 1",
            b"\xff\xfe",
            no_chain.as_bytes(),
        ] {
            std::fs::write(dir.path().join(MEMBERSHIP), text).unwrap();
            let error = state.identity(UnixTime::now()).unwrap_err();
            assert!(
                error.to_string().contains("membership.toml: damaged"),
                "{error}"
            );
            let exit = error.downcast_ref::<ExitError>().unwrap().exit;
            assert_eq!(exit, Exit::NotPermitted);
        }
    }

    #[test]
    fn revocations_outlive_the_daemon_and_a_damaged_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().into());
        let network = SecretKey::generate();
        let node = SecretKey::generate().peer_id();
        let (id, now) = (network.peer_id(), UnixTime::now());
        assert_eq!(state.revocations(&id, now).unwrap().iter().count(), 0);
        let mut all = Revocations::default();
        let revocation = Revocation::by_network(&network, node, now, now.as_secs() + 9).unwrap();
        all.add(revocation, now);
        state.store_revocations(&all).unwrap();
        let read = state.revocations(&id, now).unwrap();
        assert_eq!(read.iter().map(Revocation::key).collect::<Vec<_>>(), [node]);
        let mode = std::fs::metadata(dir.path().join(REVOCATIONS)).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
            0o600
        );
        std::fs::write(dir.path().join(REVOCATIONS), b"\xff\xfe\n\0").unwrap();
        assert_eq!(state.revocations(&id, now).unwrap().iter().count(), 0);
    }

    #[test]
    fn pasted_records_are_kept_and_the_oldest_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().into());
        assert_eq!(state.texts(), Texts::default());
        let mut texts = Texts::default();
        for n in 0..=MAX_TEXTS {
            texts.add(vec![n as u8; 256]);
        }
        texts.add(vec![5; 256]);
        state.store_texts(&texts).unwrap();
        let read = state.texts();
        assert_eq!(read, texts);
        assert_eq!(read.iter().count(), MAX_TEXTS);
        assert_eq!(read.iter().last(), Some(&[5; 256][..]));
        std::fs::write(dir.path().join(TEXTS), b"0OIl\n\xff").unwrap();
        assert_eq!(state.texts(), Texts::default());
    }

    #[test]
    fn a_membership_that_begins_later_is_told_from_one_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().into());
        let (network, now) = (SecretKey::generate(), UnixTime::now());
        let key = state.node_key_or_new().unwrap();
        let grant =
            |name: &str| librecast::cert::Grant::new(name, (now.as_secs(), now.as_secs() + 9));
        let node = (key.peer_id(), grant("a"));
        let chain = Chain::sign(&network, (&key, grant("")), node).unwrap();
        let membership = Membership::new(network.peer_id(), Vec::new(), &chain);
        state.store_membership(&membership).unwrap();
        assert!(state.identity_now(now).unwrap().is_ok());
        // a clock without a battery: 1970, or two days before the network was founded
        for early in [0, now.as_secs() - 2 * 86_400].map(UnixTime::from_secs) {
            let error = state.identity_now(early).unwrap().unwrap_err();
            assert!(matches!(error, CertError::NotYetValid(_)), "{error}");
            assert!(crate::clock::may_pass(&error));
            let refused = state.identity(early).unwrap_err().to_string();
            assert!(
                refused.contains("set the clock") && !refused.contains("TOKEN"),
                "{refused}"
            );
        }
        assert!(
            !dir.path().join(REVOCATIONS).exists(),
            "nothing is written meanwhile"
        );
    }

    #[test]
    fn a_node_without_membership_is_not_permitted() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().into());
        let error = state.identity(UnixTime::now()).unwrap_err();
        assert_eq!(
            error.downcast_ref::<ExitError>().unwrap().exit,
            Exit::NotPermitted
        );
    }
}
