//! Actions on a run, as a list that can be shortened, written down and replayed.

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;
use std::str::FromStr;

use librecast::cert::GroupPrefix;

use crate::time::{At, Nanos};

/// Sources of a group that a node's programs want, as node numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SourceFilter {
    /// None: the group is not joined.
    #[default]
    Nothing,
    /// All sources.
    All,
    /// Only these sources.
    Only(Vec<u32>),
    /// All sources except these.
    Except(Vec<u32>),
}

/// An action on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The daemon of a node starts.
    Start(u32),
    /// The daemon ends with a goodbye.
    Stop(u32),
    /// The daemon ends without a goodbye.
    Crash(u32),
    /// The programs of a node join a group with this filter.
    Join(u32, Ipv6Addr, SourceFilter),
    /// A program sends a packet of this number of bytes.
    Send(u32, Ipv6Addr, u16),
    /// A node announces exactly these prefixes.
    Announce(u32, Vec<GroupPrefix>),
    /// The link between two nodes fails silently; without one, another link of the first.
    Break(u32, u32),
    /// Two nodes are cut from each other.
    Cut(u32, u32),
    /// The cut of two nodes ends.
    Mend(u32, u32),
    /// These nodes are cut off from all other nodes.
    Partition(Vec<u32>),
    /// The partition ends.
    Heal,
    /// The operator of a node expels another one.
    Revoke(u32, u32),
    /// All hosts advance their clocks by this number of seconds.
    Clocks(u64),
    /// The signalling server becomes reachable or unreachable.
    Server(bool),
    /// Links stop losing messages and changing.
    Calm,
    /// The network is stable: every listener must receive every packet of every source.
    Check,
    /// All have left for a while: no state may remain.
    Empty,
}

impl Action {
    /// Returns the acting node.
    pub fn node(&self) -> Option<u32> {
        match self {
            Self::Start(node)
            | Self::Stop(node)
            | Self::Crash(node)
            | Self::Join(node, ..)
            | Self::Send(node, ..)
            | Self::Announce(node, _)
            | Self::Break(node, _)
            | Self::Cut(node, _)
            | Self::Mend(node, _)
            | Self::Revoke(node, _) => Some(*node),
            _ => None,
        }
    }

    /// Returns all nodes of the action.
    pub fn nodes(&self) -> impl Iterator<Item = u32> {
        let more: &[u32] = match self {
            Self::Join(_, _, SourceFilter::Only(nodes) | SourceFilter::Except(nodes)) => nodes,
            Self::Partition(nodes) => nodes,
            Self::Break(_, other)
            | Self::Cut(_, other)
            | Self::Mend(_, other)
            | Self::Revoke(_, other) => std::slice::from_ref(other),
            _ => &[],
        };
        self.node().into_iter().chain(more.iter().copied())
    }
}

/// Actions with their times, in order.
pub type Script = Vec<(Nanos, Action)>;

/// Formats a line of a script.
pub fn line((at, action): &(Nanos, Action)) -> String {
    format!("{} {action}", At(*at))
}

/// Parses a line of a script.
pub fn parse_line(text: &str) -> Result<(Nanos, Action), String> {
    let (at, action) = text
        .trim()
        .split_once(' ')
        .ok_or("a time, then an action")?;
    Ok((at.parse::<At>()?.0, action.parse()?))
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(node) => write!(f, "start {node}"),
            Self::Stop(node) => write!(f, "stop {node}"),
            Self::Crash(node) => write!(f, "crash {node}"),
            Self::Join(node, group, filter) => match filter {
                SourceFilter::Nothing => write!(f, "leave {node} {group}"),
                SourceFilter::All => write!(f, "join {node} {group} all"),
                SourceFilter::Only(sources) => {
                    write!(f, "join {node} {group} only{}", list(sources))
                }
                SourceFilter::Except(sources) => {
                    write!(f, "join {node} {group} except{}", list(sources))
                }
            },
            Self::Send(node, group, bytes) => write!(f, "send {node} {group} {bytes}"),
            Self::Announce(node, prefixes) => {
                write!(f, "announce {node}")?;
                for prefix in prefixes {
                    write!(f, " {prefix}")?;
                }
                Ok(())
            }
            Self::Break(a, b) => write!(f, "break {a} {b}"),
            Self::Cut(a, b) => write!(f, "cut {a} {b}"),
            Self::Mend(a, b) => write!(f, "mend {a} {b}"),
            Self::Partition(side) => write!(f, "partition{}", list(side)),
            Self::Heal => f.write_str("heal"),
            Self::Revoke(by, node) => write!(f, "revoke {by} {node}"),
            Self::Clocks(seconds) => write!(f, "clocks {seconds}"),
            Self::Server(true) => f.write_str("server up"),
            Self::Server(false) => f.write_str("server down"),
            Self::Calm => f.write_str("calm"),
            Self::Check => f.write_str("check"),
            Self::Empty => f.write_str("empty"),
        }
    }
}

