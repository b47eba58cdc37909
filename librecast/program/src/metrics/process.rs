//! Metrics of every process, under the common names of Prometheus' own libraries.

use librecast::time::UnixTime;

use super::{Description, Page};

/// Metrics of each of our programs.
pub const PROCESS: &[Description] = &[
    Description::counter(
        "process_cpu_seconds_total",
        &[],
        "CPU time of this process in seconds, of user and system together",
    ),
    Description::gauge(
        "process_resident_memory_bytes",
        &[],
        "Resident memory in bytes",
    ),
    Description::gauge("process_open_fds", &[], "Open file descriptors"),
    Description::gauge(
        "process_start_time_seconds",
        &[],
        "When this process began, in seconds of Unix time",
    ),
];

/// CPU time in user mode, in clock ticks: a field of `/proc/self/stat` after the name, which may
/// contain spaces (proc_pid_stat(5) counts from 1, these from 3).
const UTIME: usize = 14 - 3;
/// CPU time in the kernel, in clock ticks.
const STIME: usize = 15 - 3;
/// Start of the process, in clock ticks since the host's boot.
const START: usize = 22 - 3;
/// Resident memory in pages.
const RSS: usize = 24 - 3;

/// Adds the metrics that /proc provides.
pub(super) fn describe(page: &mut Page) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().collect(),
        None => Vec::new(),
    };
    let field = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let ticks = sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let seconds = |n: u64| n as f64 / ticks.unwrap_or(100) as f64;
    if let (Some(user), Some(system)) = (field(UTIME), field(STIME)) {
        page.put_float(&PROCESS[0], &[], seconds(user + system));
    }
    if let (Some(pages), Some(size)) = (field(RSS), sysconf(nix::unistd::SysconfVar::PAGE_SIZE)) {
        page.put(&PROCESS[1], pages * size);
    }
    if let Ok(list) = std::fs::read_dir("/proc/self/fd") {
        page.put(&PROCESS[2], list.count() as u64);
    }
    if let (Some(boot), Some(start)) = (boot_time(), field(START)) {
        page.put_float(&PROCESS[3], &[], boot + seconds(start));
    }
}

fn sysconf(what: nix::unistd::SysconfVar) -> Option<u64> {
    u64::try_from(nix::unistd::sysconf(what).ok()??).ok()
}

/// Returns the boot time in seconds of Unix time, without /proc/stat, which units may hide.
fn boot_time() -> Option<f64> {
    let since = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
    let now = UnixTime::now().since_1970();
    Some(now.as_secs_f64() - std::time::Duration::from(since).as_secs_f64())
}
