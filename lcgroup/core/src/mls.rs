//! All uses of mls-rs: create, join, commit, apply, seal, open, export, and a state as bytes.
//!
//! mls-rs changes its API with every 0.x; only this file follows it. Every operation that can fail
//! works on a clone, which replaces the group on success. So a forged message consumes no key (the
//! true message stays readable), and no commit is ever pending.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use librecast::id::PeerId;
use librecast::time::UnixTime;
use mls_rs::client_builder::{
    BaseConfig, ClientBuilder, PaddingMode, WithCryptoProvider, WithGroupStateStorage,
    WithIdentityProvider, WithKeyPackageRepo, WithMlsRules,
};
use mls_rs::error::MlsError;
use mls_rs::group::proposal::{AddProposal, Proposal};
use mls_rs::group::{CommitEffect, ExportedTree, Member, ReceivedMessage, Roster};
use mls_rs::identity::basic::BasicCredential;
use mls_rs::identity::{CredentialType, SigningIdentity};
use mls_rs::mls_rules::{
    CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle,
};
use mls_rs::time::MlsTime;
use mls_rs::{
    CipherSuiteProvider as _, Client, Extension, ExtensionList, GroupStateStorage,
    IdentityProvider, KeyPackageStorage, MlsMessage, MlsRules, WireFormat,
};
use mls_rs_codec::{MlsDecode as _, MlsEncode as _};
use mls_rs_core::crypto::SignatureSecretKey;
use mls_rs_core::error::IntoAnyError;
use mls_rs_core::extension::ExtensionType;
use mls_rs_core::group::{EpochRecord, GroupContext, GroupState};
use mls_rs_core::identity::MemberValidationContext;
use mls_rs_core::key_package::KeyPackageData;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::MAX_NAME;
use crate::provider::{Provider, SUITE};

/// Leaf of the owner: a group's creator has leaf 0 (RFC 9420 §11), and our owner never leaves.
const OWNER: u32 = 0;
/// Bytes of a credential before the name: the author key.
const AUTHOR: usize = 32;
/// Type of the leaf extension of a device, of those for private use (RFC 9420 §17.3).
const VOUCH: ExtensionType = ExtensionType::new(0xf1de);
/// Lifetime of a key package, which RFC 9420 §7.2 requires: half a year, for requests are repeated
/// while the owner is away.
const KEY_PACKAGE_LIFE: Duration = Duration::from_secs(183 * 24 * 3_600);
/// Seconds that a key package is valid before its creation: clocks may differ by a day.
const CLOCK_SKEW: u64 = 24 * 3_600;
/// Bytes of a group id. It is random: a PrivateMessage carries it in clear.
const GROUP_ID: usize = 16;

/// Why MLS refused.
#[derive(Debug, Error)]
pub enum MlsFailure {
    /// mls-rs refused it.
    #[error("MLS: {0}")]
    Library(#[from] MlsError),
    /// Bytes that are not a message of the expected kind.
    #[error("not the expected kind of MLS message")]
    Kind,
    /// A credential without author key, or with a name that is too long or not UTF-8.
    #[error("unusable credential")]
    Credential,
    /// Sent by a member that is not the entry's author, or a commit of one that is not the owner.
    #[error("from another member")]
    Sender,
    /// The member to remove does not exist.
    #[error("no member")]
    NoMember,
    /// A stored state or key package that cannot be read.
    #[error("unreadable MLS state")]
    State,
}

impl From<mls_rs_codec::Error> for MlsFailure {
    fn from(error: mls_rs_codec::Error) -> Self {
        Self::Library(error.into())
    }
}

/// A leaf's identity: the author key, and the name that its holder states, unproven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub author: PeerId,
    pub name: String,
}

impl Who {
    fn credential(&self) -> BasicCredential {
        let mut bytes = self.author.public_key().to_vec();
        bytes.extend_from_slice(self.name.as_bytes());
        BasicCredential::new(bytes)
    }

    fn of(identity: &SigningIdentity) -> Result<Self, MlsFailure> {
        let bytes = identity
            .credential
            .as_basic()
            .ok_or(MlsFailure::Credential)?;
        let (author, name) = bytes
            .identifier()
            .split_first_chunk::<AUTHOR>()
            .ok_or(MlsFailure::Credential)?;
        let author = PeerId::from_public_key(*author).map_err(|_| MlsFailure::Credential)?;
        let name = std::str::from_utf8(name).map_err(|_| MlsFailure::Credential)?;
        if name.len() > MAX_NAME {
            return Err(MlsFailure::Credential);
        }
        // the name becomes one line
        let name = librecast::plain::clean(&name.replace('\t', " "));
        Ok(Self { author, name })
    }
}

