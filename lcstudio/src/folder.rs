//! The folder of a session.
//!
//! ```text
//! session.toml    title, presenter, languages, caption writers           presenter
//! slides.md       slides, with `---` between them                        presenter
//! images/         pictures that slides name                              presenter
//! audio-en.key    the key of the station with the sound, for lcradio     presenter
//! session         the session's text                                     presenter, `hold`
//! log/            entries, a file for each track                         presenter, `hold`
//! screen/         pictures of the presenter's screen, as they came       `hold`
//! camera.webm     the presenter's camera, as it came                    `hold`
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, FileType};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use lcradio_core::StationKey;
use lcstudio_core::{
    FrontMatter, Language, MAX_PICTURE, MAX_PICTURES, MAX_PICTURES_BYTES, Picture, PictureError,
    Place, Session, SessionKey, Slide, clean_line,
};
use librecast::durable;
use librecast::id::{PeerId, SecretKey};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::keyfile::{load_signing_key, public_key};
use librecast_program::{config, state_lock::StateLock};
use nix::libc::O_NONBLOCK;
use serde::Deserialize;
use toml_edit::{Array, DocumentMut, value};

const SETTINGS: &str = "session.toml";
const SLIDES: &str = "slides.md";
const SESSION: &str = "session";
const LOG: &str = "log";

/// Longest file of slides, in bytes: 500 slides of 64 KiB.
const MAX_SLIDES_FILE: u64 = 32 << 20;

const FIRST_SLIDES: &str = "\
# TITLE

Write slides here, with a line of three dashes between them:

---

## What helps who listens

- Say in words what a picture shows: `![two bees that dance](images/dance.png)`
- One thought a slide
";

const FIRST_SETTINGS: &str = "\
# true: all who attend write notes together
notes = false

# true: lcstudio screen may show a screen, as pictures that lose nothing
screen = false

# true: lcstudio camera may show a camera
camera = false

# Who else writes captions, by the public half of a key of his own (lcstudio keygen, or book:NAME):
# [[captions]]
# language = \"en\"
# key = \"12D3KooW...\"
";

/// `session.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    title: String,
    #[serde(default)]
    presenter: String,
    languages: Vec<String>,
    #[serde(default)]
    sound: Vec<String>,
    #[serde(default)]
    captions: Vec<Captions>,
    #[serde(default)]
    notes: bool,
    #[serde(default)]
    screen: bool,
    #[serde(default)]
    camera: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Captions {
    language: String,
    key: String,
}

/// Settings of the presenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Title of the session.
    pub title: String,
    /// Name of the presenter.
    pub presenter: String,
    /// Languages of captions.
    pub languages: Vec<Language>,
    /// Languages with sound.
    pub sound: Vec<Language>,
    /// Further caption writers.
    pub captions: Vec<(Language, PeerId)>,
    /// Whether all attenders write notes.
    pub notes: bool,
    /// Whether the presenter may show a screen.
    pub screen: bool,
    /// Whether the presenter may show a camera.
    pub camera: bool,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

fn in_file(path: &Path) -> impl Fn(io::Error) -> anyhow::Error + '_ {
    move |e| anyhow::Error::new(e).context(path.display().to_string())
}

impl Folder {
    /// This folder.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `new`: creates the files that the presenter will edit.
    pub fn create(
        path: &Path,
        key: &SessionKey,
        title: &str,
        languages: &[Language],
    ) -> anyhow::Result<Self> {
        let folder = Self::new(path);
        let settings = path.join(SETTINGS);
        if settings.exists() {
            let message = format!("{} is there already", settings.display());
            return Err(ExitError::new(Exit::Failed, message).into());
        }
        make_folder(path)?;
        make_folder(&path.join("images"))?;
        let mut document = DocumentMut::new();
        let tags: Array = languages.iter().map(Language::tag).collect();
        document["title"] = value(title);
        document["presenter"] = value("");
        document["languages"] = value(tags.clone());
        document["sound"] = value(tags);
        let text = format!("{document}\n{FIRST_SETTINGS}");
        fs::write(&settings, text).map_err(in_file(&settings))?;
        let slides = path.join(SLIDES);
        if !slides.exists() {
            let text = FIRST_SLIDES.replace("TITLE", title);
            fs::write(&slides, text).map_err(in_file(&slides))?;
        }
        for language in languages {
            folder.station(key, language)?;
        }
        folder.keep_session(&key.session())?;
        Ok(folder)
    }

