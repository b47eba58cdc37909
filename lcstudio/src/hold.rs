//! `lcstudio hold`: stores a session, for members that join later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcstudio_core::{Index, Language, Place, TrackName, TrackPlace, View};
use librecast_log::{Event, Role};
use librecast_program::cli::{Common, Exit};
use librecast_program::process::Wake;
use librecast_program::service;

use crate::folder::{Folder, make_folder};
use crate::kept_camera::KeptCamera;
use crate::kept_screen::KeptScreen;
use crate::outside;
use crate::said::hint;
use crate::sound::Sound;
use crate::tracks::Tracks;
use crate::waiting::{self, Waiting};

/// Pause after which an ended recording begins again.
const RECORD_AGAIN: Duration = Duration::from_secs(10);

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// lcs1..., a file with it, or `-` to read it from standard input
    pub session: String,
    /// Where it is kept
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The session is in a network of its own (`present --outside`), also if its text names no place
    #[arg(long, conflicts_with = "interfaces")]
    pub outside: bool,
    /// Leave out sound
    #[arg(long)]
    pub no_sound: bool,
    /// Leave out the screen
    #[arg(long)]
    pub no_screen: bool,
    /// Leave out the camera
    #[arg(long)]
    pub no_camera: bool,
}

impl Options {
    /// Returns whether this track is kept.
    fn keeps(&self, track: &TrackName) -> bool {
        match track {
            TrackName::Audio(_) => !self.no_sound,
            TrackName::Screen => !self.no_screen,
            TrackName::Camera => !self.no_camera,
            _ => true,
        }
    }
}

/// The parts of a session that the user has been told of.
#[derive(Debug, Default)]
struct Told {
    title: Option<String>,
    tracks: BTreeSet<TrackName>,
    has_ended: bool,
}

impl Told {
    /// Returns new lines about the session and the tracks that it keeps.
    fn news(&mut self, index: &Index, keeps: impl Fn(&TrackName) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        if !index.has_begun {
            return lines;
        }
        if self.title.as_ref() != Some(&index.title) {
            lines.push(format!("keeps {:?}; Ctrl-C ends it", index.title));
            self.title = Some(index.title.clone());
        }
        let names = index.tracks.iter().map(|(name, _)| name);
        let kept = names.filter(|name| keeps(name));
        let new: Vec<String> = kept
            .filter(|name| self.tracks.insert((*name).clone()))
            .map(ToString::to_string)
            .collect();
        if !new.is_empty() {
            lines.push(format!("keeps its tracks {}", new.join(", ")));
        }
        if std::mem::replace(&mut self.has_ended, index.has_ended) != index.has_ended {
            lines.push(match index.has_ended {
                true => "the session has ended; whoever comes late still gets what is kept here"
                    .to_owned(),
                false => "the session goes on".to_owned(),
            });
        }
        lines
    }
}