/// A key package and its secrets: used by one Welcome, then dropped.
pub(crate) struct OwnKeyPackage {
    /// The MLS message for the owner.
    pub public: Vec<u8>,
    id: Vec<u8>,
    data: KeyPackageData,
    signer: SignatureSecretKey,
}

impl OwnKeyPackage {
    /// Creates one for `who`, with a new signature key, at `now`.
    #[cfg(test)]
    pub fn new(provider: &Provider, who: &Who, now: UnixTime) -> Result<Self, MlsFailure> {
        Self::with(provider, who, None, now)
    }

    /// The same, with the extension of a device in its leaf.
    pub fn with(
        provider: &Provider,
        who: &Who,
        vouch: Option<&[u8]>,
        now: UnixTime,
    ) -> Result<Self, MlsFailure> {
        let (identity, signer) = new_leaf(provider, who)?;
        let shelf = Shelf::default();
        let mut extensions = ExtensionList::new();
        if let Some(vouch) = vouch {
            extensions.set(Extension::new(VOUCH, vouch.to_vec()));
        }
        let message = builder(provider, &shelf)
            .signing_identity(identity, signer.clone(), SUITE)
            // only in leaves with the extension: others have the same bytes as ever
            .extension_types(vouch.map(|_| VOUCH))
            .key_package_lifetime(KEY_PACKAGE_LIFE)
            .build()
            .generate_key_package_message(
                ExtensionList::new(),
                extensions,
                Some(MlsTime::from(now.as_secs().saturating_sub(CLOCK_SKEW))),
            )?;
        let (id, data) = shelf.take_key_package().ok_or(MlsFailure::State)?;
        let public = message.to_bytes()?;
        Ok(Self {
            public,
            id,
            data,
            signer,
        })
    }

    /// Whether an MLS Welcome is for it; `false` for bytes that are no Welcome.
    pub fn is_awaited_by(&self, provider: &Provider, welcome: &[u8]) -> bool {
        let Ok(welcome) = MlsMessage::from_bytes(welcome) else {
            return false;
        };
        let own = key_package(&self.public);
        let own = own.and_then(|own| Ok(own.key_package_reference(provider)?));
        let Ok(Some(own)) = own else { return false };
        let references = welcome.welcome_key_package_references();
        references.into_iter().any(|reference| *reference == own)
    }

    /// As bytes for the state: public, id, data, signature key.
    pub fn save(&self) -> Result<[Zeroizing<Vec<u8>>; 4], MlsFailure> {
        Ok([
            self.public.clone().into(),
            self.id.clone().into(),
            self.data.mls_encode_to_vec()?.into(),
            self.signer.as_bytes().to_vec().into(),
        ])
    }

    /// Reads the output of [`Self::save`].
    pub fn load([public, id, data, signer]: [&[u8]; 4]) -> Result<Self, MlsFailure> {
        let data = KeyPackageData::mls_decode(&mut &*data).map_err(|_| MlsFailure::State)?;
        Ok(Self {
            public: public.to_vec(),
            id: id.to_vec(),
            data,
            signer: SignatureSecretKey::new_slice(signer),
        })
    }
}

/// The identity in a key package, if it can be committed at `now`.
pub(crate) fn check_key_package(
    provider: &Provider,
    bytes: &[u8],
    now: UnixTime,
) -> Result<Who, MlsFailure> {
    let message = key_package(bytes)?;
    let package = message.as_key_package().ok_or(MlsFailure::Kind)?;
    let who = Who::of(package.signing_identity())?;
    // mls-rs checks signature, lifetime and capabilities only in a commit: a trial group commits it
    let nobody = Who {
        author: librecast::id::SecretKey::from_seed(&[0; 32]).peer_id(),
        name: String::new(),
    };
    let mut trial = Mls::create(provider, &nobody, now)?.group;
    let builder = trial.commit_builder().commit_time(time(now));
    builder.add_member(message)?.build()?;
    Ok(who)
}

