//! `lcgroup device`: the devices of this host's member.

use std::time::Duration;

use librecast_program::cli::{Exit, print_line};
use librecast_program::groups;

use super::{SEALED_TIMEOUT, Verbs, Waiting, printable, text};
use crate::names::mark;
use crate::request::{DeviceStatus, MemberStatus, Request};

/// The name of the first device, which chose none.
const FIRST: &str = "first";

impl Verbs {
    pub fn device_add(&self, group: String, expires: Duration) -> anyhow::Result<Exit> {
        let expires_s = expires.as_secs();
        let of = group.clone();
        let answer = self.ask_when_checked(&Request::DeviceAdd { group, expires_s }, &of)?;
        self.say(&answer, |a| text(&a["invitation"]))
    }

    pub fn device_list(&self, group: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Devices { group })?;
        if self.json {
            print_line(answer.to_string())?;
            return Ok(Exit::Ok);
        }
        let member: MemberStatus = serde_json::from_value(answer)?;
        for device in &member.devices {
            print_line(line(device, &member))?;
        }
        Ok(Exit::Ok)
    }

    pub fn device_remove(&self, group: String, device: String) -> anyhow::Result<Exit> {
        let of = group.clone();
        let request = Request::DeviceRemove { group, device };
        let answer = self.ask_when_checked(&request, &of)?;
        let gone = text(&answer["author"]);
        let mut waiting = Waiting::new(self.json);
        let done = self.wait_until(SEALED_TIMEOUT, || {
            waiting.tell(|| "waits for the group's owner, whose host removes it".into());
            let group = of.clone();
            // this device cannot ask any more if it removed itself
            let Ok(left) = self.ask(&Request::Devices { group }) else {
                return Ok(Some(()));
            };
            let left: MemberStatus = serde_json::from_value(left)?;
            let is_gone = |device: &DeviceStatus| device.author.to_string() == gone;
            Ok((!left.devices.iter().any(is_gone)).then_some(()))
        })?;
        self.say(&answer, |_| match done {
            Some(()) => "removed; it reads nothing that is said from now on".into(),
            None => format!(
                "asked: the owner's host removes it once it runs, and until then it reads what is said (`lcgroup device list {of}`)"
            ),
        })
    }

    /// Tells the running program that its user has read the messages up to `n`.
    pub(super) fn mark_read(&self, group: &str, n: u64) {
        let group = group.to_owned();
        // messages that stay unread do no harm
        let _ = groups::ask::<serde_json::Value>(&self.control, &Request::Read { group, n }, true);
    }
}

fn line(device: &DeviceStatus, member: &MemberStatus) -> String {
    let first = (device.author == member.person).then_some(FIRST);
    let label = device.label.as_deref().or(first).unwrap_or("?");
    let marks = [(device.owner, " owner"), (device.me, " this host")];
    let marks: String = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
    let (number, label) = (device.number, printable(label));
    format!("{number} {label:<18} #{}{marks}", mark(&device.author))
}

/// What `members` shows of a member with several devices.
pub(super) fn count(member: &MemberStatus) -> String {
    match member.devices.len() {
        0 | 1 => String::new(),
        n => format!(" {n} devices"),
    }
}

/// The name of this host, for a device that got none.
pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    let name = name.unwrap_or_default();
    let name = name.split('.').next().unwrap_or_default();
    let short: String = name.chars().take(lcgroup_core::MAX_LABEL).collect();
    match crate::room::label(&short) {
        Ok(label) => label,
        Err(_) => "device".to_owned(),
    }
}
