//! Reasons for which an entry of a session is dropped.

use librecast::wire::WireError;

librecast::drop_reasons! {
    /// Reasons for which what was signed rightly is not taken all the same.
    pub enum DropReason {
        /// The body is not as the format has it.
        Malformed = "malformed",
        /// The entry is of a kind that this version does not know.
        UnknownKind = "unknown_kind",
        /// The index names more tracks than a session has.
        TooManyTracks = "too_many_tracks",
        /// Parts of more slides wait than a deck has, or a slide is too long.
        TooManySlides = "too_many_slides",
        /// The parts of a slide, a deck or a picture do not fit together.
        WrongPart = "wrong_part",
        /// More pictures than a session has, or more bytes of them.
        TooManyPictures = "too_many_pictures",
        /// All parts came, and they are not what was announced, or no picture that is shown.
        NoPicture = "no_picture",
        /// The transcript of a language is as long as it may be.
        TranscriptFull = "transcript_full",
        /// More questions than are kept.
        TooManyQuestions = "too_many_questions",
        /// The notes are as long as they may be.
        NotesFull = "notes_full",
        /// More show themselves in the notes than may write.
        TooManyPresent = "too_many_present",
        /// Only the session's own key says this.
        NotOwner = "not_owner",
        /// A packet of a screen or camera that the session's keys do not open.
        NotSealed = "not_sealed",
        /// A packet of a screen or camera that the session's own key did not sign.
        NotSigned = "not_signed",
        /// A packet of a screen or camera from before its sender began anew.
        OldRun = "old_run",
        /// More packets of a screen in a second than are checked.
        ScreenRate = "screen_rate",
        /// A screen or camera of more pixels than are shown.
        PictureTooLarge = "picture_too_large",
        /// A change that does not lie in its screen.
        OutsideScreen = "outside_screen",
        /// A picture of a screen or camera in more parts than its longest one has.
        TooManyParts = "too_many_parts",
        /// Changes of a screen beyond the room for them.
        TooManyChanges = "too_many_changes",
        /// A frame of a camera of more bytes than are sent.
        FrameTooLong = "frame_too_long",
        /// More packets or frames of a camera in a second than are accepted.
        CameraRate = "camera_rate",
        /// Frames of a camera beyond the room for them.
        TooManyFrames = "too_many_frames",
    }
}

impl From<WireError> for DropReason {
    fn from(_: WireError) -> Self {
        Self::Malformed
    }
}