/// The name in a key package; empty if the bytes are none.
pub(crate) fn name_in(package: &[u8]) -> String {
    let message = key_package(package).ok();
    let package = message.as_ref().and_then(MlsMessage::as_key_package);
    let who = package.and_then(|package| Who::of(package.signing_identity()).ok());
    who.map(|who| who.name).unwrap_or_default()
}

/// The extension of a device in a key package.
pub(crate) fn vouch_in(package: &[u8]) -> Option<Vec<u8>> {
    let package = key_package(package).ok()?.into_key_package()?;
    vouch_of(&AddProposal::from(package).leaf_node_extensions())
}

fn vouch_of(extensions: &ExtensionList) -> Option<Vec<u8>> {
    Some(extensions.get(VOUCH)?.extension_data)
}

fn key_package(bytes: &[u8]) -> Result<MlsMessage, MlsFailure> {
    let message = MlsMessage::from_bytes(bytes)?;
    // mls-rs checks neither the version (MLS 1.0) nor trailing bytes
    let exact = bytes.starts_with(&[0, 1]) && message.to_bytes()?.len() == bytes.len();
    let right = exact && message.wire_format() == WireFormat::KeyPackage;
    right.then_some(message).ok_or(MlsFailure::Kind)
}

fn time(now: UnixTime) -> MlsTime {
    MlsTime::from(now.as_secs())
}

/// The members that a commit adds and removes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub added: Vec<Who>,
    pub removed: Vec<PeerId>,
    /// This member's leaf is gone.
    pub removed_self: bool,
}

/// The owner's output of a commit.
#[derive(Debug)]
pub(crate) struct Commit {
    /// PrivateMessage for the members of the epoch that ends.
    pub message: Vec<u8>,
    /// A Welcome for each added member.
    pub welcomes: Vec<(PeerId, Vec<u8>)>,
    /// The ratchet tree of the new epoch.
    pub tree: Vec<u8>,
    pub change: Change,
}

/// A member's MLS group.
pub(crate) struct Mls {
    group: mls_rs::Group<Config>,
    shelf: Shelf,
}

impl Mls {
    /// A new group of one: the owner.
    pub fn create(provider: &Provider, who: &Who, now: UnixTime) -> Result<Self, MlsFailure> {
        let (identity, signer) = new_leaf(provider, who)?;
        let id = provider
            .random_bytes_vec(GROUP_ID)
            .map_err(|e| MlsError::CryptoProviderError(e.into_any_error()))?;
        let shelf = Shelf::default();
        let group = builder(provider, &shelf)
            .signing_identity(identity, signer, SUITE)
            .build()
            .create_group_with_id(
                id,
                ExtensionList::new(),
                ExtensionList::new(),
                Some(time(now)),
            )?;
        Ok(Self { group, shelf })
    }

    /// Joins by a Welcome for `own` and the tree of its epoch. The same write of the state drops
    /// `own`.
    pub fn join(
        provider: &Provider,
        own: &OwnKeyPackage,
        welcome: &[u8],
        tree: &[u8],
        committer: Option<PeerId>,
    ) -> Result<Self, MlsFailure> {
        let welcome = MlsMessage::from_bytes(welcome)?;
        if welcome.wire_format() != WireFormat::Welcome {
            return Err(MlsFailure::Kind);
        }
        let tree = ExportedTree::from_bytes(tree)?;
        let shelf = Shelf::default();
        shelf.put_key_package(own.id.clone(), own.data.clone());
        let client = builder(provider, &shelf).signer(own.signer.clone()).build();
        // no time: the owner checked the lifetime of other leaves when it added them
        let (group, info) = client.join_group(Some(tree), &welcome, None)?;
        shelf.take_key_package();
        let joined = Self { group, shelf };
        match joined.may_commit(info.sender, committer) {
            true => Ok(joined),
            false => Err(MlsFailure::Sender),
        }
    }

