//! `lcstudio export`: files of other formats, from the folder of `present` or `hold`.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use lcstudio_core::{
    Language, NewEntry, Picture, Place, Reading, TrackPlace, View, page, sort_by_time,
    transcript_markdown, webvtt,
};
use librecast::durable;
use librecast_log::{Role, Space};
use librecast_log_host::KeptLog;
use librecast_program::cli::{Exit, ExitError};

use crate::folder::{Folder, make_folder, open_file};

/// Longest picture in a page, in bytes. Chosen: a photograph in print quality.
const MAX_PICTURE: u64 = 8 << 20;

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder of who presented, or held
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// FILE.html, FILE.md, FILE.vtt, or a folder for all
    pub out: PathBuf,
    /// The language of captions [default: the first]
    #[arg(long = "lang", value_name = "LANGUAGE")]
    pub language: Option<Language>,
}

/// Writes the files.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    librecast_program::process::confine()?;
    let folder = Folder::new(&options.folder);
    let view = read(&folder)?;
    let spoken: Vec<&Language> = view.transcripts().keys().collect();
    if let Some(language) = &options.language
        && !spoken.contains(&language)
    {
        let message = format!("there are no captions in {language}");
        return Err(ExitError::new(Exit::Failed, message).into());
    }
    let language = options.language.as_ref().or(spoken.first().copied());
    let picture = |url: &str| picture(folder.path(), url).or_else(|| sent_picture(&view, url));
    let ending = options.out.extension().and_then(|ending| ending.to_str());
    let out = &options.out;
    match ending {
        Some("html" | "htm") => write(out, &page(&view, language, picture))?,
        Some("md") => write(out, &transcript_markdown(&view, language))?,
        Some("vtt") => {
            let language = language.context("there are no captions")?;
            write(out, &webvtt(&view, language))?;
        }
        Some(other) => {
            let message = format!("what is .{other}? .html, .md, .vtt, or a folder");
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        None => {
            make_folder(out)?;
            write(&out.join("session.html"), &page(&view, language, picture))?;
            write(
                &out.join("session.md"),
                &transcript_markdown(&view, language),
            )?;
            for language in spoken {
                let file = out.join(format!("captions-{language}.vtt"));
                write(&file, &webvtt(&view, language))?;
            }
            for (name, picture) in view.album().pictures() {
                // another member chose the name: a failure affects this picture alone
                if let Err(e) = write_picture(out, name, picture) {
                    tracing::warn!("picture {name}: {e:#}");
                }
            }
            copy_recordings(folder.path(), out)?;
        }
    }
    Ok(Exit::Ok)
}

/// Reads the session from copies of its logs, as a program may be writing them.
fn read(folder: &Folder) -> anyhow::Result<View> {
    let session = folder.session()?;
    let folder_of_copies = tempfile::tempdir().context("a folder for copies of logs")?;
    let copies = folder_of_copies.path();
    let now = Instant::now();
    let mut view = View::default();
    let entries = read_log(folder, copies, &Place::Index, session.index(), now)?;
    read_entries(&mut view, &entries);
    let index = view.index().clone();
    if !index.has_begun {
        let message = format!("{}: nothing was presented", folder.path().display());
        return Err(ExitError::new(Exit::Failed, message).into());
    }
    let mut entries = Vec::new();
    for (name, place) in &index.tracks {
        if let TrackPlace::Space(owner) = place {
            let space = session.space(*owner);
            let place = Place::Track(name.clone());
            entries.extend(read_log(folder, copies, &place, space, now)?);
        }
    }
    // turns follow their slides through the changes of the deck since
    sort_by_time(&mut entries);
    read_entries(&mut view, &entries);
    Ok(view)
}

fn read_entries(view: &mut View, entries: &[NewEntry]) {
    for new in entries {
        view.read(&new.place, new.by_owner, &new.entry);
    }
}

fn read_log(
    folder: &Folder,
    copies: &Path,
    place: &Place,
    space: Space,
    now: Instant,
) -> anyhow::Result<Vec<NewEntry>> {
    let file = folder.log(place);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let copy = copies.join(file.file_name().unwrap_or_default());
    fs::copy(&file, &copy).with_context(|| file.display().to_string())?;
    let log = KeptLog::open(space, Role::Member, Vec::new(), Some(&copy), now);
    let log = log.with_context(|| file.display().to_string())?;
    Ok(Reading::default().new_entries(place, log.log()))
}

/// Returns a picture beside the slides as a `data:` URL.
fn picture(folder: &Path, url: &str) -> Option<String> {
    let kind = match Path::new(url)
        .extension()?
        .to_str()?
        .to_ascii_lowercase()
        .as_str()
    {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        _ => return None,
    };
    let mut bytes = Vec::new();
    let file = open_file(&folder.join(url)).ok()?;
    file.take(MAX_PICTURE + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_PICTURE)
        .then(|| format!("data:{kind};base64,{}", BASE64.encode(bytes)))
}

/// Returns a picture of the session as a `data:` URL.
fn sent_picture(view: &View, name: &str) -> Option<String> {
    let picture = view.album().picture(name)?;
    let (kind, bytes) = (picture.kind().media_type(), picture.bytes());
    Some(format!("data:{kind};base64,{}", BASE64.encode(bytes)))
}

/// Writes a picture under its name in slides, below `out`. Another member chose the name: hidden
/// names and names without a picture's ending are refused, so that it replaces no other file.
fn write_picture(out: &Path, name: &str, picture: &Picture) -> anyhow::Result<()> {
    let name = Path::new(name);
    let is_plain = |part: Component<'_>| {
        let part = match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        };
        part.is_some_and(|part| !part.starts_with('.') && !part.contains('\\'))
    };
    let ending = name.extension().and_then(|ending| ending.to_str());
    let ending = ending.map(str::to_ascii_lowercase);
    let is_picture = ["png", "jpg", "jpeg", "gif", "webp"];
    let is_picture = ending.is_some_and(|ending| is_picture.contains(&ending.as_str()));
    if !is_picture || !name.components().all(is_plain) {
        anyhow::bail!("not written by this name");
    }
    let path = out.join(name);
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    durable::replace(&path, picture.bytes()).with_context(|| path.display().to_string())
}

fn copy_recordings(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_recording = matches!(extension, Some("opus" | "webm")) && path.is_file();
        let Some(name) = path.file_name().filter(|_| is_recording) else {
            continue;
        };
        fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    durable::replace(path, text.as_bytes()).with_context(|| path.display().to_string())
}