    /// Reads the settings; front matter of the slides completes them.
    pub fn settings(&self) -> Result<Settings, ExitError> {
        let path = self.0.join(SETTINGS);
        let file: SettingsFile = config::read(&path)?;
        let language = |key: &str, text: &str| {
            let wrong = |e| format!("{}: {key}: {text}: {e}", path.display());
            let parsed: Result<Language, _> = text.parse();
            parsed.map_err(|e| ExitError::new(Exit::Usage, wrong(e)))
        };
        let all = |key: &str, tags: &[String]| {
            let mut all = Vec::new();
            for tag in tags {
                let tag = language(key, tag)?;
                if !all.contains(&tag) {
                    all.push(tag);
                }
            }
            Ok(all)
        };
        let mut captions = Vec::new();
        for Captions { language: tag, key } in &file.captions {
            captions.push((language("language", tag)?, public_key(key)?));
        }
        let mut languages: Vec<Language> = all("languages", &file.languages)?;
        let more = captions.iter().map(|(language, _)| language.clone());
        let more: Vec<_> = more.filter(|tag| !languages.contains(tag)).collect();
        languages.extend(more);
        // missing or unreadable slides are reported elsewhere
        let about = self.front_matter().unwrap_or_default();
        let (mut title, mut presenter) = (clean_line(&file.title), clean_line(&file.presenter));
        let is_given = !title.is_empty() && title != default_title(&self.0);
        if !is_given && !about.title.is_empty() {
            title = clean_line(&about.title);
        }
        if presenter.is_empty() {
            presenter = clean_line(&about.author);
        }
        Ok(Settings {
            title,
            presenter,
            languages,
            sound: all("sound", &file.sound)?,
            captions,
            notes: file.notes,
            screen: file.screen,
            camera: file.camera,
        })
    }

    /// Returns the path of the slides.
    pub fn slides_file(&self) -> PathBuf {
        self.0.join(SLIDES)
    }

    /// Reads and splits the slides.
    pub fn slides(&self) -> anyhow::Result<Vec<lcstudio_core::Slide>> {
        Ok(lcstudio_core::split(&self.slides_text()?))
    }

    /// Reads title and presenter of the slides' front matter.
    pub fn front_matter(&self) -> anyhow::Result<FrontMatter> {
        Ok(lcstudio_core::front_matter(&self.slides_text()?))
    }

