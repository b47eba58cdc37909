//! Requests for boards.

use super::*;
use crate::board::{BoardText, Content, Wait};

/// The folder of boards.
pub const FOLDER: &str = "boards";

impl Daemon {
    pub(super) fn open_boards(&mut self, now: Instant) -> anyhow::Result<()> {
        for (name, folder) in folders(&self.state.join(FOLDER))? {
            // a board that cannot be opened does not stop the rest
            match Board::open(&folder, &name, now) {
                Ok(board) => self.add_board(name, board),
                Err(e) => tracing::error!("board {name}: {e}"),
            }
        }
        Ok(())
    }

    fn add_board(&mut self, name: String, board: Board) {
        self.network.join(board.address());
        self.boards.insert(name, board);
    }

    /// Answers a request for a board.
    pub(super) fn serve_board(
        &mut self,
        request: Request,
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<Value> {
        match request {
            Request::BoardCreate { name } => {
                let folder = self.new_folder(FOLDER, &name)?;
                let board = Board::create(&folder, &name, now)?;
                let text = board.text().encode();
                self.add_board(name, board);
                Ok(json!({ "board": text }))
            }
            Request::Follow { text, name } => {
                let text = BoardText::decode(&text)
                    .map_err(|e| ExitError::new(Exit::Usage, e.to_string()))?;
                let name = name.unwrap_or_else(|| text.name.clone());
                let folder = self.new_folder(FOLDER, &name)?;
                let board = Board::follow(&folder, &name, &text, now)?;
                let author = board.author();
                self.add_board(name.clone(), board);
                Ok(json!({ "name": name, "author": author }))
            }
            Request::BoardPost { name, title, text } => {
                let content = Content { title, text };
                let wait = self.board(&name)?.post(&content, time, now)?;
                Ok(waits(&wait))
            }
            Request::BoardWriter { name, key } => {
                let wait = self.board(&name)?.add_writer(key, time, now)?;
                Ok(waits(&wait))
            }
            Request::BoardRead { name, after } => {
                Ok(serde_json::to_value(self.board(&name)?.read(after))?)
            }
            Request::BoardFeed { name } => Ok(json!({ "feed": self.board(&name)?.feed() })),
            Request::Unfollow { name } => {
                self.board(&name)?;
                if let Some(board) = self.boards.remove(&name) {
                    self.part(board.address());
                    board.delete()?;
                }
                Ok(json!({}))
            }
            _ => Ok(json!({})),
        }
    }

    fn board(&mut self, name: &str) -> anyhow::Result<&mut Board> {
        let none = || {
            let text = format!("no board is called {name:?}: lcgroup status lists them");
            ExitError::new(Exit::Usage, text)
        };
        Ok(self.boards.get_mut(name).ok_or_else(none)?)
    }
}

fn waits(wait: &Wait) -> Value {
    json!({ "waits": wait })
}
