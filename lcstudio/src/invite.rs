//! `lcstudio invite`: a token for leaves that may attend a session and ask, and the session.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcradio_core::Station;
use lcstudio_core::{
    CameraSpace, Index, Layer, Place, ScreenSpace, Session, SessionKey, TrackName, TrackPlace,
};
use librecast::cert::GroupPrefix;
use librecast::outside::Place as Meeting;
use librecast::units::parse_duration;
use librecast_log::Role;
use librecast_log_host::KeptLog;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;

use crate::folder::Folder;
use crate::outside::Invited;
use crate::{keys, outside};

/// Most prefixes of a certificate.
const MAX_PREFIXES: usize = 16;

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder of who presents, or held
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The session's key, before it was presented for the first time
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// What it is good for [default: all tracks]
    #[arg(long, value_delimiter = ',', value_name = "TRACK,...")]
    pub tracks: Vec<TrackName>,
    /// Print the link of a page of `lcroute web` in place of what `lcstudio attend` takes
    #[arg(long, value_name = "URL")]
    pub page: Option<String>,
    /// Print it as a QR code, or write that to a file: NAME.svg, else a PNG
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub qr: Option<Option<PathBuf>>,
    /// How long leaves can come by it
    #[arg(long, default_value = "7d", value_parser = parse_duration, value_name = "TIME")]
    pub ttl: Duration,
    /// Where its leaves meet; may be repeated [default: those of lcroute's configuration]
    #[arg(long, value_name = "URL")]
    pub signal: Vec<String>,
    /// The state of lcroute [default: as of lcroute]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// For the session's own network (`present --outside`); good for 30 days
    #[arg(long, requires = "key", conflicts_with_all = ["tracks", "qr", "ttl", "signal", "state_dir"])]
    pub outside: bool,
    /// Where that network meets, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
    #[arg(long, value_name = "PLACE", requires = "outside")]
    pub at: Vec<Meeting>,
    /// With --outside, print a token for a member, who may send sound or hold the session for others: a secret
    #[arg(long, requires = "outside", conflicts_with = "page")]
    pub member: bool,
}