/// Stores the session until the user ends it.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let session = outside::attend(&options.session, options.outside, None)?;
    librecast_program::process::confine()?;
    let wake = Wake::on_interrupt()?;
    make_folder(&options.folder)?;
    let folder = Folder::new(&options.folder);
    let _lock = folder.lock()?;
    folder.keep_session(&session)?;
    let now = Instant::now();
    let role = outside::role(Role::Holder);
    if role == Role::Reader {
        hint(
            "a leaf keeps the session for this host alone: to give it to others, enter by a member's token",
        );
    }
    let mut tracks = Tracks::open(&common.interfaces, role, now).context("multicast sockets")?;
    let file = folder.log(&Place::Index);
    let joined = tracks.join(Place::Index, session.index(), Vec::new(), Some(&file), now);
    joined.with_context(|| file.display().to_string())?;
    let mut view = View::default();
    let mut sounds: BTreeMap<Language, (Option<Sound>, Instant)> = BTreeMap::new();
    let mut screen: Option<KeptScreen> = None;
    let mut camera: Option<KeptCamera> = None;
    let mut waiting = Waiting::begin(now);
    let mut told = Told::default();
    service::ready();
    while wake.interrupted().is_none() {
        if !view.index().has_begun {
            waiting.explain(Instant::now(), || {
                waiting::for_session(&tracks.interface_names(), None)
            });
        }
        for (place, event) in tracks.turn()? {
            if let Event::Conflict { number, .. } = event {
                tracing::warn!(
                    "{place}: two hosts wrote with one key; from {number} on nothing of it counts"
                );
            }
        }
        for new in tracks.entries() {
            if new.place == Place::Index {
                view.read(&new.place, new.by_owner, &new.entry);
            }
        }
        for line in told.news(view.index(), |track| options.keeps(track)) {
            hint(line);
        }
        for (name, place) in &view.index().tracks {
            let now = Instant::now();
            match (name, place) {
                (TrackName::Audio(language), TrackPlace::Station(station))
                    if options.keeps(name) =>
                {
                    let (sound, at) = sounds.entry(language.clone()).or_insert((None, now));
                    if sound.as_mut().is_some_and(Sound::has_ended) {
                        (*sound, *at) = (None, now + RECORD_AGAIN);
                    }
                    if sound.is_none() && *at <= now {
                        *at = now + RECORD_AGAIN;
                        let file = folder.recording(language);
                        match Sound::listen(station, Some(&file), &common.interfaces) {
                            Ok(begun) => *sound = Some(begun),
                            Err(e) => tracing::warn!("{name}: lcradio, which records it: {e}"),
                        }
                    }
                }
                (TrackName::Screen, TrackPlace::Space(owner))
                    if options.keeps(name) && screen.is_none() =>
                {
                    let space = session.space(*owner);
                    screen = Some(KeptScreen::new(&folder.screen(), &space, now)?);
                }
                (TrackName::Camera, TrackPlace::Space(owner))
                    if options.keeps(name) && camera.is_none() =>
                {
                    let space = session.space(*owner);
                    camera = Some(KeptCamera::new(&folder, &space, now)?);
                }
                (TrackName::Screen | TrackName::Camera, _) => {}
                (_, TrackPlace::Space(owner)) => {
                    let place = Place::Track(name.clone());
                    if !tracks.has_joined(&place) {
                        let file = folder.log(&place);
                        let space = session.space(*owner);
                        let joined = tracks.join(place, space, Vec::new(), Some(&file), now);
                        joined.with_context(|| file.display().to_string())?;
                    }
                }
                _ => {}
            }
        }
        let mut until = waiting.next_timeout().filter(|_| !view.index().has_begun);
        let now = Instant::now();
        let received = tracks.take_received();
        let mut beside = Vec::new();
        if let Some(screen) = &mut screen {
            let groups = screen.groups(now);
            for datagram in received.iter().filter(|d| groups.contains(&d.group)) {
                screen.handle_datagram(datagram.source, &datagram.bytes, now);
            }
            beside.extend(screen.groups(now));
            until = until.into_iter().chain(screen.next_timeout(now)).min();
        }
        if let Some(camera) = &mut camera {
            let groups = camera.groups();
            for datagram in received.iter().filter(|d| groups.contains(&d.group)) {
                camera.handle_datagram(datagram.group, datagram.source, &datagram.bytes, now);
            }
            camera.turn(now);
            beside.extend(camera.groups());
            until = until.into_iter().chain(camera.next_timeout()).min();
        }
        tracks.follow(&beside);
        tracks.wait(&wake, until)?;
    }
    service::stopping();
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_is_told_of_each_kept_track_once_and_of_the_end() {
        let options = Options {
            session: String::new(),
            folder: PathBuf::new(),
            outside: false,
            no_sound: true,
            no_screen: false,
            no_camera: false,
        };
        let mut told = Told::default();
        let mut news = |index: &Index| told.news(index, |track| options.keeps(track)).join("\n");
        let mut index = Index {
            title: "Bees".into(),
            ..Index::default()
        };
        assert_eq!(news(&index), "", "it has not begun");
        index.has_begun = true;
        let place = || TrackPlace::Station("lcr1abc".into());
        index.tracks.push((TrackName::Slides, place()));
        let sound = TrackName::Audio("en".parse().unwrap());
        index.tracks.push((sound, place()));
        let first = news(&index);
        assert!(
            first.contains("\"Bees\"") && first.ends_with("tracks slides"),
            "{first}"
        );
        assert_eq!(news(&index), "");
        index.tracks.push((TrackName::Screen, place()));
        assert_eq!(news(&index), "keeps its tracks screen");
        index.has_ended = true;
        assert!(news(&index).contains("has ended"));
        assert_eq!(news(&index), "");
    }
}
