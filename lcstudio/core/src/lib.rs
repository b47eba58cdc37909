//! A lecture that each listener renders, without I/O.
//!
//! A session is a key ([`SessionKey`]). A holder of its text ([`Session`]) attends. Each of its
//! tracks ([`TrackName`]) is a space of the entry log with a group of its own: choosing a track is
//! a JOIN, dropping it a PART. Sound is a station of radio. Slides are sent without their layout.
//!
//! ```text
//! slides.md -> split -> DeckWriter -> entries of `slides`  -.
//! turn to a slide                  -> entries of `turn`    |-> View -> Change -> text, HTML
//! a line of captions               -> entries of `captions` |
//! index: title, tracks, the end    -> entries of `index`   -'
//! pictures that slides name        -> entries of `pictures` -> Album, in a View
//! looks at the presenter's screen  -> packets of `screen`   -> ScreenWatch -> ScreenChange
//! frames of a camera               -> packets of `camera`   -> CameraWatch -> CameraFrame
//! text that attenders write        -> entries of `notes`   -> NotesReading -> a program's CRDT
//! ```
//!
//! | module | content |
//! |---|---|
//! | `session`, `track` | keys, the text of a session, names of tracks |
//! | `index`, `deck`, `captions`, `questions`, `album` | formats of entries, and state from them |
//! | `picture` | valid pictures |
//! | `screen` | the presenter's screen: packets, its sender, its receivers |
//! | `camera` | the presenter's camera: packets, its sender, its receivers, the choice of layers |
//! | `signed` | common parts of both: signatures, runs of a sender, states |
//! | `notes` | writers of notes, their drafts, reading of their updates |
//! | `presence` | writers in the notes, with cursors and whether they write |
//! | `batches`, `document` | notes on their way into a document; its requests and answers |
//! | `saves`, `edits` | saves of a file with the notes; changes of a text |
//! | `reading`, `view` | entries in order; a session by its known entries |
//! | `presenting` | actions of the presenter and questions as entries |
//! | `markdown`, `front_matter`, `plain` | slides split, checked, as text, as HTML; plain text |
//! | `export` | WebVTT, Markdown, one page of HTML |
//! | `drops` | reasons for which an entry is dropped |

mod album;
mod batches;
mod camera;
mod captions;
mod deck;
pub mod document;
mod drops;
mod edits;
mod export;
mod front_matter;
mod index;
mod markdown;
mod notes;
mod picture;
mod plain;
mod presence;
mod presenting;
mod questions;
mod reading;
mod saves;
mod screen;
mod session;
mod signed;
mod track;
mod view;

#[cfg(test)]
mod tests;

pub use album::{Album, AlbumSize, MAX_PICTURES, MAX_PICTURES_BYTES};
pub use batches::{Blamed, NotesBatches, UpdateName};
pub use camera::{
    CameraError, CameraFrame, CameraPacket, CameraSender, CameraSize, CameraSpace, CameraWatch,
    IVF_FRAME_HEADER, IVF_HEADER, Ivf, IvfError, Layer, Layers, MAX_CAMERA_SIDE, MAX_FRAME, Piece,
    Vp8, Vp8Error, Vp8Layers, ivf_frame, ivf_header,
};
pub use captions::{CORRECTION_MARK, Caption, CaptionLine, MAX_CAPTION, Transcript, split_caption};
pub use deck::{Deck, DeckWriter, MAX_SLIDE, MAX_SLIDES, SlideId, Turn};
pub use drops::DropReason;
pub use edits::{Edit, apply, closest, difference, merge};
pub use export::{page, transcript_markdown, webvtt};
pub use front_matter::FrontMatter;
pub use index::{Index, IndexEntry, TrackPlace};
pub use markdown::{Problem, Slide, front_matter, pictures, split, title, to_html, to_text};
pub use notes::{
    MAX_NOTES_BYTES, MAX_NOTES_ENTRIES, MAX_WRITERS, NOTES_UPDATE, NotesReading, NotesUpdate,
    NotesWriting, Writer,
};
pub use picture::{MAX_PICTURE, Picture, PictureError, PictureId, PictureKind};
pub use plain::{MAX_LINE, clean, clean_line};
pub use presence::{MAX_CURSOR, MAX_NAME, Others, Presence, Showing};
pub use presenting::{Logs, PresentError, Presenting, Progress, Settings};
pub use questions::{AskError, Asking, MAX_QUESTION, Question, QuestionId};
pub use reading::{NewEntry, Reading, lacks_entries, sort_by_time};
pub use saves::{MAX_LINE_VERSIONS, Save, Saves};
pub use screen::{
    Area, MAX_AREAS, MAX_SIDE, NewChange, Part, ScreenChange, ScreenError, ScreenPacket,
    ScreenSender, ScreenSpace, ScreenWatch, changed, screen_size,
};
pub use session::{Session, SessionKey};
pub use track::{Language, TrackName};
pub use view::{Change, Place, View};
