//! Resources of a process, from `/proc`.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Returns the CPU time of a process in seconds, all threads, user and system.
///
/// The scheduler's account is exact but lacks ended threads; the other one has them, in hundredths
/// of a second. The larger value counts.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context(path)?;
    let ticks = ticks(&stat).with_context(|| stat.clone())?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("clock ticks")?;
    Ok(scheduled(pid)
        .unwrap_or(0.0)
        .max(ticks as f64 / per_second as f64))
}

/// Returns the run time of a process's threads in seconds.
fn scheduled(pid: u32) -> Option<f64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end during the reads.
        let account = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let first = account.split(' ').next().unwrap_or_default();
        nanos += first.parse::<u64>().unwrap_or(0);
    }
    Some(nanos as f64 / 1e9)
}

/// Returns `utime` and `stime` (proc(5)), which follow the name in brackets, an arbitrary text.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Returns the resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(path)?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    let kib = line.trim().trim_end_matches("kB").trim();
    Ok(kib.parse::<u64>().with_context(|| kib.to_owned())? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) R 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (short) R 1 2"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let own = std::process::id();
        assert!(resident_bytes(own).unwrap() > 100_000);
        assert!(cpu_seconds(own).is_ok());
    }
}
