//! `lcstudio invite`: a token for leaves that may attend a session and ask, and the session.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use lcradio_core::Station;
use lcstudio_core::{
    CameraSpace, Index, Layer, Place, ScreenSpace, Session, SessionKey, TrackName, TrackPlace,
};
use librecast::cert::GroupPrefix;
use librecast_log::Role;
use librecast_log_host::KeptLog;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;

use crate::folder::Folder;
use crate::keys;

/// Most prefixes of a certificate.
const MAX_PREFIXES: usize = 16;

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// Folder of a session that was presented or held, or with `key` will be.
    pub folder: PathBuf,
    /// The session's key.
    pub key: Option<PathBuf>,
    /// Tracks; none: all.
    pub tracks: Vec<TrackName>,
    /// Arguments for `lcroute invite`.
    pub rest: Vec<OsString>,
    /// As JSON.
    pub json: bool,
}

/// Executes `lcroute invite`; returns only on failure.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let folder = Folder::new(&options.folder);
    let session = folder.session()?;
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
    command.args(options.json.then_some("--json"));
    command.args(&options.rest);
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
