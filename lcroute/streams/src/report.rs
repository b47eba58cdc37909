//! Reports about one stream between this program and a program that serves commands, beside the
//! stream: the command's end, and that the stream broke off. An end of file cannot express them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use librecast::stream::End;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Time limit for a program to confirm that it has passed on the end of a broken stream.
const PASSED_ON_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum length of a line in bytes: an end has some twenty.
const MAX_REPORT: usize = 64;

/// This side of the socket for reports.
#[derive(Debug)]
pub struct Report(UnixStream);

impl Report {
    /// Returns both sides; the second is the program's.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self(UnixStream::from_std(ours)?), theirs.into()))
    }

    /// Returns the command's end. A program that ends without a report has broken off the stream.
    pub async fn end(&mut self) -> End {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            if line.len() >= MAX_REPORT {
                return End::Reset;
            }
            match self.0.read_buf(&mut line).await {
                Ok(0) | Err(_) => return End::Reset,
                Ok(_) => {}
            }
        }
        match serde_json::from_slice(&line) {
            Ok(end @ (End::Exited(_) | End::Killed(_))) => end,
            _ => End::Reset,
        }
    }

    /// Reports that the stream broke off; waits until the program made the command's input fail.
    pub async fn break_off(mut self) {
        let told = async {
            let mut line = serde_json::to_vec(&End::Reset)?;
            line.push(b'\n');
            self.0.write_all(&line).await?;
            self.0.read(&mut [0; MAX_REPORT]).await
        };
        // the program may have gone, or be busy: then the command's input ends in any way
        let _ = timeout(PASSED_ON_TIMEOUT, told).await;
    }
}
