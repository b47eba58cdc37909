//! Commands of boards.

use super::*;
use crate::board::Post;

/// Longest wait until a post may be written. Chosen: a start takes a few seconds.
const POST_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between two requests for new posts.
const READ_INTERVAL: Duration = Duration::from_millis(500);

impl Verbs {
    pub fn board_create(&self, name: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::BoardCreate { name })?;
        self.say(&answer, |a| text(&a["board"]))
    }

    pub fn board_post(
        &self,
        name: String,
        title: Option<String>,
        words: &[String],
    ) -> anyhow::Result<Exit> {
        let is_input = matches!(words, [] | [_]) && words.first().is_none_or(|word| word == "-");
        let text = if is_input {
            cli::note_of_input("the post");
            let mut text = String::new();
            let most = MAX_TEXT as u64 + 2;
            let mut input = librecast_program::standard::input().take(most);
            input
                .read_to_string(&mut text)
                .context("the post is text in UTF-8")?;
            text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
        } else {
            words.join(" ")
        };
        self.ask_until_done(&Request::BoardPost { name, title, text })
    }

    pub fn board_writer(&self, name: String, who: &str) -> anyhow::Result<Exit> {
        let key = book::node(who)?;
        let key = key.parse::<PeerId>().map_err(|e| {
            let text =
                format!("{who:?}: {e}; `lcgroup follow` and `lcgroup status --json` print keys");
            ExitError::new(Exit::Usage, text)
        })?;
        self.ask_until_done(&Request::BoardWriter { name, key })
    }

    /// Asks again while the board may not be written to.
    fn ask_until_done(&self, request: &Request) -> anyhow::Result<Exit> {
        let mut waiting = Waiting::new(self.json);
        let until = Instant::now() + POST_TIMEOUT;
        loop {
            let answer = self.ask(request)?;
            let Some(waits) = answer["waits"].as_str() else {
                return Ok(Exit::Ok);
            };
            if Instant::now() >= until {
                return Err(ExitError::new(Exit::Unreachable, waits).into());
            }
            waiting.tell(|| waits.to_owned());
            thread::sleep(WAIT_INTERVAL);
        }
    }

    pub fn follow(&self, line: &str, name: Option<String>) -> anyhow::Result<Exit> {
        let board = arguments::secret(line)?.to_string();
        let answer = self.ask(&Request::Follow { text: board, name })?;
        self.say(&answer, |a| {
            format!(
                "follows {}; this host's key on it, if its owner lets it write: {}",
                text(&a["name"]),
                text(&a["author"])
            )
        })
    }

    pub fn unfollow(&self, name: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Unfollow { name })?;
        self.say(&answer, |_| "deleted".into())
    }

    pub fn board_feed(&self, name: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::BoardFeed { name })?;
        self.say(&answer, |a| text(&a["feed"]).trim_end().to_owned())
    }

    pub fn read_board(&self, name: &str, follows: bool) -> anyhow::Result<Exit> {
        let mut after = 0;
        loop {
            let name = name.to_owned();
            let answer = self.ask(&Request::BoardRead { name, after })?;
            let posts: Vec<Post> = serde_json::from_value(answer["posts"].clone())?;
            if posts.is_empty() {
                if !follows {
                    return Ok(Exit::Ok);
                }
                thread::sleep(READ_INTERVAL);
            }
            for post in posts {
                after = post.n;
                match self.json {
                    true => print_line(serde_json::to_string(&post)?)?,
                    false => print_line(shown_post(&post))?,
                }
            }
        }
    }
}

fn shown_post(post: &Post) -> String {
    let time = utc(post.time / 1_000);
    let title = post.content.title.as_ref();
    let title = title.map_or_else(String::new, |title| format!("{}\n    ", clean(title)));
    let mark = crate::names::mark(&post.author);
    format!("{time} {mark}: {title}{}", printable(&post.content.text))
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;
    use crate::board::Content;

    #[test]
    fn a_post_moves_no_cursor_and_looks_like_no_other_post() {
        let post = Post {
            n: 1,
            id: "1-1".into(),
            author: SecretKey::from_seed(&[1; 32]).peer_id(),
            time: 0,
            content: Content {
                title: Some("a\x1b[2Jb\nc".into()),
                text: "one\x1b]0;x\x07\n1970-01-01T00:00:00Z eve: two".into(),
            },
        };
        let shown = shown_post(&post);
        assert!(
            !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown:?}"
        );
        assert!(
            shown.lines().skip(1).all(|line| line.starts_with("    ")),
            "{shown:?}"
        );
        assert!(shown.contains("two"));
    }
}