/// Invites to the session's own network, or executes `lcroute invite`, which returns only on failure.
pub fn run(options: &Options, json: bool) -> anyhow::Result<Exit> {
    let folder = Folder::new(&options.folder);
    let session = folder.session()?;
    if let (true, Some(key)) = (options.outside, &options.key) {
        let key = keys::load(key)?;
        keys::check(&key, &session)?;
        let what = match options.member {
            true => Invited::Member,
            false => Invited::Leaf(options.page.clone()),
        };
        return outside::invite(&key, &options.at, &what, json);
    }
    let tracks = match &options.key {
        Some(key) => planned(&folder, &keys::load(key)?)?,
        None => presented(&folder, &session)?,
    };
    let groups = groups(&session, &tracks, &options.tracks)?;
    if groups.len() > MAX_PREFIXES {
        let count = groups.len();
        let message = format!(
            "{count} ranges of groups, and a token has room for {MAX_PREFIXES}: choose some by --tracks"
        );
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let mut command = guest::lcroute();
    command.args(["invite", "--leaf", "--uplink", "--groups"]);
    command.args(groups.iter().map(ToString::to_string));
    command.arg("--session").arg(folder.session_file());
    command.args(json.then_some("--json"));
    command.arg("--ttl");
    command.arg(format!("{}s", options.ttl.as_secs()));
    if let Some(page) = &options.page {
        command.arg("--page").arg(page);
    }
    for url in &options.signal {
        command.arg("--signal").arg(url);
    }
    if let Some(folder) = &options.state_dir {
        command.arg("--state-dir").arg(folder);
    }
    if let Some(file) = &options.qr {
        command.arg("--qr").args(file);
    }
    Err(command.exec()).context("lcroute, which makes tokens")
}

/// Returns the tracks that a session with these settings will have.
fn planned(folder: &Folder, key: &SessionKey) -> anyhow::Result<Vec<(TrackName, TrackPlace)>> {
    keys::check(key, &folder.session()?)?;
    let settings = folder.settings()?;
    let mut names = vec![
        TrackName::Slides,
        TrackName::Turn,
        TrackName::Questions,
        TrackName::Pictures,
    ];
    names.extend(settings.screen.then_some(TrackName::Screen));
    names.extend(settings.camera.then_some(TrackName::Camera));
    names.extend(settings.notes.then_some(TrackName::Notes));
    names.extend(settings.languages.into_iter().map(TrackName::Captions));
    let space = |name: TrackName| {
        let owner = key.track_key(&name).peer_id();
        (name, TrackPlace::Space(owner))
    };
    let mut tracks: Vec<_> = names.into_iter().map(space).collect();
    for language in settings.sound {
        let station = folder.station(key, &language)?;
        tracks.push((TrackName::Audio(language), TrackPlace::Station(station)));
    }
    Ok(tracks)
}

/// Returns the tracks of the index in the folder.
fn presented(folder: &Folder, session: &Session) -> anyhow::Result<Vec<(TrackName, TrackPlace)>> {
    let file = folder.log(&Place::Index);
    let mut index = Index::default();
    if file.exists() {
        // a presenter has it open
        let copy = tempfile::NamedTempFile::new()?;
        std::fs::copy(&file, copy.path()).with_context(|| file.display().to_string())?;
        let keys = Vec::new();
        let (space, path) = (session.index(), Some(copy.path()));
        let log = KeptLog::open(space, Role::Member, keys, path, Instant::now());
        let log = log.with_context(|| file.display().to_string())?;
        for entry in log.log().entries_after(log.log().owner(), 0) {
            // entries of later versions name no track of ours
            let _ = index.read(entry);
        }
    }
    if index.tracks.is_empty() {
        let folder = folder.path().display();
        let message = format!(
            "{folder}: the session was not presented yet, so its key is needed: --key FILE"
        );
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    Ok(index.tracks)
}

/// Returns the groups of these tracks and of the index: live groups, sound, and what asking and
/// history groups have in common.
fn groups(
    session: &Session,
    tracks: &[(TrackName, TrackPlace)],
    chosen: &[TrackName],
) -> anyhow::Result<Vec<GroupPrefix>> {
    let index = session.index().groups();
    let mut groups = vec![GroupPrefix::group(index.live)];
    for family in [index.asking, index.history] {
        groups.extend(GroupPrefix::around(family, 64));
    }
    let named = |name: &TrackName| tracks.iter().any(|(known, _)| known == name);
    if let Some(missing) = chosen.iter().find(|name| !named(name)) {
        let message = format!("the session has no track {missing}");
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    for (name, place) in tracks {
        // turns belong to slides
        let by = match name {
            TrackName::Turn => &TrackName::Slides,
            name => name,
        };
        if !chosen.is_empty() && !chosen.contains(by) {
            continue;
        }
        match place {
            TrackPlace::Space(owner) if *name == TrackName::Screen => {
                // with its carousel, which differs in the last bit
                let live = ScreenSpace::new(&session.space(*owner)).live();
                groups.extend(GroupPrefix::around(live, 127));
            }
            TrackPlace::Space(owner) if *name == TrackName::Camera => {
                let base = CameraSpace::new(&session.space(*owner)).group(Layer::Base);
                groups.extend(GroupPrefix::around(base, CameraSpace::PREFIX));
            }
            TrackPlace::Space(owner) => {
                groups.push(GroupPrefix::group(session.space(*owner).group()));
            }
            TrackPlace::Station(text) => {
                let station = Station::decode(text).with_context(|| name.to_string())?;
                // with its copies, which differ in the last bit
                groups.extend(GroupPrefix::around(station.group(), 127));
            }
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_covers_what_readers_join_and_ask_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let key = SessionKey::from_seed(&[7; 32]);
        let languages = ["en", "de"].map(|tag| tag.parse().unwrap());
        let folder = Folder::create(&dir.path().join("talk"), &key, "Bees", &languages).unwrap();
        let session = key.session();
        assert!(
            presented(&folder, &session).is_err(),
            "nothing was presented"
        );
        let settings = folder.path().join("session.toml");
        let written = std::fs::read_to_string(&settings).unwrap();
        let written = written.replace("screen = false", "screen = true");
        std::fs::write(settings, written.replace("camera = false", "camera = true")).unwrap();
        let tracks = planned(&folder, &key).unwrap();
        let all = groups(&session, &tracks, &[]).unwrap();
        assert!(all.len() <= MAX_PREFIXES, "{}", all.len());
        let covers = |group| all.iter().any(|prefix| prefix.contains(group));
        let slides = key.track_key(&TrackName::Slides).peer_id();
        for groups in [session.index().groups(), session.space(slides).groups()] {
            assert!(
                [groups.live, groups.asking, groups.history]
                    .into_iter()
                    .all(covers)
            );
        }
        let screen = key.track_key(&TrackName::Screen).peer_id();
        let screen = ScreenSpace::new(&session.space(screen));
        assert!([screen.live(), screen.carousel()].into_iter().all(covers));
        let camera = key.track_key(&TrackName::Camera).peer_id();
        let camera = CameraSpace::new(&session.space(camera));
        assert!(
            Layer::ALL
                .map(|layer| camera.group(layer))
                .into_iter()
                .all(covers)
        );
        let other = SessionKey::from_seed(&[8; 32]).session().index().groups();
        assert!(
            ![other.live, other.asking, other.history]
                .into_iter()
                .any(covers)
        );
        let captions = TrackName::Captions(languages[0].clone());
        let some = groups(&session, &tracks, &[captions]).unwrap();
        assert_eq!(some.len(), 4);
        assert!(groups(&session, &tracks, &[TrackName::Notes]).is_err());
        let stranger = SessionKey::from_seed(&[8; 32]);
        assert!(planned(&folder, &stranger).is_err());
    }
}