    fn slides_text(&self) -> anyhow::Result<String> {
        let path = self.slides_file();
        let file = open_file(&path).map_err(in_file(&path))?;
        let mut bytes = Vec::new();
        let mut file = file.take(MAX_SLIDES_FILE + 1);
        file.read_to_end(&mut bytes).map_err(in_file(&path))?;
        if bytes.len() as u64 > MAX_SLIDES_FILE {
            let message = format!(
                "{}: more than {MAX_SLIDES_FILE} bytes are no slides",
                path.display()
            );
            return Err(ExitError::new(Exit::Failed, message).into());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the pictures of these slides. Returns them by name, and problems with their lines.
    pub fn pictures(&self, slides: &[Slide]) -> (BTreeMap<String, Picture>, Vec<(usize, String)>) {
        let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
        let (mut seen, mut bytes) = (BTreeSet::new(), 0);
        for (line, name) in names_of_pictures(slides) {
            if !seen.insert(name.clone()) {
                continue;
            }
            let picture = match self.picture(&name) {
                Ok(picture) => picture,
                Err(e) => {
                    problems.push((line, format!("picture {name}: {e}")));
                    continue;
                }
            };
            let all = bytes + picture.bytes().len();
            if found.len() < MAX_PICTURES && all <= MAX_PICTURES_BYTES {
                bytes = all;
                found.insert(name, picture);
            } else {
                problems.push((line, no_room(&name)));
            }
        }
        (found, problems)
    }

    fn picture(&self, name: &str) -> anyhow::Result<Picture> {
        let file = open_file(&self.0.join(name))?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        file.take(MAX_PICTURE as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_PICTURE {
            anyhow::bail!(PictureError::TooLong(length as usize));
        }
        Ok(Picture::new(bytes)?)
    }

    /// Returns the stamps of slides and their pictures.
    pub fn stamps(&self, slides: &[Slide]) -> Stamps {
        let names = names_of_pictures(slides).map(|(_, name)| name);
        let names: BTreeSet<String> = names.collect();
        let pictures = names.into_iter().map(|name| {
            let stamp = stamp(&self.0.join(&name));
            (name, stamp)
        });
        Stamps {
            slides: stamp(&self.slides_file()),
            pictures: pictures.collect(),
        }
    }

    /// Returns the station with the sound of a language. Creates its key in the folder, if missing.
    pub fn station(&self, key: &SessionKey, language: &Language) -> anyhow::Result<String> {
        let path = self.0.join(format!("audio-{language}.key"));
        if !path.exists() {
            SecretKey::from_seed(&key.station_seed(language))
                .store(&path)
                .with_context(|| path.display().to_string())?;
        }
        let seed = load_signing_key(&path)?.seed();
        Ok(StationKey::from_seed(&seed)
            .station(false)
            .encode()
            .to_string())
    }

    /// Stores the session's text in the folder, readable for its owner alone.
    pub fn keep_session(&self, session: &Session) -> anyhow::Result<()> {
        let path = self.0.join(SESSION);
        if path.exists() {
            if self.session()? == *session {
                return Ok(());
            }
            let message = format!("{}: the folder of another session", self.0.display());
            return Err(ExitError::new(Exit::Failed, message).into());
        }
        durable::replace(&path, session.encode().as_bytes()).map_err(in_file(&path))
    }

    /// Returns the path of the session's text.
    pub fn session_file(&self) -> PathBuf {
        self.0.join(SESSION)
    }

    /// Reads the session of this folder.
    pub fn session(&self) -> anyhow::Result<Session> {
        let path = self.0.join(SESSION);
        let text = zeroize::Zeroizing::new(fs::read_to_string(&path).map_err(in_file(&path))?);
        let session = Session::decode(&text).with_context(|| path.display().to_string())?;
        Ok(session)
    }

    /// Returns the path of the folder of pictures of the screen.
    pub fn screen(&self) -> PathBuf {
        self.0.join("screen")
    }

    /// Creates the folder of logs and locks it for this process.
    pub fn lock(&self) -> anyhow::Result<StateLock> {
        let path = self.0.join(LOG);
        make_folder(&path)?;
        Ok(StateLock::take(&path, "lcstudio")?)
    }

    /// Returns the file of a track's log.
    pub fn log(&self, place: &Place) -> PathBuf {
        self.0.join(LOG).join(place.to_string().replace('/', "-"))
    }

    /// Returns the path of a new recording in this language.
    pub fn recording(&self, language: &Language) -> PathBuf {
        self.new_file(&format!("audio-{language}"), "opus")
    }

    /// Returns the path of the file of this number, from 1, of the camera.
    pub fn camera(&self, number: u32) -> PathBuf {
        match number {
            ..=1 => self.0.join("camera.webm"),
            _ => self.0.join(format!("camera-{number}.webm")),
        }
    }

    fn new_file(&self, name: &str, extension: &str) -> PathBuf {
        let mut names = (2..).map(|n| format!("{name}-{n}.{extension}"));
        let mut path = self.0.join(format!("{name}.{extension}"));
        while path.exists() {
            let Some(name) = names.next() else { break };
            path = self.0.join(name);
        }
        path
    }
}

/// Opens a file for reading. Refuses pipes, devices and folders without waiting.
pub fn open_file(path: &Path) -> io::Result<File> {
    let refuse = |kind: FileType| {
        let kind = match kind {
            kind if kind.is_dir() => "a folder",
            kind if kind.is_fifo() => "a named pipe",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        };
        Err(io::Error::other(format!("this is {kind}, and no file")))
    };
    // opening a device may change it
    let known = fs::metadata(path)?.file_type();
    if !known.is_file() {
        return refuse(known);
    }
    // the file may have been replaced
    let file = File::options()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let opened = file.metadata()?.file_type();
    match opened.is_file() {
        true => Ok(file),
        false => refuse(opened),
    }
}

/// Last change and length of a file; `None`: it is missing.
pub type Stamp = Option<(SystemTime, u64)>;

/// Stamps of the presented files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamps {
    /// The slides.
    pub slides: Stamp,
    /// Pictures by name.
    pub pictures: BTreeMap<String, Stamp>,
}

fn stamp(path: &Path) -> Stamp {
    let known = fs::metadata(path).ok()?;
    Some((known.modified().ok()?, known.len()))
}

/// Returns each picture that a slide names, with the line of its slide.
fn names_of_pictures(slides: &[Slide]) -> impl Iterator<Item = (usize, String)> {
    slides.iter().flat_map(|slide| {
        let names = lcstudio_core::pictures(&slide.text).into_iter();
        names.map(|name| (slide.line, name))
    })
}

/// Returns the message for a picture without room.
pub fn no_room(name: &str) -> String {
    let most = MAX_PICTURES_BYTES >> 20;
    format!(
        "picture {name}: no room, at most {MAX_PICTURES} pictures and {most} MiB of them are sent"
    )
}

/// Returns the title of a session created without one: the name of its folder.
pub fn default_title(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    clean_line(&name.to_string_lossy())
}

/// Returns the folder of written text: the given one, or the default one.
pub fn state_dir(given: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = || set("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(set("HOME")?).join(".local/state"));
    let default = || Some(state().or_else(home)?.join("lcstudio"));
    let folder = given.cloned().or_else(default);
    folder.context("neither XDG_STATE_HOME nor HOME is set")
}

/// Creates a folder for its owner alone, with its parents.
pub fn make_folder(path: &Path) -> anyhow::Result<()> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(in_file(path))
}

/// Prints the next steps after `new` on standard error.
pub fn say_next(folder: &Folder, key: &Path) {
    let (path, key) = (folder.path().display(), key.display());
    // standard error may be closed
    let _ = writeln!(
        librecast_program::standard::errors(),
        "Write {path}/{SLIDES} and {path}/{SETTINGS}, then: lcstudio present {path} --key {key}\n\
         Who is to attend gets the line above: lcstudio attend lcs1..."
    );
}
