//! `lcgroup send --file` and `lcgroup get`: a file goes to the daemon, or comes from it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use lcgroup_core::file::{CHUNK, MAX_FILE};
use librecast::durable;
use librecast::plain::quoted;
use librecast::units::parse_duration;
use librecast_program::cli::{Exit, ExitError, print_line};
use librecast_program::{groups, interrupt, standard};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use crate::files::Which;
use crate::request::Request;
use crate::room::Waits;
use crate::shelf::megabytes;
use crate::verbs::{Verbs, Waiting};

/// Pause between two requests for a file that is fetched.
const ASK_INTERVAL: Duration = Duration::from_millis(300);

/// Options of `lcgroup get`.
#[derive(Debug, clap::Args)]
pub struct Getting {
    /// The group
    pub group: String,
    /// Its name, or the number of its message [default: the last file]
    #[arg(value_name = "NAME|NUMBER")]
    pub which: Option<String>,
    /// A folder, or the file's own path; - is standard output [default: this folder]
    pub dest: Option<PathBuf>,
    /// Print the value of this key of `lcgroup set`, in place of a file
    #[arg(long, value_name = "KEY", conflicts_with_all = ["which", "dest", "name", "overwrite"])]
    pub key: Option<String>,
    /// Take digits as the file's name, not as a number
    #[arg(long)]
    pub name: bool,
    /// Replace a file that is there
    #[arg(long)]
    pub overwrite: bool,
    /// Give up after so long in which nothing of it came
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// The place of a file that a user wants.
#[derive(Debug, PartialEq, Eq)]
enum Dest {
    Output,
    File(PathBuf),
}

impl Verbs {
    /// Sends a file.
    pub fn send_file(&self, group: String, path: &Path) -> anyhow::Result<Exit> {
        let shown = || path.display().to_string();
        let file = OpenOptions::new()
            .read(true)
            // a FIFO would wait for a writer
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)
            .with_context(shown)?;
        let found = file.metadata().with_context(shown)?;
        let usage = |text: String| Err(ExitError::new(Exit::Usage, text).into());
        if !found.is_file() {
            return usage(format!("{}: is no file", shown()));
        }
        let name = path.canonicalize().with_context(shown)?;
        let name = path.file_name().or(name.file_name()).unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let length = found.len();
        if length > MAX_FILE {
            return usage(format!(
                "{}: has {}, and a message carries a file of at most {}: `lcsync share --lcgroup {group} PATH` offers files of any size while it runs",
                shown(),
                megabytes(length),
                megabytes(MAX_FILE),
            ));
        }
        let of = group.clone();
        let request = Request::SendFile {
            group,
            name,
            length,
        };
        let mut reader = self.when_checked(&of, || {
            let mut reader = groups::send(&self.control, &request)?;
            answer_of(&mut reader)?;
            Ok(reader)
        })?;
        let mut waiting = Waiting::new(self.json);
        // if the daemon refuses meanwhile, its answer has the reason
        let sent = io::copy(&mut file.take(length), reader.get_mut());
        if sent.as_ref().is_ok_and(|sent| *sent < length) {
            bail!("{}: became shorter meanwhile: nothing was sent", shown());
        }
        reader.get_ref().set_read_timeout(Some(ASK_INTERVAL))?;
        let answer = loop {
            match answer_of(&mut reader) {
                Err(e) if is_timeout(&e) => waiting.tell(|| {
                    "waits for lcsync on this host, which reads the file before it serves it".into()
                }),
                answer => break answer,
            }
        };
        self.tell_sent(&of, answer?)
    }