    /// Removes and adds members in one commit, and applies the new epoch.
    pub fn commit(
        &mut self,
        provider: &Provider,
        remove: &[PeerId],
        add: &[Vec<u8>],
        now: UnixTime,
    ) -> Result<Commit, MlsFailure> {
        let mut next = self.group.clone();
        let mut removed = Vec::new();
        let mut builder = next.commit_builder().commit_time(time(now));
        for author in remove {
            builder = builder.remove_member(self.leaf_of(author).ok_or(MlsFailure::NoMember)?)?;
            removed.push(*author);
        }
        let (mut added, mut references) = (Vec::new(), Vec::new());
        for bytes in add {
            let message = key_package(bytes)?;
            let package = message.as_key_package().ok_or(MlsFailure::Kind)?;
            let who = Who::of(package.signing_identity())?;
            let reference = message.key_package_reference(provider)?;
            references.push((who.author, reference.ok_or(MlsFailure::Kind)?));
            added.push(who);
            builder = builder.add_member(message)?;
        }
        let output = builder.build()?;
        next.apply_pending_commit()?;
        let mut welcomes = Vec::new();
        for welcome in &output.welcome_messages {
            for reference in welcome.welcome_key_package_references() {
                if let Some((author, _)) = references.iter().find(|(_, own)| own == reference) {
                    welcomes.push((*author, welcome.to_bytes()?));
                }
            }
        }
        let tree = next.export_tree().to_bytes()?;
        let message = output.commit_message.to_bytes()?;
        self.group = next;
        Ok(Commit {
            message,
            welcomes,
            tree,
            change: Change {
                added,
                removed,
                removed_self: false,
            },
        })
    }

    /// Whether [`Self::commit`] would succeed.
    pub fn can_commit(
        &self,
        provider: &Provider,
        remove: &[PeerId],
        add: &[Vec<u8>],
        now: UnixTime,
    ) -> bool {
        let (group, shelf) = (self.group.clone(), self.shelf.clone());
        let commit = Self { group, shelf }.commit(provider, remove, add, now);
        commit.is_ok()
    }

    /// Whether this leaf is in office: the first one for the owner (`None`), or the leaf of this
    /// author.
    fn may_commit(&self, leaf: u32, committer: Option<PeerId>) -> bool {
        let Some(author) = committer else {
            return leaf == OWNER;
        };
        let member = self.group.member_at_index(leaf);
        let who = member.and_then(|member| Who::of(member.signing_identity()).ok());
        who.is_some_and(|who| who.author == author)
    }

    /// Applies a commit of the one in office. A removed member stays in the old epoch.
    pub fn apply(
        &mut self,
        message: &[u8],
        committer: Option<PeerId>,
    ) -> Result<Change, MlsFailure> {
        let mut next = self.group.clone();
        let message = MlsMessage::from_bytes(message)?;
        // a PublicMessage would be readable for relays and holders
        if message.wire_format() != WireFormat::PrivateMessage {
            return Err(MlsFailure::Kind);
        }
        let ReceivedMessage::Commit(commit) = next.process_incoming_message(message)? else {
            return Err(MlsFailure::Kind);
        };
        if !self.may_commit(commit.committer, committer) || commit.is_external {
            return Err(MlsFailure::Sender);
        }
        let (epoch, removed_self) = match commit.effect {
            CommitEffect::NewEpoch(epoch) => (epoch, false),
            CommitEffect::Removed { new_epoch, .. } => (new_epoch, true),
            CommitEffect::ReInit(_) => return Err(MlsFailure::Kind),
        };
        let mut change = Change {
            removed_self,
            ..Change::default()
        };
        for applied in &epoch.applied_proposals {
            match &applied.proposal {
                Proposal::Add(add) => change.added.push(Who::of(add.signing_identity())?),
                Proposal::Remove(remove) => {
                    let member = self.group.member_at_index(remove.to_remove());
                    let member = member.ok_or(MlsFailure::NoMember)?;
                    change
                        .removed
                        .push(Who::of(member.signing_identity())?.author);
                }
                _ => return Err(MlsFailure::Kind),
            }
        }
        if !removed_self {
            self.group = next;
        }
        Ok(change)
    }

