//! `lcgroup call`: a call with the members. In a group with a network of its own, this command goes
//! on as lcradio, on a port of that network.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IoSliceMut};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use librecast::text::{TextKind, decode};
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError, note, print_line};
use librecast_program::groups;
use librecast_program::guest;
use nix::sys::socket::{MsgFlags, recvmsg};
use zeroize::Zeroizing;

use super::{Verbs, hint, text};
use crate::child;
use crate::hub;
use crate::request::{Entered, MemberStatus, Request};

/// The program that takes part in calls.
const LCRADIO: &str = "lcradio";
/// Bytes of a call's seed.
const SEED: usize = 32;
/// Longest wait for a port. Chosen: lcgroup itself waits for 2 s.
const ENTER_TIMEOUT: Duration = Duration::from_secs(10);

/// A port of a group's own network.
struct Port {
    fd: OwnedFd,
    /// The address of lc0, and the link-local one.
    addresses: (Ipv6Addr, Ipv6Addr),
}

impl Verbs {
    /// Begins a call with the members, or takes part in one. `options` are lcradio's.
    pub fn call(
        &self,
        group: &str,
        call: Option<&str>,
        options: &[OsString],
    ) -> anyhow::Result<Exit> {
        let Some(network) = self.group(group)?.network else {
            if call.is_some() || !options.is_empty() {
                let text = format!(
                    "{group} has no network of its own: `lcradio call lcc1...` takes part in its calls, and takes these options"
                );
                return Err(ExitError::new(Exit::Usage, text).into());
            }
            self.begin_call(group, false)?;
            if !self.json {
                let text = "`lcradio call lcc1...` takes part, and so does the page /call/";
                hint(text);
            }
            return Ok(Exit::Ok);
        };
        // the members are told of nothing in which this user cannot take part
        let program = child::found(LCRADIO).ok_or_else(|| {
            let text = "calls in a group's own network need the program lcradio, which is not installed here";
            ExitError::new(Exit::Failed, text)
        })?;
        let given = call.map(call_of).transpose()?;
        let port = self.enter(group)?;
        if let Some(waits) = network.waits.filter(|_| !self.json) {
            hint(waits);
        }
        let call = match given {
            Some(call) => call,
            None => self.begin_call(group, is_given(options, &["--output"]))?,
        };
        let mut command = Command::new(program);
        if self.json {
            command.arg("--json");
        }
        command.arg("call");
        if !is_given(options, &["--name", "--listen"])
            && let Some(name) = self.own_name(group)?
        {
            command.arg(format!("--name={name}"));
        }
        // in no argument, as other users see these
        let pipe = guest::inherited(call.as_bytes())?;
        guest::keep_open(pipe.as_fd(), true)?;
        let file = format!("--call-file=/proc/self/fd/{}", pipe.as_raw_fd());
        command.arg(file).args(options);
        hub::lead(&mut command, port.fd.as_fd(), port.addresses);
        command.env(guest::ROLE, guest::MEMBER);
        Err(command.exec()).context(LCRADIO)
    }

    /// Sends a new call's text to the members, and prints and returns it. Standard output may be for
    /// sound.
    fn begin_call(&self, group: &str, is_for_sound: bool) -> anyhow::Result<Zeroizing<String>> {
        let request = Request::Call {
            group: group.to_owned(),
        };
        let answer = self.ask_when_checked(&request, group)?;
        let call = Zeroizing::new(text(&answer["call"]));
        let answer = self.spoken(group, answer)?;
        let line = match self.json {
            true => Zeroizing::new(answer.to_string()),
            false => call.clone(),
        };
        match is_for_sound {
            true => note(&*line),
            false => print_line(&*line)?,
        }
        if !self.json {
            hint("the members are told");
            Self::tell_kept(&answer);
        }
        Ok(call)
    }

    /// Returns this member's name in the group.
    fn own_name(&self, group: &str) -> anyhow::Result<Option<String>> {
        let group = group.to_owned();
        let mut answer = self.ask(&Request::Members { group })?;
        let members: Vec<MemberStatus> = serde_json::from_value(answer["members"].take())?;
        let own = members.into_iter().find(|member| member.me);
        Ok(own.map(|own| own.name))
    }