    /// Fetches a file, or prints the value of a key.
    pub fn get(&self, getting: &Getting) -> anyhow::Result<Exit> {
        if let Some(key) = &getting.key {
            return self.value(getting.group.clone(), key.clone());
        }
        let mut waiting = Waiting::new(self.json);
        let mut dest = None;
        let (mut bytes, mut since) = (0, Instant::now());
        let mut which = getting.which();
        loop {
            let request = Request::Get {
                group: getting.group.clone(),
                which: which.clone(),
            };
            let mut reader = groups::send(&self.control, &request)?;
            let answer = answer_of(&mut reader)?;
            let name = answer["name"].as_str().unwrap_or_default().to_owned();
            let length = answer["length"].as_u64().unwrap_or_default();
            if let Some(n) = answer["n"].as_u64() {
                // another file may come meanwhile
                which = Which::Number(n);
            }
            let dest = match &dest {
                Some(dest) => dest,
                None => dest.insert(getting.dest_of(&name)?),
            };
            if answer.get("waits").is_none() {
                if self.take(getting, dest, &answer, reader)? {
                    return Ok(Exit::Ok);
                }
                waiting.tell(|| "its copy on this host was damaged: it is fetched again".into());
            }
            let waits: Option<Waits> = serde_json::from_value(answer["waits"].clone())?;
            if let Some(waits) = waits {
                if waits.bytes > bytes {
                    since = Instant::now();
                }
                bytes = waits.bytes;
                waiting.tell(|| format!("{}: {}", quoted(&name), waits.why));
                if since.elapsed() > getting.timeout {
                    let of = megabytes(length);
                    let text = format!("{} ({of}) did not come: {}", quoted(&name), waits.why);
                    let exit = match waits.is_problem {
                        true => Exit::Failed,
                        false => Exit::Unreachable,
                    };
                    return Err(ExitError::new(exit, text).into());
                }
            }
            thread::sleep(ASK_INTERVAL);
        }
    }

    /// Writes a file that is here; false: its copy on this host was damaged.
    fn take(
        &self,
        getting: &Getting,
        dest: &Dest,
        answer: &Value,
        mut reader: BufReader<UnixStream>,
    ) -> anyhow::Result<bool> {
        let length = answer["length"].as_u64().unwrap_or_default();
        let path = match dest {
            Dest::Output => {
                let mut out = standard::output();
                let written = io::copy(&mut (&mut reader).take(length), &mut out)?;
                out.flush()?;
                if written < length {
                    bail!(
                        "the copy on this host is damaged: the output ends early; the same command fetches it again"
                    );
                }
                return Ok(true);
            }
            Dest::File(path) => path,
        };
        if !put(&mut reader, length, path, getting.overwrite)? {
            return Ok(false);
        }
        let shown = path.display();
        if self.json {
            let answer = json!({
                "n": answer["n"], "name": answer["name"], "length": length, "from": answer["from"],
                "dest": path.to_string_lossy(),
            });
            print_line(answer.to_string())?;
        } else {
            let from = answer["from"].as_str().unwrap_or_default();
            print_line(format!("{shown} ({}) of {from}", megabytes(length)))?;
        }
        Ok(true)
    }
}

impl Getting {
    /// The file that is wanted. A dash alone is DEST, for the last file.
    fn which(&self) -> Which {
        let which = self.which.clone().filter(|which| which != "-");
        Which::of(which, self.name)
    }

    /// The place for a file of this name.
    fn dest_of(&self, name: &str) -> anyhow::Result<Dest> {
        let dash = self.which.as_deref().filter(|which| *which == "-");
        let dest = self.dest.as_deref().or(dash.map(Path::new));
        let dest = dest.unwrap_or(Path::new("."));
        if dest.as_os_str() == "-" {
            return Ok(Dest::Output);
        }
        let is_folder = dest.is_dir() || dest.as_os_str().as_bytes().ends_with(b"/");
        let path = match is_folder {
            // such a file might be read by programs that look for it
            true if name.starts_with(['.', '-']) => {
                let text = format!(
                    "the file is called {}: name it in DEST, if you want it",
                    quoted(name)
                );
                return Err(ExitError::new(Exit::Usage, text).into());
            }
            true => dest.join(name),
            false => dest.to_owned(),
        };
        let path = path.strip_prefix(".").map_or(path.clone(), Path::to_owned);
        self.check(&path)?;
        Ok(Dest::File(path))
    }

    fn check(&self, path: &Path) -> anyhow::Result<()> {
        let Ok(found) = path.symlink_metadata() else {
            return Ok(());
        };
        let shown = path.display();
        if !self.overwrite {
            bail!(
                "{shown}: is there already, and was not replaced: --overwrite replaces it, another DEST keeps both"
            );
        }
        if !found.is_file() {
            bail!("{shown}: is no file, and was not replaced");
        }
        Ok(())
    }
}