    /// Seals a message in the current epoch.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, MlsFailure> {
        let mut next = self.group.clone();
        let sealed = next
            .encrypt_application_message(plain, Vec::new())?
            .to_bytes()?;
        self.group = next;
        Ok(sealed)
    }

    /// Opens a message of `author` in the current epoch.
    pub fn open(
        &mut self,
        author: &PeerId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, MlsFailure> {
        let message = MlsMessage::from_bytes(sealed)?;
        if message.wire_format() != WireFormat::PrivateMessage {
            return Err(MlsFailure::Kind);
        }
        let mut next = self.group.clone();
        let ReceivedMessage::ApplicationMessage(opened) = next.process_incoming_message(message)?
        else {
            return Err(MlsFailure::Kind);
        };
        let member = next
            .member_at_index(opened.sender_index)
            .ok_or(MlsFailure::NoMember)?;
        if Who::of(member.signing_identity())?.author != *author {
            return Err(MlsFailure::Sender);
        }
        self.group = next;
        Ok(opened.data().to_vec().into())
    }

    /// Exports a secret of the current epoch (RFC 9420 §8.5).
    pub fn export(&self, label: &str, context: &[u8]) -> Result<Zeroizing<[u8; 32]>, MlsFailure> {
        let secret = self.group.export_secret(label.as_bytes(), context, 32)?;
        let secret = <[u8; 32]>::try_from(secret.as_bytes()).map_err(|_| MlsFailure::State)?;
        Ok(secret.into())
    }

    pub fn epoch(&self) -> u64 {
        self.group.current_epoch()
    }

    /// All members, the owner included.
    pub fn members(&self) -> Vec<Who> {
        let leaves = self.group.roster().members_iter();
        leaves
            .filter_map(|leaf| Who::of(leaf.signing_identity()).ok())
            .collect()
    }

    /// The owner: a group's creator has the first leaf.
    pub fn first(&self) -> Option<Who> {
        let first = self.group.member_at_index(OWNER)?;
        Who::of(first.signing_identity()).ok()
    }

    /// All members with the extension of a device, if their leaf has one.
    pub fn vouches(&self) -> Vec<(PeerId, Option<Vec<u8>>)> {
        let leaves = self.group.roster().members_iter();
        let vouch = |leaf: Member| {
            let author = Who::of(&leaf.signing_identity).ok()?.author;
            Some((author, vouch_of(&leaf.extensions)))
        };
        leaves.filter_map(vouch).collect()
    }

    fn leaf_of(&self, author: &PeerId) -> Option<u32> {
        let mut leaves = self.group.roster().members_iter();
        let leaf = leaves
            .find(|leaf| Who::of(leaf.signing_identity()).is_ok_and(|who| who.author == *author));
        leaf.map(|leaf| leaf.index())
    }

    /// Group id and state as bytes.
    pub fn save(&self) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), MlsFailure> {
        self.group.clone().write_to_storage()?;
        let state = self.shelf.state().ok_or(MlsFailure::State)?;
        Ok((self.group.group_id().to_vec(), state))
    }

    /// Reads the output of [`Self::save`].
    pub fn load(provider: &Provider, id: &[u8], state: &[u8]) -> Result<Self, MlsFailure> {
        let shelf = Shelf::default();
        shelf.put_state(state.to_vec().into());
        let group = builder(provider, &shelf)
            .build()
            .load_group(id)
            .map_err(|_| MlsFailure::State)?;
        Ok(Self { group, shelf })
    }
}

/// A new leaf's identity and signature key.
fn new_leaf(
    provider: &Provider,
    who: &Who,
) -> Result<(SigningIdentity, SignatureSecretKey), MlsFailure> {
    let (signer, public) = provider
        .signature_key_generate()
        .map_err(|e| MlsError::CryptoProviderError(e.into_any_error()))?;
    let credential = who.credential().into_credential();
    Ok((SigningIdentity::new(credential, public), signer))
}

type Config = WithMlsRules<
    MembersCommit,
    WithIdentityProvider<
        Authors,
        WithCryptoProvider<
            Provider,
            WithGroupStateStorage<Shelf, WithKeyPackageRepo<Shelf, BaseConfig>>,
        >,
    >,
>;

fn builder(provider: &Provider, shelf: &Shelf) -> ClientBuilder<Config> {
    Client::builder()
        .key_package_repo(shelf.clone())
        .group_state_storage(shelf.clone())
        .crypto_provider(provider.clone())
        .identity_provider(Authors)
        .mls_rules(MembersCommit)
}

/// Why a commit breaks the rules of our groups.
#[derive(Debug, Error)]
enum RuleError {
    #[error("only members commit")]
    NotAMember,
    #[error("only members are added and removed")]
    Proposal,
}

impl IntoAnyError for RuleError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

/// Allows only commits of members that add and remove members, as PrivateMessages: so holders
/// cannot read the list of members.
#[derive(Clone, Debug)]
struct MembersCommit;

