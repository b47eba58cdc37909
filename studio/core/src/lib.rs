//! A lecture that each listener renders for himself, without I/O.
//!
//! A session is a key ([`SessionKey`]). Who has its text ([`Session`]) attends. It is a set of tracks ([`TrackName`]), each of
//! them a space of the entry log with a group of its own: choosing a track is a JOIN, dropping it a PART. Sound is a station of
//! radio. Content is sent, never its looks.
//!
//! ```text
//! slides.md -> split -> DeckWriter -> entries of `slides`  -.
//! which slide is shown             -> entries of `turn`    |-> View -> what has changed -> text, HTML, captions
//! a line of captions               -> entries of `captions` |
//! index: title, tracks, the end    -> entries of `index`   -'
//! pictures that slides name        -> entries of `pictures` -> Album, in a View
//! text that all write              -> entries of `notes`   -> NotesReading -> the CRDT of a page or host
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `session`, `track` | keys, the text of a session, names of tracks |
//! | `index`, `deck`, `captions`, `questions`, `album` | what entries hold, and what follows from them |
//! | `picture` | which bytes are a picture |
//! | `notes` | who may write notes, what waits to be appended, what is read of them |
//! | `presence` | who is in the notes, where, and whether he writes |
//! | `batches`, `edits` | notes on their way into a document; what a save has changed of them |
//! | `reading`, `view` | entries in order; a session as far as it is known |
//! | `presenting` | who presents: what is typed and asked becomes entries |
//! | `markdown`, `front_matter`, `plain` | slides apart, checked, as text, as HTML; what text may hold |
//! | `export` | WebVTT, Markdown, one page of HTML |

mod album;
mod batches;
mod captions;
mod deck;
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
mod session;
mod track;
mod view;

#[cfg(test)]
mod tests;

pub use album::{Album, AlbumSize, MAX_PICTURES, MAX_PICTURES_BYTES};
pub use batches::{Blamed, NotesBatches, UpdateName};
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
pub use questions::{Asking, MAX_QUESTION, Question};
pub use reading::{NewEntry, Reading, lacks_entries, sort_by_time};
pub use session::{Session, SessionKey};
pub use track::{Language, TrackName};
pub use view::{Change, Place, View};
