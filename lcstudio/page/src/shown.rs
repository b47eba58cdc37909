//! View of the page, as JSON.

use lcstudio_core::{Album, Language, Place, TrackName, TrackPlace, View, title, to_html, to_text};
use serde::Serialize;
use std::collections::BTreeMap;

use crate::attender::PageAttender;

/// Status of the session.
#[derive(Debug, Serialize)]
struct Status<'a> {
    /// `waiting`, `live` or `ended`.
    state: &'static str,
    title: &'a str,
    presenter: &'a str,
    /// First language of captions: probably the presenter's.
    language: Option<&'a str>,
    tracks: Vec<Track>,
    /// Number of slides.
    slides: usize,
    /// Number of the presenter's slide, from 1.
    shown: Option<usize>,
    /// Number of the reader's questions that the presenter does not have yet.
    asking: usize,
    /// The last question that the presenter did not get.
    lost: Option<&'a str>,
    drops: BTreeMap<&'static str, u64>,
    notes: Notes,
    /// Of a chosen screen.
    screen: Option<Screen>,
    /// Of a chosen camera.
    camera: Option<Camera>,
}

/// Status of the presenter's screen.
#[derive(Debug, Serialize)]
struct Screen {
    /// As [`PageScreen::state`](crate::screen::PageScreen::state) returns it.
    state: &'static str,
    /// Whether the reader lets it stand still.
    paused: bool,
}

/// Status of the presenter's camera.
#[derive(Debug, Serialize)]
struct Camera {
    /// As [`PageCamera::state`](crate::camera::PageCamera::state) returns it.
    state: &'static str,
    /// Whether the reader lets it stand still.
    paused: bool,
    /// `large` or `small`.
    size: &'static str,
    /// Whether there is a large picture.
    has_large: bool,
}

/// A present writer of the notes.
#[derive(Serialize)]
struct Other<'a> {
    author: String,
    name: &'a str,
    writes: bool,
    cursor: String,
}

/// Status of the notes.
#[derive(Debug, Default, Serialize)]
struct Notes {
    /// Changes that are not entries yet.
    waiting: usize,
    /// Whether the owner has granted this page's key.
    granted: bool,
    /// Permanent failure of writing.
    failed: Option<String>,
    /// Whether updates wait for the page.
    unread: bool,
    /// Author id of this page, once known.
    author: Option<String>,
}

/// A track that the index names.
#[derive(Debug, Serialize)]
struct Track {
    name: String,
    /// Its name without a language.
    kind: &'static str,
    language: Option<String>,
    /// The presenter's words for those who do not see it; may be empty.
    description: String,
    chosen: bool,
    /// Bytes received for it, without headers.
    bytes: u64,
    /// Whether other members have entries that this page lacks.
    lacks: bool,
    /// Of pictures: numbers of known and complete ones.
    pictures: Option<Pictures>,
    /// Of chosen sound: the station for the page's radio, a secret.
    station: Option<String>,
}

/// Numbers of known and complete pictures.
#[derive(Debug, Serialize)]
pub(crate) struct Pictures {
    named: usize,
    whole: usize,
    /// Bytes of all named pictures.
    bytes: usize,
}

/// A complete picture.
#[derive(Debug, Serialize)]
struct Picture {
    id: String,
    width: u32,
    height: u32,
}

/// A slide.
#[derive(Debug, Serialize)]
struct Shown {
    number: usize,
    title: String,
    /// HTML that runs and fetches nothing; a picture is an `img` of `picture:` and its index in
    /// `pictures`.
    html: String,
    /// Null for an incomplete picture.
    pictures: Vec<Option<Picture>>,
    /// The slide as a voice reads it.
    text: String,
}

/// A line of captions.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Id that a correction keeps.
    id: String,
    language: &'a str,
    /// Milliseconds since 1970.
    time: u64,
    speaker: &'a str,
    text: &'a str,
    corrected: bool,
}

/// The last captions of all chosen languages, in the order of their times.
#[derive(Debug, Serialize)]
struct Captions<'a> {
    /// Number of captions before these.
    earlier: usize,
    lines: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
    name: &'a str,
    text: &'a str,
}

pub(crate) fn json(value: &impl Serialize) -> String {
    // strings and numbers can always be encoded
    serde_json::to_string(value).unwrap_or_default()
}

fn kind(name: &TrackName) -> (&'static str, Option<&Language>) {
    match name {
        TrackName::Slides => ("slides", None),
        TrackName::Turn => ("turn", None),
        TrackName::Pictures => ("pictures", None),
        TrackName::Screen => ("screen", None),
        TrackName::Camera => ("camera", None),
        TrackName::Questions => ("questions", None),
        TrackName::Notes => ("notes", None),
        TrackName::Captions(language) => ("captions", Some(language)),
        TrackName::Audio(language) => ("audio", Some(language)),
    }
}

pub(crate) fn pictures(album: &Album) -> Pictures {
    let size = album.size();
    Pictures {
        named: size.named,
        whole: size.whole,
        bytes: size.bytes,
    }
}

/// Returns a slide as HTML in which each picture is `picture:` and its index in these names.
pub(crate) fn html_and_pictures(markdown: &str) -> (String, Vec<String>) {
    let mut names = Vec::new();
    let html = to_html(markdown, |name| {
        names.push(name.to_owned());
        Some(format!("picture:{}", names.len() - 1))
    });
    (html, names)
}