impl MlsRules for MembersCommit {
    type Error = RuleError;

    fn filter_proposals(
        &self,
        _: CommitDirection,
        source: CommitSource,
        _: &Roster<'_>,
        _: &GroupContext,
        proposals: ProposalBundle,
    ) -> Result<ProposalBundle, RuleError> {
        match source {
            // the log of the commit says whose it has to be: `may_commit` compares
            CommitSource::ExistingMember(_) => {}
            _ => return Err(RuleError::NotAMember),
        }
        let known = proposals.add_proposals().len() + proposals.remove_proposals().len();
        if proposals.length() != known {
            return Err(RuleError::Proposal);
        }
        Ok(proposals)
    }

    fn commit_options(
        &self,
        _: &Roster<'_>,
        _: &GroupContext,
        _: &ProposalBundle,
    ) -> Result<CommitOptions, RuleError> {
        // each commit has a path, to renew the owner's leaf; a Welcome has one reader, to be short
        Ok(CommitOptions::new()
            .with_path_required(true)
            .with_ratchet_tree_extension(false)
            .with_single_welcome_message(false)
            .with_allow_external_commit(false))
    }

    fn encryption_options(
        &self,
        _: &Roster<'_>,
        _: &GroupContext,
    ) -> Result<EncryptionOptions, RuleError> {
        Ok(EncryptionOptions::new(true, PaddingMode::StepFunction))
    }
}

/// Credentials of our groups: [`Who`]. An author has one leaf.
#[derive(Clone, Debug)]
struct Authors;

impl IntoAnyError for MlsFailure {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

impl IdentityProvider for Authors {
    type Error = MlsFailure;

    fn validate_member(
        &self,
        identity: &SigningIdentity,
        _: Option<MlsTime>,
        _: MemberValidationContext<'_>,
    ) -> Result<(), MlsFailure> {
        Who::of(identity).map(drop)
    }

    fn validate_external_sender(
        &self,
        _: &SigningIdentity,
        _: Option<MlsTime>,
        _: Option<&ExtensionList>,
    ) -> Result<(), MlsFailure> {
        Err(MlsFailure::Sender)
    }

    fn identity(
        &self,
        identity: &SigningIdentity,
        _: &ExtensionList,
    ) -> Result<Vec<u8>, MlsFailure> {
        Ok(Who::of(identity)?.author.public_key().to_vec())
    }

    fn valid_successor(
        &self,
        before: &SigningIdentity,
        after: &SigningIdentity,
        _: &ExtensionList,
    ) -> Result<bool, MlsFailure> {
        Ok(Who::of(before)?.author == Who::of(after)?.author)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![BasicCredential::credential_type()]
    }
}

/// Storage of mls-rs for states and key packages, in memory; the group's own state includes them.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Shelved>>);

#[derive(Default)]
struct Shelved {
    state: Option<Zeroizing<Vec<u8>>>,
    key_packages: BTreeMap<Vec<u8>, KeyPackageData>,
}

impl Shelf {
    fn with<T>(&self, act: impl FnOnce(&mut Shelved) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the last written state.
    fn state(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.with(|shelved| shelved.state.take())
    }

    fn put_state(&self, state: Zeroizing<Vec<u8>>) {
        self.with(|shelved| shelved.state = Some(state));
    }

    fn put_key_package(&self, id: Vec<u8>, data: KeyPackageData) {
        self.with(|shelved| shelved.key_packages.insert(id, data));
    }

    fn take_key_package(&self) -> Option<(Vec<u8>, KeyPackageData)> {
        self.with(|shelved| shelved.key_packages.pop_first())
    }
}

impl GroupStateStorage for Shelf {
    type Error = Infallible;

    fn state(&self, _: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(Self::state(self))
    }

    fn epoch(&self, _: &[u8], _: u64) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(None)
    }

    fn write(
        &mut self,
        state: GroupState,
        _: Vec<EpochRecord>,
        _: Vec<EpochRecord>,
    ) -> Result<(), Infallible> {
        self.put_state(state.data);
        Ok(())
    }

    fn max_epoch_id(&self, _: &[u8]) -> Result<Option<u64>, Infallible> {
        Ok(None)
    }
}

impl KeyPackageStorage for Shelf {
    type Error = Infallible;

    fn delete(&mut self, id: &[u8]) -> Result<(), Infallible> {
        self.with(|shelved| shelved.key_packages.remove(id));
        Ok(())
    }

