//! Sockets on which programs of this host exchange lines of JSON.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use zeroize::Zeroizing;

/// First capacity for a line, in bytes. Chosen: lines with keys fit, as one that grows leaves copies
/// behind.
const CAPACITY: usize = 4 * 1024;

/// A client's connection: each request is answered by one line.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    longest: u64,
}

impl Connection {
    /// Connects; each wait lasts `timeout` at most, and an answer has at most `longest` bytes.
    pub fn connect(path: &Path, timeout: Duration, longest: u64) -> io::Result<Self> {
        Self::over(UnixStream::connect(path)?, timeout, longest)
    }

    /// Sets the bounds of [`Self::connect`] for this stream.
    pub fn over(stream: UnixStream, timeout: Duration, longest: u64) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            stream: BufReader::new(stream),
            longest,
        })
    }

    /// Returns the stream, to change its timeouts or to await its end.
    pub fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    /// Sends a request, and returns the answer; an empty one at the end of the connection.
    ///
    /// # Errors
    /// The connection broke, or the other side is silent.
    pub fn ask(&mut self, request: &impl Serialize) -> io::Result<Vec<u8>> {
        write_line(self.stream.get_mut(), request)?;
        let mut answer = Vec::new();
        let mut limited = (&mut self.stream).take(self.longest);
        limited.read_until(b'\n', &mut answer)?;
        Ok(answer)
    }
}

/// Writes a line of JSON, which may contain a secret.
pub fn write_line(to: &mut impl Write, content: &impl Serialize) -> io::Result<()> {
    let mut line = Zeroizing::new(Vec::<u8>::with_capacity(CAPACITY));
    serde_json::to_writer(&mut *line, content)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Binds a socket for its owner and the members of a Unix group, in place of one that nobody serves.
///
/// Its mode is 0660. With `is_for_group` it is 0600 unless the socket got the group.
///
/// # Errors
/// `AddrInUse` if another program answers there, `AlreadyExists` for a file that is not a socket,
/// and those of the system.
pub fn bind(path: &Path, group: &str, is_for_group: bool) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(ErrorKind::AddrInUse.into());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
        // a wrong path in a configuration must not remove a file
        Ok(_) => {
            let why = "is not a socket";
            return Err(io::Error::new(ErrorKind::AlreadyExists, why));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = |mode| fs::set_permissions(path, Permissions::from_mode(mode));
    // the owner alone, until the group is set
    mode(0o600)?;
    let known = nix::unistd::Group::from_name(group).ok().flatten();
    // a daemon without CAP_CHOWN still serves root
    let given = known.map(|known| nix::unistd::chown(path, None, Some(known.gid)));
    if let Some(Err(e)) = given {
        tracing::info!("{}: not for group {group}: {e}", path.display());
    }
    if !is_for_group || matches!(given, Some(Ok(()))) {
        mode(0o660)?;
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Enough on a busy machine.
    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_is_a_line_within_the_bound_and_empty_at_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut theirs = BufReader::new(theirs);
            for answer in ["{\"ok\":1}\n", "1234567890123456789\n"] {
                let mut line = String::new();
                theirs.read_line(&mut line).unwrap();
                assert_eq!(line, "{\"cmd\":\"status\"}\n");
                theirs.get_mut().write_all(answer.as_bytes()).unwrap();
            }
            // the rest of an answer, and the end, answer two more
            for _ in 0..2 {
                theirs.read_line(&mut String::new()).unwrap();
            }
        });
        let mut connection = Connection::over(ours, TIMEOUT, 16).unwrap();
        let request = serde_json::json!({ "cmd": "status" });
        for expected in ["{\"ok\":1}\n", "1234567890123456", "789\n", ""] {
            let answer = connection.ask(&request);
            assert_eq!(answer.unwrap(), expected.as_bytes());
        }
        server.join().unwrap();
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::over(ours, Duration::from_millis(1), 16).unwrap();
        let silent = connection.ask(&"anybody?").unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("of/socket");
        for (is_for_group, mode) in [(true, 0o600), (false, 0o660)] {
            let listener = bind(&path, "no group of this name", is_for_group).unwrap();
            let there = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(there & 0o777, mode);
            let living = bind(&path, "no group of this name", is_for_group);
            assert_eq!(living.unwrap_err().kind(), ErrorKind::AddrInUse);
            drop(listener);
        }
        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        let refused = bind(&file, "no group of this name", true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    }
}