fn list(nodes: &[u32]) -> String {
    let mut text = String::new();
    for node in nodes {
        // writing into a string cannot fail
        let _ = write!(text, " {node}");
    }
    text
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Words(text, text.split_whitespace());
        let verb = words.word()?;
        let action = match verb {
            "start" => Self::Start(words.parse()?),
            "stop" => Self::Stop(words.parse()?),
            "crash" => Self::Crash(words.parse()?),
            "leave" => Self::Join(words.parse()?, words.parse()?, SourceFilter::Nothing),
            "join" => Self::Join(words.parse()?, words.parse()?, words.filter()?),
            "send" => Self::Send(words.parse()?, words.parse()?, words.parse()?),
            "announce" => Self::Announce(words.parse()?, words.rest()?),
            "break" => Self::Break(words.parse()?, words.parse()?),
            "cut" => Self::Cut(words.parse()?, words.parse()?),
            "mend" => Self::Mend(words.parse()?, words.parse()?),
            "partition" => Self::Partition(words.rest()?),
            "heal" => Self::Heal,
            "revoke" => Self::Revoke(words.parse()?, words.parse()?),
            "clocks" => Self::Clocks(words.parse()?),
            "server" => Self::Server(match words.word()? {
                "up" => true,
                "down" => false,
                word => return Err(format!("`{word}` in `{text}`: up or down")),
            }),
            "calm" => Self::Calm,
            "check" => Self::Check,
            "empty" => Self::Empty,
            _ => return Err(format!("`{verb}` is no action")),
        };
        match words.1.next() {
            None => Ok(action),
            Some(word) => Err(format!("`{word}` is too much in `{text}`")),
        }
    }
}

struct Words<'a>(&'a str, std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, String> {
        let missing = || format!("something is missing in `{}`", self.0);
        self.1.next().ok_or_else(missing)
    }

    fn parse<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse()
            .map_err(|_| format!("`{word}` does not fit in `{}`", self.0))
    }

    fn rest<T: FromStr>(&mut self) -> Result<Vec<T>, String> {
        let mut rest = Vec::new();
        while self.1.clone().next().is_some() {
            rest.push(self.parse()?);
        }
        Ok(rest)
    }

    fn filter(&mut self) -> Result<SourceFilter, String> {
        match self.word()? {
            "all" => Ok(SourceFilter::All),
            "only" => Ok(SourceFilter::Only(self.rest()?)),
            "except" => Ok(SourceFilter::Except(self.rest()?)),
            word => Err(format!("`{word}` in `{}`: all, only or except", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let lines = [
            "0.000000001 start 3",
            "1.500000000 stop 0",
            "1.500000000 crash 0",
            "2.000000000 join 1 ff1e::1 all",
            "2.000000000 join 1 ff1e::1 only 2 3",
            "2.000000000 join 1 ff1e::1 except 2",
            "2.000000000 leave 1 ff1e::1",
            "2.000000000 send 1 ff1e::1 100",
            "2.000000000 announce 1 ff1e:0:1::/48 ff1e:0:2::/48",
            "2.000000000 announce 1",
            "2.000000000 break 1 2",
            "2.000000000 cut 1 2",
            "2.000000000 mend 1 2",
            "2.000000000 partition 1 2 3",
            "2.000000000 heal",
            "2.000000000 revoke 1 2",
            "2.000000000 clocks 86400",
            "2.000000000 server down",
            "2.000000000 server up",
            "2.000000000 calm",
            "2.000000000 check",
            "2.000000000 empty",
        ];
        for text in lines {
            assert_eq!(line(&parse_line(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_action_is_named() {
        for text in [
            "",
            "1",
            "1 dance 3",
            "x start 3",
            "1 start",
            "1 start 3 4",
            "1 start -3",
            "1 join 3 ff1e::1 some",
            "1 announce 3 fd00::/8",
            "1 server sideways",
        ] {
            assert!(parse_line(text).is_err(), "{text}");
        }
    }
}