/// Returns the last `most` lines of captions as JSON.
pub(crate) fn captions(view: &View, most: usize) -> String {
    let mut lines = Vec::new();
    for (language, transcript) in view.transcripts() {
        for (author, number, line) in transcript.numbered() {
            lines.push((language, author, number, line));
        }
    }
    lines.sort_by_key(|(_, author, number, line)| (line.time_ms, *author, *number));
    let earlier = lines.len().saturating_sub(most);
    let lines = lines.split_off(earlier).into_iter();
    let lines = lines.map(|(language, author, number, line)| Line {
        id: format!("{author}-{number}"),
        language: language.tag(),
        time: line.time_ms,
        speaker: &line.speaker,
        text: &line.text,
        corrected: line.is_corrected,
    });
    json(&Captions {
        earlier,
        lines: lines.collect(),
    })
}

impl PageAttender {
    /// Returns the status as JSON.
    pub fn status(&self) -> String {
        let index = self.view.index();
        let turn = Place::Track(TrackName::Turn);
        // only once all turns have arrived: earlier ones are not shown
        let shown = self.view.shown().filter(|_| !self.lacks(&turn));
        json(&Status {
            state: match (index.has_begun, index.has_ended) {
                (false, _) => "waiting",
                (true, false) => "live",
                (true, true) => "ended",
            },
            title: &index.title,
            presenter: &index.presenter,
            language: self.first_language().map(Language::tag),
            tracks: index
                .tracks
                .iter()
                .map(|(name, at)| self.track(name, at))
                .collect(),
            slides: self.view.deck().len(),
            shown: shown.map(|(number, _)| number),
            asking: self.asking.waiting(),
            lost: self.lost.as_deref(),
            drops: self.drops(),
            notes: self.notes(),
            screen: self.screen.as_ref().map(|screen| Screen {
                state: screen.state(),
                paused: screen.following.is_paused,
            }),
            camera: self.camera.as_ref().map(|camera| {
                let (size, has_large) = camera.size();
                Camera {
                    state: camera.state(),
                    paused: camera.following.is_paused,
                    size,
                    has_large,
                }
            }),
        })
    }

    /// Returns the present writers of the notes as JSON, with cursors in hexadecimal digits.
    pub fn others(&self) -> String {
        let all = self.notes.iter().flat_map(|notes| notes.others().iter());
        let all = all.map(|(author, presence)| Other {
            author: format!("{author:016x}"),
            name: &presence.name,
            writes: presence.writes,
            cursor: presence.cursor.iter().map(|b| format!("{b:02x}")).collect(),
        });
        json(&all.collect::<Vec<_>>())
    }

    fn notes(&self) -> Notes {
        let Some(notes) = &self.notes else {
            return Notes::default();
        };
        Notes {
            waiting: notes.waiting(),
            granted: self.may_write_notes(),
            failed: notes.failed(),
            unread: notes.has_updates(),
            author: self.notes_author().map(|author| author.to_string()),
        }
    }

    fn first_language(&self) -> Option<&Language> {
        let mut names = self.view.index().names();
        names.find_map(|name| match name {
            TrackName::Captions(language) => Some(language),
            _ => None,
        })
    }

    fn track(&self, name: &TrackName, at: &TrackPlace) -> Track {
        let (kind, language) = kind(name);
        let (place, chosen) = (Place::Track(name.clone()), self.has_chosen(name));
        Track {
            name: name.to_string(),
            kind,
            language: language.map(Language::to_string),
            description: self.view.index().description(name).to_owned(),
            chosen,
            bytes: self.received(&place),
            lacks: self.lacks(&place),
            pictures: (*name == TrackName::Pictures).then(|| pictures(self.view.album())),
            station: match at {
                TrackPlace::Station(station) if chosen => Some(station.clone()),
                _ => None,
            },
        }
    }

    /// Returns titles of slides in order as JSON; null for a missing slide.
    pub fn titles(&self) -> String {
        let slides = self.view.deck().slides();
        json(&slides.map(|slide| slide.map(title)).collect::<Vec<_>>())
    }

    /// Returns the slide with this number, from 1, as JSON; null if it is missing.
    pub fn slide(&self, number: usize) -> String {
        let at = number.checked_sub(1);
        let slide = at.and_then(|at| self.view.deck().slides().nth(at).flatten());
        json(&slide.map(|markdown| {
            let (html, names) = html_and_pictures(markdown);
            let pictures = names.iter().map(|name| self.picture(name));
            Shown {
                number,
                title: title(markdown),
                html,
                pictures: pictures.collect(),
                text: to_text(markdown),
            }
        }))
    }

    fn picture(&self, name: &str) -> Option<Picture> {
        let picture = self.view.album().picture(name)?;
        let (width, height) = picture.size();
        Some(Picture {
            id: picture.id().to_string(),
            width,
            height,
        })
    }

    /// Returns media type, line feed and bytes of a complete picture; nothing if it is missing.
    #[must_use]
    pub fn picture_file(&self, id: &str) -> Vec<u8> {
        let mut pictures = self.view.album().pictures();
        let found = pictures.find(|(_, picture)| picture.id().to_string() == id);
        found.map_or_else(Vec::new, |(_, picture)| {
            let head = [picture.kind().media_type().as_bytes(), b"\n"];
            [&head.concat(), picture.bytes()].concat()
        })
    }

    /// Returns the last `most` lines of captions as JSON.
    pub fn captions(&self, most: usize) -> String {
        captions(&self.view, most)
    }

    /// Returns the questions that were taken up as JSON.
    pub fn questions(&self) -> String {
        let questions = self.view.questions().iter();
        let questions = questions.map(|question| Asked {
            name: &question.name,
            text: &question.text,
        });
        json(&questions.collect::<Vec<_>>())
    }
}
