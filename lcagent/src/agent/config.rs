//! `/etc/lcagent/lcagent.toml`.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use librecast_program::book::{Book, HOST_BOOK, KeyRef};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::config;
use librecast_program::metrics::{self, Listen};
use librecast_program::units::{parse_duration, parse_size};
use nix::unistd::geteuid;
use serde::Deserialize;

use super::core::Settings;
use super::modules::DEFAULT_FOLDER;
use super::policy::Allow;
use crate::pattern::Pattern;
use crate::record::{MAX_LABELS, NodeInfo, is_name};

/// Default path.
pub const DEFAULT_PATH: &str = "/etc/lcagent/lcagent.toml";
/// The default channel.
pub const DEFAULT_CHANNEL: &str = "lcagent";
/// Longest label in bytes.
const MAX_LABEL: usize = 128;

/// The content of the file.
#[derive(Debug, Clone)]
pub struct Config {
    /// The core's part: name, labels and policy.
    pub settings: Settings,
    /// Interfaces; empty for all.
    pub interfaces: Vec<String>,
    /// Name of the channel whose group carries commands.
    pub channel: String,
    /// Folder of the modules.
    pub modules: PathBuf,
    /// Addresses that serve metrics.
    pub metrics: Option<Listen>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    name: Option<String>,
    labels: BTreeMap<String, String>,
    interface: OneOrMany,
    channel: Option<String>,
    modules: Option<PathBuf>,
    metrics: metrics::Config,
    allow: Vec<FileAllow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAllow {
    key: KeyRef,
    name: Option<String>,
    commands: Vec<String>,
    user: Option<String>,
    timeout: Option<String>,
    output: Option<String>,
    memory: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Config {
    /// Reads `path`, or the default file, which need not exist.
    pub fn load(path: Option<&Path>) -> Result<Self, ExitError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let text = match read_owned(file) {
            Err(_) if path.is_none() && matches!(file.try_exists(), Ok(false)) => String::new(),
            text => text?,
        };
        Self::parse(&file.display().to_string(), &text)
    }

    /// Parses the text of a file called `file`; errors name file, line and key.
    pub fn parse(file: &str, text: &str) -> Result<Self, ExitError> {
        Self::parse_with(file, text, Path::new(HOST_BOOK))
    }

    /// Parses a file's text. `book`: the address book with the names of keys.
    fn parse_with(file: &str, text: &str, book: &Path) -> Result<Self, ExitError> {
        let read: File = config::parse(file, text)?;
        let is_named = |allow: &FileAllow| matches!(allow.key, KeyRef::Book(_));
        let book = match read.allow.iter().any(is_named) {
            true => Book::load(book)?,
            false => Book::default(),
        };
        read.check(&book).map_err(|(key, why)| {
            // the first line that begins with the key; a table's key stands for its values
            let at = text.lines().position(|l| l.trim_start().starts_with(key));
            usage(format!("{file}:{}: {key}: {why}", at.map_or(1, |n| n + 1)))
        })
    }
}

/// Reads the configuration. Write access to it grants all rights of this process, so only this user
/// and root may have it, as with modules and keys.
fn read_owned(path: &Path) -> Result<String, ExitError> {
    let shown = path.display();
    let failed = |e: io::Error| {
        let exit = match e.kind() {
            io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Usage,
        };
        ExitError::new(exit, format!("{shown}: {e}"))
    };
    let refused = |what: &Path, why: String| {
        let message = format!(
            "{}: {why}: they decide who may run commands here",
            what.display()
        );
        ExitError::new(Exit::NotPermitted, message)
    };
    let mut file = fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    // the caller vouches for a descriptor that he handed to this process
    let is_handed = !meta.is_file() || path.starts_with("/dev") || path.starts_with("/proc");
    if !is_handed {
        check_owner(&meta).map_err(|why| refused(path, why))?;
        // checked where a link leads: its folder permits replacing the file
        let real = path.canonicalize().map_err(failed)?;
        if let Some(folder) = real.parent() {
            let meta = fs::metadata(folder).map_err(failed)?;
            check_owner(&meta).map_err(|why| refused(folder, why))?;
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Returns why users other than root and this one can change a file, or a folder's files.
fn check_owner(meta: &Metadata) -> Result<(), String> {
    /// Mode bit of a folder that lets only a file's owner remove it (`S_ISVTX`, inode(7)).
    const STICKY: u32 = 0o1000;
    // in a sticky folder like /tmp nobody can replace another user's file
    let is_shared = meta.is_dir() && meta.mode() & STICKY != 0;
    check_writers(meta, is_shared)
}

/// Returns why users other than root and this one can write; `shared`: the mode does not matter.
pub(super) fn check_writers(meta: &Metadata, shared: bool) -> Result<(), String> {
    if ![0, geteuid().as_raw()].contains(&meta.uid()) {
        return Err(format!(
            "belongs to user {}, neither to root nor to this user",
            meta.uid()
        ));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 && !shared {
        return Err(format!(
            "others may write to it (mode {mode:o}; chmod go-w it)"
        ));
    }
    Ok(())
}

fn usage(message: String) -> ExitError {
    ExitError::new(Exit::Usage, message)
}

type Wrong = (&'static str, String);

impl File {
    fn check(self, book: &Book) -> Result<Config, Wrong> {
        let name = match self.name {
            Some(name) => name,
            None => host_name(),
        };
        if !is_name(&name) {
            let why = format!("{name:?} is not a name: letters, digits and -_.:@, at most 63");
            return Err(("name", why));
        }
        check_labels(&self.labels)?;
        let policy: Vec<Vec<Allow>> = (self.allow.into_iter())
            .map(|allow| allow.check(book))
            .collect::<Result<_, _>>()?;
        Ok(Config {
            settings: Settings {
                node: NodeInfo {
                    name,
                    labels: self.labels,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                },
                policy: policy.concat(),
            },
            interfaces: match self.interface {
                OneOrMany::None => Vec::new(),
                OneOrMany::One(name) => vec![name],
                OneOrMany::Many(names) => names,
            },
            channel: self.channel.unwrap_or_else(|| DEFAULT_CHANNEL.to_owned()),
            modules: self.modules.unwrap_or_else(|| DEFAULT_FOLDER.into()),
            metrics: self.metrics.listen,
        })
    }
}

impl FileAllow {
    /// Returns the permissions of each key of the entry. A name that the book lacks has none.
    fn check(self, book: &Book) -> Result<Vec<Allow>, Wrong> {
        check_labels(&self.labels)?;
        let pattern = |text: &String| {
            Pattern::parse(text).ok_or(("commands", "an empty pattern allows nothing".to_owned()))
        };
        let time = self.timeout.as_deref().map(parse_duration).transpose();
        let memory = self.memory.as_deref().map(parse_size).transpose();
        let output = self.output.as_deref().map(parse_size).transpose();
        let keys = match self.key {
            KeyRef::Key(key) => vec![key],
            KeyRef::Book(name) => {
                let keys = book.meant_by(&name);
                if keys.is_empty() {
                    tracing::warn!("[[allow]]: {HOST_BOOK} has no {name:?}");
                }
                keys
            }
        };
        let commands: Vec<Pattern> = self
            .commands
            .iter()
            .map(pattern)
            .collect::<Result<_, _>>()?;
        let time = time.map_err(|e| ("timeout", e.to_string()))?;
        let output = output.map_err(|e| ("output", e.to_string()))?;
        let memory = memory.map_err(|e| ("memory", e.to_string()))?;
        let of_key = |key| Allow {
            key,
            name: self.name.clone(),
            commands: commands.clone(),
            user: self.user.clone(),
            time,
            output,
            memory,
            labels: self.labels.clone(),
        };
        Ok(keys.into_iter().map(of_key).collect())
    }
}

/// Adds `more` labels to a node's own: new ones that a selector can name, while there is room.
pub fn add_labels(labels: &mut BTreeMap<String, String>, more: &BTreeMap<String, String>) {
    for (label, value) in more {
        let fits = label.len() <= MAX_LABEL && value.len() <= MAX_LABEL;
        if labels.len() < MAX_LABELS && fits && can_be_named(label, value) {
            labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn can_be_named(label: &str, value: &str) -> bool {
    let plain = |text: &str| !text.chars().any(|c| c.is_whitespace() || c.is_control());
    !label.is_empty() && plain(label) && plain(value) && !label.contains(['=', ',', '+'])
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Wrong> {
    if labels.len() > MAX_LABELS {
        return Err(("labels", format!("more than {MAX_LABELS}")));
    }
    for (label, value) in labels {
        if !can_be_named(label, value) {
            return Err((
                "labels",
                format!("{label:?} = {value:?}: no selector can name it"),
            ));
        }
        if label.len() > MAX_LABEL || value.len() > MAX_LABEL {
            return Err(("labels", format!("{label:?}: more than {MAX_LABEL} bytes")));
        }
    }
    Ok(())
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|n| n.into_string().ok())
        .filter(|n| is_name(n))
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KEY: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

    #[test]
    fn everything_of_the_contract_is_read() {
        let text = format!(
            "name = \"web-1\"\nlabels = {{ role = \"web\" }}\ninterface = \"lan0\"\nchannel = \"ops\"\nmodules = \"/srv/modules\"\n\
             [[allow]]\nkey = \"{KEY}\"\nname = \"alice\"\ncommands = [\"uptime\", \"systemctl restart *\"]\n\
             user = \"nobody\"\ntimeout = \"10m\"\noutput = \"1Mi\"\nmemory = \"1G\"\nlabels = {{ role = \"web*\" }}\n\
             [metrics]\nlisten = \"127.0.0.1:9118\"\n"
        );
        let config = Config::parse("f", &text).unwrap();
        assert_eq!(config.settings.node.name, "web-1");
        assert_eq!(config.interfaces, ["lan0"]);
        assert_eq!(config.channel, "ops");
        assert_eq!(config.modules, Path::new("/srv/modules"));
        assert_eq!(config.metrics, "127.0.0.1:9118".parse().ok());
        let allow = &config.settings.policy[0];
        assert_eq!(allow.key.to_string(), KEY);
        assert_eq!(allow.name.as_deref(), Some("alice"));
        assert_eq!(allow.commands.len(), 2);
        assert_eq!(allow.time, Some(Duration::from_secs(600)));
        assert_eq!(allow.output, Some(1 << 20));
        assert_eq!(allow.memory, Some(1_000_000_000));
    }

    #[test]
    fn labels_of_the_network_are_added_and_do_not_replace() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
            owned.collect()
        };
        let mut labels = of(&[("role", "web")]);
        add_labels(
            &mut labels,
            &of(&[
                ("role", "db"),
                ("site", "berlin"),
                ("a b", "c"),
                ("x", "y z"),
            ]),
        );
        assert_eq!(labels, of(&[("role", "web"), ("site", "berlin")]));
        let many: BTreeMap<String, String> =
            (0..100).map(|n| (n.to_string(), String::new())).collect();
        add_labels(&mut labels, &many);
        assert_eq!(labels.len(), MAX_LABELS);
    }

    #[test]
    fn a_configuration_that_others_can_change_is_refused() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("etc");
        let file = folder.join("lcagent.toml");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "name = \"a\"\n").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let load = |path: &Path| Config::load(Some(path)).map(|c| c.settings.node.name);
        let refused = |path: &Path, named: &Path| {
            let error = load(path).unwrap_err();
            assert_eq!(error.exit, Exit::NotPermitted);
            let named = format!("{}: ", named.display());
            assert!(error.to_string().starts_with(&named), "{error}");
        };
        mode(&folder, 0o755);
        for (bits, good) in [
            (0o600, true),
            (0o644, true),
            (0o666, false),
            (0o664, false),
            (0o646, false),
        ] {
            mode(&file, bits);
            match good {
                true => assert_eq!(load(&file).unwrap(), "a"),
                false => refused(&file, &file),
            }
        }
        mode(&file, 0o644);
        let link = dir.path().join("link.toml");
        symlink(&file, &link).unwrap();
        assert!(load(&link).is_ok());
        for bits in [0o775, 0o777] {
            mode(&folder, bits);
            refused(&file, &folder);
            refused(&link, &folder);
        }
        mode(&folder, 0o1777);
        assert!(load(&file).is_ok(), "nobody can replace it there");
        mode(&folder, 0o755);
        // passed as a descriptor: the user's `<(...)` and `3< FILE`
        mode(&file, 0o666);
        let open = fs::File::open(&file).unwrap();
        let handed = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        assert_eq!(load(Path::new(&handed)).unwrap(), "a");
        mode(&file, 0o644);
        if chown(&file, Some(65_534), None).is_ok() {
            refused(&file, &file);
        }
        assert_eq!(load(&folder.join("none")).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn nothing_allows_nothing() {
        let config = Config::parse("f", "").unwrap();
        assert!(config.settings.policy.is_empty());
        assert_eq!(config.channel, DEFAULT_CHANNEL);
        assert!(is_name(&config.settings.node.name));
    }

    #[test]
    fn names_of_the_book_are_the_keys_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let book = dir.path().join("book.toml");
        let other = librecast::id::SecretKey::from_seed(&[5; 32]).peer_id();
        let contact = |name: &str, key: &str| {
            format!("[[contact]]\nname = \"{name}\"\nkey = \"{key}\"\nfor = [\"admin\"]\n")
        };
        let both = contact("jo", KEY) + &contact("mum", &other.to_string());
        let keys = |who: &str| -> Vec<String> {
            let text = format!("[[allow]]\nkey = \"{who}\"\ncommands = [\"*\"]\n");
            let policy = Config::parse_with("f", &text, &book)
                .unwrap()
                .settings
                .policy;
            policy.iter().map(|allow| allow.key.to_string()).collect()
        };
        assert!(keys("book:jo").is_empty(), "there is no book");
        fs::write(&book, both).unwrap();
        assert_eq!(keys("book:jo"), [KEY]);
        assert_eq!(keys("book:admin"), [KEY.to_owned(), other.to_string()]);
        assert!(keys("book:nobody").is_empty());
        fs::write(&book, "nonsense").unwrap();
        assert_eq!(keys(KEY), [KEY], "which needs no book");
        let text = "[[allow]]\nkey = \"book:jo\"\ncommands = [\"*\"]\n";
        let error = Config::parse_with("f", text, &book).unwrap_err();
        assert!(error.to_string().contains("book.toml"), "{error}");
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let allow = format!("[[allow]]\nkey = \"{KEY}\"\n");
        for (text, expected) in [
            ("name = \"a\"\nnmae = \"b\"\n".to_owned(), "f:2: nmae"),
            ("name = \"a b\"\n".to_owned(), "f:1: name"),
            ("\nlabels = { \"a=b\" = \"c\" }\n".to_owned(), "f:2: labels"),
            (
                "[[allow]]\nkey = \"12D3\"\ncommands = []\n".to_owned(),
                "f:2: key",
            ),
            (format!("{allow}commands = [\" \"]\n"), "f:3: commands"),
            (
                format!("{allow}commands = []\ntimeout = \"5\"\n"),
                "f:4: timeout",
            ),
        ] {
            let error = Config::parse("f", &text).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