    /// Opens a port of the group's own network.
    fn enter(&self, group: &str) -> anyhow::Result<Port> {
        let request = Request::Enter {
            group: group.to_owned(),
        };
        let stream = groups::send(&self.control, &request)?.into_inner();
        stream.set_read_timeout(Some(ENTER_TIMEOUT))?;
        let (line, fd) = received(stream).context("lcgroup gives no answer")?;
        let answer: groups::Answer<Entered> = serde_json::from_slice(&line)?;
        let Entered {
            address,
            link_local,
        } = answer.result()?;
        Ok(Port {
            fd: fd.context("lcgroup passes no descriptor")?,
            addresses: (address, link_local),
        })
    }
}

/// Returns the call that an argument names; `-` reads it from standard input.
fn call_of(argument: &str) -> anyhow::Result<Zeroizing<String>> {
    let given = arguments::secret(argument).context("standard input")?;
    // a page's link has a token before it
    let (_, call) = guest::split_token(&given);
    decode(TextKind::Call, call, SEED).map_err(|e| ExitError::new(Exit::Usage, e.to_string()))?;
    Ok(Zeroizing::new(call.to_owned()))
}

/// Whether one of these options is among those of the user.
fn is_given(options: &[OsString], wanted: &[&str]) -> bool {
    let names = options.iter().filter_map(|option| option.to_str());
    let mut names = names.map(|option| option.split_once('=').map_or(option, |(name, _)| name));
    names.any(|name| wanted.contains(&name))
}

/// Reads a line, and the descriptor that comes with its first byte.
fn received(stream: UnixStream) -> anyhow::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut first = [0; 1];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut first)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let fd = hub::descriptor(&message)?;
    anyhow::ensure!(message.bytes > 0, "it ended");
    let mut line = first.to_vec();
    BufReader::new(stream).read_until(b'\n', &mut line)?;
    Ok((line, fd))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;
    use std::thread;

    use librecast::text::encode;
    use nix::sys::eventfd::EventFd;

    use super::*;
    use crate::carry::tests::{assert_speaks, carried};
    use crate::server::{Answer, serve};

    #[test]
    fn a_user_gets_a_port_of_the_groups_network_over_the_control_socket() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control");
        let listener = UnixListener::bind(&control).unwrap();
        let requests = serve(listener, Arc::new(EventFd::new().unwrap())).unwrap();
        let (lc0, node) = carried();
        let addresses = lc0.addresses;
        thread::spawn(move || {
            for asked in requests {
                let answer = match asked.request {
                    Request::Enter { group } if group == "team" => Answer::Enter(lc0.clone()),
                    _ => Answer::Error("no group is called so".into(), 2),
                };
                asked.answer.send(answer).unwrap();
            }
        });
        let to = Verbs {
            control,
            json: false,
        };
        let port = to.enter("team").unwrap();
        assert_eq!(port.addresses, addresses);
        assert_speaks(&port.fd, &node);
        let e = to.enter("other").map(drop).unwrap_err();
        assert_eq!(e.downcast_ref::<ExitError>().unwrap().exit, Exit::Usage);
    }

    #[test]
    fn a_call_is_its_text_also_behind_a_token_and_nothing_else() {
        let call = encode(TextKind::Call, &[7; SEED]);
        assert_eq!(call_of(&call).unwrap(), call);
        assert_eq!(call_of(&format!("lct1abc,{}", *call)).unwrap(), call);
        let long = "lcc1".repeat(50_000);
        for other in ["", "team", "lcc1", &call[..20], &long[..]] {
            let e = call_of(other).unwrap_err();
            assert_eq!(e.downcast_ref::<ExitError>().unwrap().exit, Exit::Usage);
        }
    }

    #[test]
    fn an_option_is_given_with_a_value_behind_it_or_in_it() {
        let options = ["--output", "-", "--name=Bob"].map(OsString::from);
        assert!(is_given(&options, &["--output"]) && is_given(&options, &["--name"]));
        assert!(!is_given(&options, &["--listen", "-o"]));
    }
}