/// Writes `length` bytes to `path`: all of them, or nothing. False: there were fewer.
fn put(reader: &mut impl Read, length: u64, path: &Path, overwrite: bool) -> anyhow::Result<bool> {
    let shown = || path.display().to_string();
    let name = format!(".lcgroup-get-{}", std::process::id());
    let new = path.with_file_name(name);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .open(&new)
        .with_context(shown)?;
    let half = new.clone();
    // an interrupt leaves nothing
    interrupt::exit_on_interrupt(move || drop(fs::remove_file(half)))?;
    let written = write(reader, length, &mut file)
        .with_context(shown)
        .and_then(|whole| {
            if whole {
                place(&new, path, overwrite)?;
            }
            Ok(whole)
        });
    if !matches!(written, Ok(true)) {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write(reader: &mut impl Read, length: u64, file: &mut File) -> io::Result<bool> {
    let mut left = length;
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match reader.read(&mut buffer[..most]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e),
        };
        file.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    file.sync_all()?;
    Ok(true)
}

fn place(new: &Path, path: &Path, overwrite: bool) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let renamed = match overwrite {
        true => fs::rename(new, path),
        false => match renameat2(AT_FDCWD, new, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
            // a file system without this flag
            Err(nix::Error::EINVAL | nix::Error::ENOSYS) => {
                fs::hard_link(new, path).and_then(|()| fs::remove_file(new))
            }
            renamed => renamed.map_err(io::Error::from),
        },
    };
    match renamed {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(anyhow!("{}: is there now, and was not replaced", shown()));
        }
        renamed => renamed.with_context(shown)?,
    }
    durable::sync_folder_of(path).with_context(shown)
}

/// Reads the daemon's answer.
fn answer_of(reader: &mut BufReader<UnixStream>) -> anyhow::Result<Value> {
    let mut line = Vec::new();
    let read = (&mut *reader).take(64 << 10).read_until(b'\n', &mut line);
    if read? == 0 {
        return Err(ExitError::new(Exit::Unreachable, "lcgroup ended").into());
    }
    Ok(serde_json::from_slice::<groups::Answer<Value>>(&line)?.result()?)
}

fn is_timeout(e: &anyhow::Error) -> bool {
    let kind = e.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn getting(dest: &Path, overwrite: bool) -> Getting {
        Getting {
            group: "team".into(),
            which: None,
            key: None,
            dest: Some(dest.to_owned()),
            name: false,
            overwrite,
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn a_file_goes_into_a_folder_and_replaces_nothing_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let into = getting(folder.path(), false);
        assert_eq!(into.dest_of("plan").unwrap(), Dest::File(at("plan")));
        for name in [".bashrc", "-rf"] {
            assert!(into.dest_of(name).is_err());
            let named = getting(&at("named"), false);
            assert_eq!(named.dest_of(name).unwrap(), Dest::File(at("named")));
        }
        fs::write(at("plan"), b"old").unwrap();
        assert!(into.dest_of("plan").is_err());
        let over = getting(folder.path(), true);
        assert!(over.dest_of("plan").is_ok());
        fs::create_dir(at("sub")).unwrap();
        assert!(over.dest_of("sub").is_err());
        assert_eq!(
            getting(Path::new("-"), false).dest_of(".x").unwrap(),
            Dest::Output
        );
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        let there = || fs::read_dir(folder.path()).unwrap().count();
        assert!(!put(&mut &b"abc"[..], 4, &path, false).unwrap());
        assert_eq!(there(), 0);
        assert!(put(&mut &b"abcd"[..], 4, &path, false).unwrap());
        assert!(put(&mut &b"efgh"[..], 4, &path, false).is_err());
        assert_eq!((fs::read(&path).unwrap(), there()), (b"abcd".to_vec(), 1));
        assert!(put(&mut &b"efgh"[..], 4, &path, true).unwrap());
        assert_eq!((fs::read(&path).unwrap(), there()), (b"efgh".to_vec(), 1));
    }
}
