//! The terminal of `--watch` and `top`: one frame replaces the last without flicker, and the old
//! screen returns at the end.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use librecast::plain::{clean, escape};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use terminal_size::{Height, Width, terminal_size};

use crate::cli::{Exit, hint};
use crate::{interrupt, standard};

/// Switches to the alternate screen, without cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Standard output, in frames.
#[derive(Debug)]
pub struct Screen {
    is_terminal: bool,
    /// The keyboard's settings before single keys were read.
    keyboard: Option<Termios>,
}

impl Screen {
    /// Makes SIGINT and SIGTERM end the process, with the terminal restored. `frames`: repaints a
    /// terminal; in all other cases, each text follows the last.
    pub fn open(frames: bool) -> std::io::Result<Self> {
        let is_terminal = frames && std::io::stdout().is_terminal();
        let keyboard = is_terminal.then(keys_one_by_one).flatten();
        let before = keyboard.clone();
        interrupt::end_on_interrupt(move |exit| {
            restore(before.as_ref());
            let mut out = standard::output();
            if is_terminal {
                let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
            }
            // under the lock: no frame follows
            std::process::exit(exit as i32)
        })?;
        if is_terminal {
            let mut out = standard::output();
            out.write_all(ENTER.as_bytes())?;
            out.flush()?;
        }
        Ok(Self {
            is_terminal,
            keyboard,
        })
    }

    /// Waits for `pause`; returns whether the user pressed `q`.
    fn wait(&self, pause: Duration) -> bool {
        if self.keyboard.is_none() {
            std::thread::sleep(pause);
            return false;
        }
        let mut input = std::io::stdin().lock();
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::NONE);
        let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, timeout).is_ok_and(|n| n > 0);
        let mut keys = [0; 64];
        ready
            && input
                .read(&mut keys)
                .is_ok_and(|n| keys[..n].contains(&b'q'))
    }

    /// Returns whether frames are painted.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Shows `text` in place of the last one.
    pub fn show(&mut self, text: &str) -> std::io::Result<()> {
        let shown = match (self.is_terminal, terminal_size()) {
            (false, _) => escape(text),
            (true, Some((Width(width), Height(height)))) => {
                frame(text, width.into(), height.into())
            }
            // the classic terminal
            (true, None) => frame(text, 80, 24),
        };
        let mut out = standard::output();
        out.write_all(shown.as_bytes())?;
        out.flush()
    }
}

/// Makes keys arrive without Enter and echo; returns the old settings.
fn keys_one_by_one() -> Option<Termios> {
    let input = std::io::stdin();
    let before = tcgetattr(&input).ok()?;
    let mut raw = before.clone();
    raw.local_flags
        .remove(LocalFlags::ICANON | LocalFlags::ECHO);
    tcsetattr(&input, SetArg::TCSANOW, &raw).ok()?;
    Some(before)
}

fn restore(keyboard: Option<&Termios>) {
    if let Some(before) = keyboard {
        // the terminal may be gone
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore(self.keyboard.as_ref());
        if self.is_terminal {
            let mut out = standard::output();
            // the reader may be gone
            let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// Returns one write that replaces the screen: each line over the old one, the rest cleared. Excess
/// lines are counted.
fn frame(text: &str, width: usize, height: usize) -> String {
    let mut lines: Vec<String> = text.lines().map(|line| cut(line, width)).collect();
    if lines.len() > height && height > 0 {
        let hidden = lines.len() - (height - 1);
        lines.truncate(height - 1);
        lines.push(cut(&format!("... {hidden} more lines"), width));
    }
    // cursor home; no line feed after the last line, as it would scroll
    format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\n"))
}

/// Returns the beginning that fits; nothing in it moves the cursor.
fn cut(line: &str, width: usize) -> String {
    let beginning: String = line.chars().take(width).collect();
    clean(&beginning.replace('\t', " "))
}

/// Calls `ask` periodically and shows its text. A first error ends it; a later one is printed once,
/// until a success. On a terminal `q` ends it.
pub fn watch(
    program: &str,
    frames: bool,
    pause: Duration,
    mut ask: impl FnMut() -> anyhow::Result<String>,
) -> anyhow::Result<Exit> {
    let mut last = ask()?;
    let mut screen = Screen::open(frames)?;
    screen.show(&last)?;
    let mut away = false;
    loop {
        if screen.wait(pause) {
            return Ok(Exit::Ok);
        }
        match ask() {
            Ok(text) => {
                screen.show(&text)?;
                (last, away) = (text, false);
            }
            Err(e) if screen.is_terminal() => {
                screen.show(&format!("{e:#}\ntrying again; it was:\n\n{last}"))?;
            }
            Err(e) => {
                if !std::mem::replace(&mut away, true) {
                    // nobody needs to read this for a result
                    hint(program, format_args!("{e:#}; trying again"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_terminal_and_clears_what_it_does_not_cover() {
        assert_eq!(
            frame("one\ntwo\n", 80, 24),
            "\x1b[Hone\x1b[K\ntwo\x1b[K\x1b[J"
        );
        let many = "line\n".repeat(30);
        let shown = frame(&many, 80, 10);
        assert_eq!(shown.matches('\n').count(), 9);
        assert!(shown.contains("... 21 more lines\x1b[K\x1b[J"), "{shown}");
        assert_eq!(frame("abcdef\n", 3, 5), "\x1b[Habc\x1b[K\x1b[J");
        assert_eq!(
            frame("a\x1b[2Jb\u{9b}c\n", 80, 5),
            "\x1b[Ha\u{fffd}[2Jb\u{fffd}c\x1b[K\x1b[J"
        );
        assert_eq!(frame("", 80, 0), "\x1b[H\x1b[K\x1b[J");
    }
}
