//! Facts of a node.

use std::fs;

use librecast::socket::interfaces;

/// Returns names and values in display order.
#[must_use]
pub fn collect(running: usize, modules: &[String]) -> Vec<(String, String)> {
    // not from /proc: a sandbox may show only processes there
    let system = nix::sys::sysinfo::sysinfo().ok();
    let uname = nix::sys::utsname::uname().ok();
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let mut facts = vec![
        ("os", os_name()),
        (
            "kernel",
            uname
                .as_ref()
                .map(|u| text(u.release()))
                .unwrap_or_default(),
        ),
        (
            "arch",
            uname
                .as_ref()
                .map(|u| text(u.machine()))
                .unwrap_or_default(),
        ),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "uptime_s",
            system
                .as_ref()
                .map(|s| s.uptime().as_secs().to_string())
                .unwrap_or_default(),
        ),
        (
            "load",
            system
                .as_ref()
                .map(|s| format!("{:.2}", s.load_average().0))
                .unwrap_or_default(),
        ),
        ("jobs", running.to_string()),
        ("addresses", addresses()),
        ("modules", modules.join(" ")),
    ];
    if let Ok(cpus) = std::thread::available_parallelism() {
        facts.push(("cpus", cpus.to_string()));
    }
    facts.retain(|(_, value)| !value.is_empty());
    let owned = facts.into_iter().map(|(n, v)| (n.to_owned(), v));
    owned.collect()
}

fn os_name() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

fn addresses() -> String {
    /// Addresses that are shown.
    const MOST: usize = 8;
    let all = interfaces().unwrap_or_default();
    let global = all
        .values()
        .flat_map(|i| i.addresses.iter())
        .filter(|a| !a.is_loopback() && !a.is_unicast_link_local());
    let shown: Vec<String> = global.take(MOST).map(ToString::to_string).collect();
    shown.join(" ")
}
