//! Files between a user's command and the daemon: sealed and opened on the thread of a connection.
//!
//! ```text
//! user: {"cmd":"send_file","group":G,"name":N,"length":L}      user: {"cmd":"get","group":G,"which":W}
//! daemon: {"ok":{"ready":true}}                                daemon: {"ok":{"waits":...}}, or
//! user: L bytes                                                daemon: {"ok":{"length":L,...}}
//! daemon: {"ok":{"id":...}}                                    daemon: L bytes
//! ```

use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use lcgroup_core::file::{
    CHUNK, FileId, FileKey, chunk_length, chunks, open_chunk, seal_chunk, sealed_chunk_length,
};
use librecast_log_host::seed;
use librecast_program::cli::Exit;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::carrier::Serving;
use crate::files::SentFile;
use crate::request::Request;
use crate::{child, hex, shelf};

/// Silence of a user's command after which its file is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until lcsync serves a new file. Chosen: a slow disk reads 64 MiB in it.
const SERVED_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two checks of it.
const SERVED_INTERVAL: Duration = Duration::from_millis(50);

/// A place for a file that a user sends.
#[derive(Debug)]
pub struct Stage {
    /// The folder of the group's files.
    pub folder: PathBuf,
    /// The folder of unfinished ones.
    pub incoming: PathBuf,
}

/// A file that is here, and its key.
#[derive(Debug)]
pub struct Here {
    pub path: PathBuf,
    pub id: FileId,
    pub key: FileKey,
    /// The number of its message.
    pub n: u64,
    /// Shown name of its sender.
    pub from: String,
    pub name: String,
    pub length: u64,
}

/// Surroundings of a file that a user sends.
pub struct Taking<'a> {
    pub group: String,
    pub name: String,
    pub length: u64,
    pub stage: Stage,
    /// lcsync's view of files that are served.
    pub serving: Serving,
    /// The folder of groups.
    pub state: PathBuf,
    /// Asks the daemon.
    pub ask: &'a mut dyn FnMut(Request) -> io::Result<Outcome>,
}

/// The daemon's result, or the error and the exit code of the command.
pub type Outcome = Result<Value, (String, i32)>;

fn failed(text: impl Into<String>) -> Outcome {
    Err((text.into(), Exit::Failed as i32))
}

/// Takes a file from a user's command, has it served, and sends its message.
pub fn take(
    reader: &mut BufReader<UnixStream>,
    writer: &mut UnixStream,
    taking: Taking<'_>,
) -> io::Result<Outcome> {
    writer.write_all(b"{\"ok\":{\"ready\":true}}\n")?;
    reader.get_ref().set_read_timeout(Some(READ_TIMEOUT))?;
    let random = seed()?;
    let staged = taking
        .stage
        .incoming
        .join(format!("new-{}", hex::encode(&random[16..])));
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&random[..16]);
    let mut input = reader.take(taking.length);
    let sealed = seal(&mut input, &key, taking.length, &staged);
    // a command reads the answer once all of its bytes were taken
    let _ = io::copy(&mut input, &mut io::sink());
    let answer = match sealed {
        Ok(()) => publish(&staged, key, taking),
        Err(e) => Ok(failed(format!("nothing was sent: {e}"))),
    };
    // in its place, or of no use
    let _ = fs::remove_file(&staged);
    answer
}

fn seal(input: &mut impl Read, key: &FileKey, length: u64, to: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(to)?;
    let mut output = BufWriter::with_capacity(2 * CHUNK, file);
    let mut chunk = Zeroizing::new(vec![0; CHUNK]);
    for index in 0..chunks(length) {
        let chunk = &mut chunk[..chunk_length(length, index)];
        input.read_exact(chunk).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("the file became shorter meanwhile"),
            _ => e,
        })?;
        let sealed = seal_chunk(key, (length, index), chunk).map_err(io::Error::other)?;
        output.write_all(&sealed)?;
    }
    output.flush()
}

/// Has a sealed file served, and sends its message.
fn publish(staged: &Path, key: FileKey, taking: Taking<'_>) -> io::Result<Outcome> {
    let Taking {
        group,
        name,
        length,
        stage,
        serving,
        state,
        ask,
    } = taking;
    let root = child::root_of(&state, staged);
    let id = match root.as_ref().map(|root| root.parse::<FileId>()) {
        Ok(Ok(id)) => id,
        Ok(Err(())) => return Ok(failed("nothing was sent: lcsync gave no root hash")),
        Err(e) => return Ok(failed(format!("nothing was sent: {e}"))),
    };
    if let Err(e) = shelf::put(staged, &stage.folder.join(id.to_string())) {
        return Ok(failed(format!("nothing was sent: {e}")));
    }
    let of_group = group.clone();
    let served = ask(Request::ServeFile { group, id })?;
    if served.is_err() {
        return Ok(served);
    }
    let until = Instant::now() + SERVED_TIMEOUT;
    loop {
        match serving.outcome(&id) {
            Some(Ok(())) => break,
            Some(Err(e)) => {
                let text = format!("nothing was sent: nobody could fetch it from this host: {e}");
                return Ok(Err((text, Exit::NotPermitted as i32)));
            }
            None if Instant::now() >= until => {
                let seconds = SERVED_TIMEOUT.as_secs();
                let text = format!("nothing was sent: lcsync did not serve it within {seconds} s");
                return Ok(failed(text));
            }
            None => thread::sleep(SERVED_INTERVAL),
        }
    }
    let file = SentFile {
        name,
        length,
        id,
        key,
    };
    ask(Request::SayFile {
        group: of_group,
        file,
    })
}

