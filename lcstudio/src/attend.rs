//! `lcstudio attend`: the chosen tracks as text on a terminal.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcstudio_core::{
    Asking, CaptionLine, Change, Language, NewEntry, Place, Question, Session, TrackName,
    TrackPlace, View, to_text,
};
use librecast::code::beacon::Offer;
use librecast::units::parse_duration;
use librecast_log::Role;
use librecast_program::cli::{Common, Exit, ExitError};
use librecast_program::code;
use librecast_program::process::Wake;
use serde_json::{Value, json};

use crate::followed::REST;
use crate::input::{Input, Read};
use crate::outside;
use crate::said::{print, said};
use crate::sound::Sound;
use crate::tracks::Tracks;
use crate::waiting::{self, Waiting};

/// A track by its name, or captions or sound in the attender's language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This track.
    Track(TrackName),
    /// Captions.
    Captions,
    /// Sound.
    Audio,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "captions" => Ok(Self::Captions),
            "audio" => Ok(Self::Audio),
            "pictures" => Err(
                "pictures are shown in a browser; `lcstudio hold` keeps them, `lcstudio export` makes a page with them"
                    .into(),
            ),
            "screen" | "camera" => Err(format!(
                "a {text} goes into a pipe: `lcstudio watch SESSION {text} -`; `lcstudio hold` keeps it"
            )),
            "notes" => {
                Err("notes are read and written in a browser; `lcstudio hold` keeps them".into())
            }
            _ => text.parse().map(Self::Track).map_err(|e| format!("{e}")),
        }
    }
}

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// lcs1..., a file with it, `-` to read it from standard input, or the four words of `present --code`
    #[arg(required_unless_present = "code")]
    pub session: Option<String>,
    /// The session under the code of the guest in which this runs: `lcroute guest CODE`
    #[arg(long, conflicts_with = "session")]
    pub code: bool,
    /// The session is in a network of its own (`present --outside`), also if its text names no place
    #[arg(long, conflicts_with_all = ["code", "interfaces"])]
    pub outside: bool,
    /// What to join: slides, questions, captions, audio, captions/LANGUAGE, audio/LANGUAGE [default: all but audio]
    #[arg(long, value_delimiter = ',', value_name = "TRACK,...")]
    pub tracks: Vec<Choice>,
    /// How you are called when you ask
    #[arg(long, default_value = "")]
    pub name: String,
    /// Give up when nobody was heard for so long
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
}

struct Attender<'a> {
    options: &'a Options,
    common: &'a Common,
    session: Session,
    tracks: Tracks,
    view: View,
    wanted: Vec<Choice>,
    sounds: BTreeMap<Language, Sound>,
    /// The last printed slide.
    last_slide: Option<(usize, String)>,
    is_shown: bool,
    asking: Asking,
    received_at: Instant,
    /// Wait for the session, or for the rest of its list of tracks.
    waiting: Waiting,
}

/// Attends until the session ends.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    if let Some(session) = &options.session {
        code::enter(session)?;
    }
    let named = options.session.as_deref();
    let named = named.map(|text| outside::attend(text, options.outside, None));
    let named = named.transpose()?;
    librecast_program::process::confine()?;
    let session = match named {
        Some(session) => session,
        None => {
            debug_assert!(options.code, "the command line names a session or a code");
            Session::decode(&code::wait_for(Offer::Session, false)?.line)?
        }
    };
    let wake = Wake::on_interrupt()?;
    let now = Instant::now();
    let role = outside::role(Role::Member);
    let mut attender = Attender {
        tracks: Tracks::open(&common.interfaces, role, now).context("multicast sockets")?,
        options,
        common,
        session,
        view: View::default(),
        wanted: match options.tracks.is_empty() {
            true => vec![
                Choice::Track(TrackName::Slides),
                Choice::Track(TrackName::Questions),
                Choice::Captions,
            ],
            false => options.tracks.clone(),
        },
        sounds: BTreeMap::new(),
        last_slide: None,
        is_shown: false,
        asking: Asking::default(),
        received_at: now,
        waiting: match common.json {
            true => Waiting::unexplained(),
            false => Waiting::begin(now),
        },
    };
    let index = attender.session.index();
    attender
        .tracks
        .join(Place::Index, index, Vec::new(), None, now)?;
    let input = Input::open(wake.clone())?;
    attender.run(&wake, &input)
}

/// Returns the user's language from the environment: `de_DE.UTF-8` is de.
fn language() -> Option<Language> {
    let set = ["LC_ALL", "LC_MESSAGES", "LANG"];
    let set = set
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))?;
    let tag = set.split(['.', '@']).next()?.replace('_', "-");
    tag.parse().ok()
}

