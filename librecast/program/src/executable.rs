//! Our other programs: their places, and how a program starts one that ends with it.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Returns the places of a program: beside this one, as in a checkout, and where packages install
/// it.
pub fn places(program: &str) -> io::Result<Vec<PathBuf>> {
    let own = env::current_exe()?;
    let folder = own.parent().into_iter();
    let places =
        folder.flat_map(|dir| [dir.join(program), dir.join("../lib/lcroute").join(program)]);
    Ok(places.collect())
}

/// Starts a program, found there or by `$PATH`, with a connection as its standard input. The
/// program must end with that.
pub fn start_on_socket(program: &str) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let found = places(program)?.into_iter().find(|place| place.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| program.into()));
    command.arg("--stdin").stdin(OwnedFd::from(theirs));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // the kernel keeps an ended process until its parent asks
    std::thread::spawn(move || child.wait());
    Ok(ours)
}