    fn insert(&mut self, id: Vec<u8>, data: KeyPackageData) -> Result<(), Infallible> {
        self.put_key_package(id, data);
        Ok(())
    }

    fn get(&self, id: &[u8]) -> Result<Option<KeyPackageData>, Infallible> {
        Ok(self.with(|shelved| shelved.key_packages.get(id).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use librecast::id::SecretKey;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn provider(seed: u8) -> Provider {
        Provider::new(Random::new(&[seed; 32]))
    }

    fn who(n: u8) -> Who {
        Who {
            author: SecretKey::from_seed(&[n; 32]).peer_id(),
            name: format!("member {n}"),
        }
    }

    fn package_of(n: u8) -> OwnKeyPackage {
        OwnKeyPackage::new(&provider(n), &who(n), NOW).unwrap()
    }

    /// Commits for the owner: removes these members, adds those packages.
    fn commit(owner: &mut Mls, removed: &[PeerId], added: &[Vec<u8>]) -> Commit {
        owner.commit(&provider(0), removed, added, NOW).unwrap()
    }

    /// An owner and `n` members.
    fn group(n: u8) -> (Mls, Vec<Mls>) {
        let mut owner = Mls::create(&provider(0), &who(0), NOW).unwrap();
        let packages: Vec<_> = (1..=n).map(package_of).collect();
        let add = packages.iter().map(|package| package.public.clone());
        let commit = commit(&mut owner, &[], &add.collect::<Vec<_>>());
        let join = |(package, (author, welcome)): (&OwnKeyPackage, &(PeerId, Vec<u8>))| {
            let keys = package.public.windows(32);
            assert_eq!(keys.filter(|key| key == author.public_key()).count(), 1);
            Mls::join(&provider(9), package, welcome, &commit.tree, None).unwrap()
        };
        let members = packages.iter().zip(&commit.welcomes).map(join).collect();
        (owner, members)
    }

    /// Trap: mls-rs consumes the key of a message before it authenticates the body.
    #[test]
    fn a_forged_body_does_not_keep_the_true_message_from_opening() {
        let (mut owner, mut members) = group(1);
        let sealed = owner.seal(b"true").unwrap();
        let mut forged = sealed.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(members[0].open(&who(0).author, &forged).is_err());
        // another member cannot pass it off as its own either
        let passed_off = members[0].open(&who(1).author, &sealed);
        assert!(matches!(passed_off, Err(MlsFailure::Sender)));
        let opened = members[0].open(&who(0).author, &sealed).unwrap();
        assert_eq!(&opened[..], b"true");
        // and no member opens it twice
        assert!(members[0].open(&who(0).author, &sealed).is_err());
    }

    #[test]
    fn a_forged_commit_does_not_keep_the_true_one_from_being_applied() {
        let (mut owner, mut members) = group(2);
        let commit = commit(&mut owner, &[], &[]).message;
        let mut forged = commit.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(members[0].apply(&forged, None).is_err());
        members[0].apply(&commit, None).unwrap();
        assert_eq!(members[0].epoch(), owner.epoch());
    }

    #[test]
    fn a_member_that_commits_is_refused() {
        let (owner, mut members) = group(2);
        // a commit counts for the one that the log of it names, and for no other
        let mine = members[1].save().unwrap();
        let own = members[1].commit(&provider(1), &[], &[], NOW);
        let own = own.unwrap().message;
        members[1] = Mls::load(&provider(1), &mine.0, &mine.1).unwrap();
        let mut other = {
            let (id, state) = members[0].save().unwrap();
            Mls::load(&provider(0), &id, &state).unwrap()
        };
        for wrong in [None, Some(who(1).author), Some(who(9).author)] {
            assert!(other.apply(&own, wrong).is_err());
        }
        other.apply(&own, Some(who(2).author)).unwrap();
        // nor one of a program without rules
        let (id, state) = members[1].save().unwrap();
        let shelf = Shelf::default();
        shelf.put_state(state);
        let mut lawless = Client::builder()
            .key_package_repo(shelf.clone())
            .group_state_storage(shelf)
            .crypto_provider(provider(3))
            .identity_provider(Authors)
            .mls_rules(
                mls_rs::mls_rules::DefaultMlsRules::new()
                    .with_encryption_options(EncryptionOptions::new(true, PaddingMode::None)),
            )
            .build()
            .load_group(&id)
            .unwrap();
        let commit = lawless
            .commit(Vec::new())
            .unwrap()
            .commit_message
            .to_bytes()
            .unwrap();
        let before = members[0].epoch();
        assert!(members[0].apply(&commit, None).is_err());
        assert_eq!(members[0].epoch(), before);
        drop(owner);
    }

    /// Trap: PublicMessages, proposals by reference, and all but Add and Remove are off.
    #[test]
    fn an_owner_that_breaks_the_rules_is_refused() {
        let (owner, mut members) = group(1);
        let (id, state) = owner.save().unwrap();
        let lawless = |private: bool| {
            let shelf = Shelf::default();
            shelf.put_state(state.clone());
            Client::builder()
                .key_package_repo(shelf.clone())
                .group_state_storage(shelf)
                .crypto_provider(provider(3))
                .identity_provider(Authors)
                .mls_rules(
                    mls_rs::mls_rules::DefaultMlsRules::new().with_encryption_options(
                        EncryptionOptions::new(private, PaddingMode::None),
                    ),
                )
                .build()
                .load_group(&id)
                .unwrap()
        };
        let public = lawless(false).commit(Vec::new()).unwrap().commit_message;
        assert!(matches!(
            members[0].apply(&public.to_bytes().unwrap(), None),
            Err(MlsFailure::Kind)
        ));
        let mut group = lawless(true);
        let builder = group
            .commit_builder()
            .set_group_context_ext(ExtensionList::new());
        let context = builder
            .unwrap()
            .build()
            .unwrap()
            .commit_message
            .to_bytes()
            .unwrap();
        assert!(members[0].apply(&context, None).is_err());
        let good = lawless(true).commit(Vec::new()).unwrap().commit_message;
        members[0].apply(&good.to_bytes().unwrap(), None).unwrap();
    }

    /// Trap: mls-rs keeps the key package of a Welcome until its storage is written.
    #[test]
    fn who_joined_keeps_no_key_package() {
        let (_, members) = group(1);
        assert!(members[0].shelf.take_key_package().is_none());
    }

    /// Trap: each message carries the id in clear, so the id must be no known value.
    #[test]
    fn messages_say_nothing_of_who_is_in_which_group() {
        let (mut owner, _) = group(2);
        let sealed = [
            owner.seal(b"secret words").unwrap(),
            commit(&mut owner, &[who(2).author], &[]).message,
        ];
        for sealed in sealed {
            for n in 0..3 {
                let (key, name) = (*who(n).author.public_key(), who(n).name);
                assert!(!sealed.windows(32).any(|w| w == key));
                assert!(!sealed.windows(name.len()).any(|w| w == name.as_bytes()));
            }
            assert!(!sealed.windows(12).any(|w| w == b"secret words"));
        }
    }

    #[test]
    fn who_is_removed_does_not_open_the_next_epoch() {
        let (mut owner, mut members) = group(2);
        let commit = commit(&mut owner, &[who(2).author], &[]);
        let change = members[1].apply(&commit.message, None).unwrap();
        assert!(change.removed_self);
        members[0].apply(&commit.message, None).unwrap();
        let sealed = owner.seal(b"without you").unwrap();
        assert!(members[1].open(&who(0).author, &sealed).is_err());
        assert!(members[0].open(&who(0).author, &sealed).is_ok());
        let secret = |of: &Mls| of.export("x", b"").unwrap();
        assert_ne!(secret(&owner), secret(&members[1]));
        assert_eq!(secret(&owner), secret(&members[0]));
    }

    #[test]
    fn key_packages_are_checked_before_they_are_committed() {
        let package = package_of(1).public;
        let check = |package: &[u8], time| check_key_package(&provider(0), package, time);
        assert_eq!(check(&package, NOW).unwrap(), who(1));
        let year = 365 * 24 * 3_600_000;
        for late in [NOW.as_millis() + year, NOW.as_millis() - year] {
            assert!(check(&package, UnixTime::from_millis(late)).is_err());
        }
        for at in 0..package.len() {
            let mut forged = package.clone();
            forged[at] ^= 1;
            assert!(check(&forged, NOW).is_err(), "byte {at}");
        }
        let mut longer = package;
        longer.push(0);
        assert!(check(&longer, NOW).is_err());
    }
}