impl Attender<'_> {
    fn run(&mut self, wake: &Wake, input: &Input) -> anyhow::Result<Exit> {
        let mut input = Some(input);
        loop {
            if let Some(exit) = wake.interrupted() {
                return Ok(exit);
            }
            self.tracks.turn()?;
            for new in self.tracks.entries() {
                self.received_at = Instant::now();
                self.read(new)?;
            }
            self.join_wanted()?;
            self.tell_slide()?;
            while let Some(lines) = input {
                match lines.next()? {
                    Read::Line(line) => self.execute(&line)?,
                    Read::Nothing => break,
                    Read::End => input = None,
                }
            }
            self.send_questions()?;
            let (now, received) = (Instant::now(), self.received_at);
            if !self.is_shown {
                self.explain_wait(now);
            }
            if !self.view.index().has_begun && now >= received + self.options.timeout {
                let message = "nobody presents or holds this session where this host listens";
                return Err(ExitError::new(Exit::Unreachable, message).into());
            }
            if self.view.index().has_ended
                && !self.tracks.lacks_something()
                && now >= received + REST
            {
                self.tell(
                    "the session has ended",
                    || json!({"event": "ended", "drops": self.view.drops().by_name()}),
                )?;
                return Ok(Exit::Ok);
            }
            let explain = self.waiting.next_timeout().filter(|_| !self.is_shown);
            let until = self.asking.next_timeout().into_iter().chain(explain).min();
            self.tracks.wait(wake, until)?;
        }
    }

    fn explain_wait(&mut self, now: Instant) {
        let (tracks, has_begun) = (&self.tracks, self.view.index().has_begun);
        self.waiting.explain(now, || match has_begun {
            true => {
                "waits for the rest of the session's list of tracks, of which packets were lost"
                    .to_owned()
            }
            false => waiting::for_session(&tracks.interface_names(), Some(self.options.timeout)),
        });
    }

    /// Returns the wanted tracks that the index names.
    fn chosen(&self) -> Vec<TrackName> {
        let index = self.view.index();
        let own = language();
        let in_own = |captions: bool| {
            let languages = index.names().filter_map(|name| match name {
                TrackName::Captions(tag) if captions => Some(tag.clone()),
                TrackName::Audio(tag) if !captions => Some(tag.clone()),
                _ => None,
            });
            Language::closest(own.as_slice(), &languages.collect::<Vec<_>>()).cloned()
        };
        let mut chosen = Vec::new();
        for choice in &self.wanted {
            let name = match choice {
                Choice::Track(name) => Some(name.clone()),
                Choice::Captions => in_own(true).map(TrackName::Captions),
                Choice::Audio => in_own(false).map(TrackName::Audio),
            };
            // turns belong to slides
            let with = (name == Some(TrackName::Slides)).then_some(TrackName::Turn);
            chosen.extend(with.into_iter().chain(name));
        }
        chosen.retain(|name| index.place(name).is_some());
        chosen
    }

    fn join_wanted(&mut self) -> anyhow::Result<()> {
        // the index names its tracks one after the other: a choice by language waits for all
        if !self.view.index().has_begun || self.tracks.lacks_something() && !self.is_shown {
            return Ok(());
        }
        let chosen = self.chosen();
        if !std::mem::replace(&mut self.is_shown, true) {
            self.tell_session(&chosen)?;
        }
        let index = self.view.index().clone();
        for name in chosen {
            let place = Place::Track(name.clone());
            match (&name, index.place(&name)) {
                (TrackName::Audio(language), Some(TrackPlace::Station(station))) => {
                    let ended = self.sounds.get_mut(language).is_some_and(Sound::has_ended);
                    if ended {
                        tracing::warn!("{name}: lcradio has ended; /join {name} begins again");
                        self.part(&name);
                    } else if !self.sounds.contains_key(language) {
                        match Sound::listen(station, None, &self.common.interfaces) {
                            Ok(sound) => drop(self.sounds.insert(language.clone(), sound)),
                            Err(e) => {
                                tracing::warn!("{name}: lcradio, which plays it: {e}");
                                self.part(&name);
                            }
                        }
                    }
                }
                (_, Some(TrackPlace::Space(owner))) if !self.tracks.has_joined(&place) => {
                    let space = self.session.space(*owner);
                    self.tracks
                        .join(place, space, Vec::new(), None, Instant::now())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Leaves this track.
    fn part(&mut self, name: &TrackName) {
        self.wanted = self.chosen().into_iter().map(Choice::Track).collect();
        self.wanted
            .retain(|choice| *choice != Choice::Track(name.clone()));
        match name {
            TrackName::Audio(language) => drop(self.sounds.remove(language)),
            TrackName::Slides => {
                for name in [TrackName::Turn, TrackName::Slides] {
                    self.tracks.part(&Place::Track(name.clone()));
                    self.view.forget(&name);
                }
                self.wanted
                    .retain(|choice| *choice != Choice::Track(TrackName::Turn));
            }
            _ => {
                self.tracks.part(&Place::Track(name.clone()));
                self.view.forget(name);
            }
        }
    }

    fn read(&mut self, new: NewEntry) -> anyhow::Result<()> {
        let NewEntry {
            place,
            by_owner,
            entry,
        } = new;
        match self.view.read(&place, by_owner, &entry) {
            Some(Change::Caption(language, line)) => self.tell_caption(&language, &line),
            Some(Change::Question(question)) => self.tell_question(&question),
            _ => Ok(()),
        }
    }

    // input

    fn execute(&mut self, line: &str) -> anyhow::Result<()> {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let usage = "a line is a question; /join TRACK and /part TRACK choose";
        match (word, rest.trim().parse::<Choice>()) {
            ("", _) => Ok(()),
            ("/join", Ok(choice)) => {
                if !self.wanted.contains(&choice) {
                    self.wanted.push(choice);
                }
                Ok(())
            }
            ("/part", Ok(choice)) => {
                let is_meant = |name: &TrackName| match &choice {
                    Choice::Track(meant) => name == meant,
                    Choice::Captions => matches!(name, TrackName::Captions(_)),
                    Choice::Audio => matches!(name, TrackName::Audio(_)),
                };
                for name in self.chosen().into_iter().filter(is_meant) {
                    self.part(&name);
                }
                Ok(())
            }
            _ if word.starts_with('/') => {
                tracing::warn!("{usage}");
                Ok(())
            }
            _ => self.ask(line),
        }
    }

    fn ask(&mut self, text: &str) -> anyhow::Result<()> {
        let place = Place::Track(TrackName::Questions);
        if !self.tracks.has_joined(&place) {
            tracing::warn!("questions are not joined: /join questions");
            return Ok(());
        }
        if let Err(e) = self.asking.ask(&self.options.name, text, Instant::now()) {
            tracing::warn!("{e}");
        }
        Ok(())
    }

    fn send_questions(&mut self) -> anyhow::Result<()> {
        let place = Place::Track(TrackName::Questions);
        let now = Instant::now();
        self.asking.acknowledge(|id| self.view.has_received(id));
        while let Some(lost) = self.asking.poll_lost(now) {
            tracing::warn!("the presenter did not get this question: {lost}");
        }
        while let Some(body) = self.asking.poll_request(now) {
            if self.tracks.has_joined(&place) {
                self.tracks.ask(&place, &body)?;
            }
        }
        // sends these requests
        self.tracks.turn()?;
        Ok(())
    }

    // output

    fn tell_session(&self, chosen: &[TrackName]) -> anyhow::Result<()> {
        let index = self.view.index();
        let all: Vec<String> = index.names().map(TrackName::to_string).collect();
        let mut missing = self.wanted.iter().filter_map(|choice| match choice {
            Choice::Track(name) if index.place(name).is_none() => Some(name),
            _ => None,
        });
        if let Some(name) = missing.next() {
            let all = all.join(", ");
            tracing::warn!("there is no track {name}, yet; there are {all}");
        }
        let chosen: Vec<String> = chosen.iter().map(TrackName::to_string).collect();
        let title = match index.presenter.is_empty() {
            true => index.title.clone(),
            false => format!("{}, by {}", index.title, index.presenter),
        };
        let shown = format!(
            "{title}\ntracks: {}; joined: {}",
            all.join(", "),
            chosen.join(", ")
        );
        self.tell(&shown, || {
            json!({
                "event": "session",
                "title": index.title,
                "presenter": index.presenter,
                "tracks": all,
                "joined": chosen,
            })
        })
    }

    /// Prints the shown slide once all turns have arrived, not each earlier one.
    fn tell_slide(&mut self) -> anyhow::Result<()> {
        if self.tracks.lacks(&Place::Track(TrackName::Turn)) {
            return Ok(());
        }
        let Some((number, text)) = self.view.shown() else {
            return Ok(());
        };
        let shown = Some((number, text.to_owned()));
        if shown == self.last_slide {
            return Ok(());
        }
        let of = self.view.deck().len();
        self.tell(
            &format!("--- slide {number} of {of}\n{}\n", to_text(text)),
            || json!({"event": "slide", "number": number, "of": of, "markdown": text}),
        )?;
        self.last_slide = shown;
        Ok(())
    }

    fn tell_caption(&self, language: &Language, line: &CaptionLine) -> anyhow::Result<()> {
        let corrected = if line.is_corrected {
            "(corrected) "
        } else {
            ""
        };
        self.tell(
            &format!("{corrected}{}", said(&line.speaker, &line.text)),
            || {
                json!({
                    "event": "caption",
                    "language": language.tag(),
                    "time": line.time_ms,
                    "speaker": line.speaker,
                    "text": line.text,
                    "corrected": line.is_corrected,
                })
            },
        )
    }

    fn tell_question(&self, question: &Question) -> anyhow::Result<()> {
        self.tell(
            &format!("(question) {}", said(&question.name, &question.text)),
            || json!({"event": "question", "name": question.name, "text": question.text}),
        )
    }

    fn tell(&self, text: &str, value: impl FnOnce() -> Value) -> anyhow::Result<()> {
        print(self.common.json, text, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_a_track_or_what_it_is() {
        assert_eq!("captions".parse(), Ok(Choice::Captions));
        let name = TrackName::Captions("de".parse().unwrap());
        assert_eq!("captions/de".parse(), Ok(Choice::Track(name)));
        assert!("pictures".parse::<Choice>().is_err());
        assert!("screen".parse::<Choice>().is_err());
        assert!("camera".parse::<Choice>().is_err());
        assert!("video".parse::<Choice>().is_err());
    }
}