/// Why a whole copy gives no file: the sender of its message lies, and others may have its key.
const OTHER_KEY: &str = "the key in this message does not open it";

/// Whether the key opens all of the copy here.
fn opens(here: &Here) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(2 * CHUNK, fs::File::open(&here.path)?);
    let mut sealed = vec![0; sealed_chunk_length(CHUNK)];
    for index in 0..chunks(here.length) {
        let chunk = &mut sealed[..sealed_chunk_length(chunk_length(here.length, index))];
        let place = (here.length, index);
        if reader.read_exact(chunk).is_err() || open_chunk(&here.key, place, chunk).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes a file to a user's command; returns whether it was whole. `root_of` computes root hashes.
pub fn give(
    writer: &mut UnixStream,
    here: &Here,
    root_of: impl FnOnce(&Path) -> Result<String, String>,
) -> io::Result<bool> {
    // a message of any member names copy and key: its lie must not remove an honest copy
    if opens(here).is_ok_and(|opens| !opens) {
        let kept = match root_of(&here.path) {
            Ok(root) if root == here.id.to_string() => Some(OTHER_KEY.to_owned()),
            Ok(_) => None,
            Err(e) => Some(format!("it does not open, and cannot be checked: {e}")),
        };
        if let Some(why) = kept {
            let error = json!({ "error": format!("{:?}: {why}", here.name), "exit": 1 });
            writer.write_all(format!("{error}\n").as_bytes())?;
            return Ok(true);
        }
    }
    let file = match fs::File::open(&here.path) {
        Ok(file) => file,
        Err(e) => {
            let error = json!({ "error": format!("{}: {e}", here.path.display()), "exit": 1 });
            writer.write_all(format!("{error}\n").as_bytes())?;
            return Ok(e.kind() != io::ErrorKind::NotFound);
        }
    };
    let head = json!({ "ok": {
        "n": here.n, "name": here.name, "length": here.length, "from": here.from,
    }});
    writer.write_all(format!("{head}\n").as_bytes())?;
    let mut reader = BufReader::with_capacity(2 * CHUNK, file);
    let mut sealed = vec![0; sealed_chunk_length(CHUNK)];
    for index in 0..chunks(here.length) {
        let chunk = &mut sealed[..sealed_chunk_length(chunk_length(here.length, index))];
        let read = reader.read_exact(chunk);
        let opened = read.ok().and_then(|()| {
            let place = (here.length, index);
            open_chunk(&here.key, place, chunk).ok()
        });
        let Some(opened) = opened else {
            tracing::warn!("file {}: its copy here is damaged: it is removed", here.id);
            fs::remove_file(&here.path)?;
            return Ok(false);
        };
        writer.write_all(&opened)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(folder: &Path, key: &FileKey, length: u64) -> Here {
        Here {
            path: folder.join("sealed"),
            id: FileId([1; 32]),
            key: key.clone(),
            n: 1,
            from: "Ann".into(),
            name: "plan".into(),
            length,
        }
    }

    fn given(here: &Here) -> (bool, Vec<u8>) {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        let whole = give(&mut ours, here, |_| Ok("another".into())).unwrap();
        drop(ours);
        let all = reader.join().unwrap();
        let head = all.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        (whole, all[head..].to_vec())
    }

    #[test]
    fn a_file_comes_out_as_it_went_in_and_a_damaged_one_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let key = Zeroizing::new([7; 16]);
        for length in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let content: Vec<u8> = (0..length).map(|n| (n % 253) as u8).collect();
            let here = here(folder.path(), &key, length as u64);
            seal(&mut &content[..], &key, length as u64, &here.path).unwrap();
            assert_eq!(given(&here), (true, content), "{length}");
            let mut sealed = fs::read(&here.path).unwrap();
            let last = sealed.len() - 1;
            sealed[last] ^= 1;
            fs::write(&here.path, &sealed).unwrap();
            let (whole, opened) = given(&here);
            assert!(!whole && opened.len() <= length && !here.path.exists());
            // cut
            fs::write(&here.path, &sealed[..last]).unwrap();
            assert!(!given(&here).0 && !here.path.exists());
        }
    }

    #[test]
    fn a_message_with_another_key_removes_no_honest_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (key, other) = (Zeroizing::new([7; 16]), Zeroizing::new([8; 16]));
        let lie = here(folder.path(), &other, 3);
        seal(&mut &b"abc"[..], &key, 3, &lie.path).unwrap();
        let mut answers = Vec::new();
        for root in [Ok(lie.id.to_string()), Err("no lcsync".to_owned())] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            assert!(give(&mut ours, &lie, |_| root).unwrap());
            drop(ours);
            let mut said = String::new();
            theirs.read_to_string(&mut said).unwrap();
            answers.push(said);
        }
        assert!(answers[0].contains(OTHER_KEY), "{answers:?}");
        assert!(answers[1].contains("no lcsync"), "{answers:?}");
        let honest = here(folder.path(), &key, 3);
        assert_eq!(given(&honest), (true, b"abc".to_vec()));
    }

    #[test]
    fn a_file_that_became_shorter_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("sealed");
        let key = Zeroizing::new([7; 16]);
        let e = seal(&mut &b"abc"[..], &key, 4, &to).unwrap_err();
        assert!(e.to_string().contains("shorter"), "{e}");
    }
}
