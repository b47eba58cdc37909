//! Names that most tests use.

pub(crate) use std::collections::{BTreeMap, BTreeSet};
pub(crate) use std::fs;
pub(crate) use std::net::Ipv6Addr;
pub(crate) use std::os::unix::fs::PermissionsExt;
pub(crate) use std::path::{Path, PathBuf};
pub(crate) use std::thread::sleep;
pub(crate) use std::time::{Duration, Instant};

pub(crate) use anyhow::{Context, Result, bail, ensure};
pub(crate) use lcroute_demo::lab::{
    DEADLINE, Exposition, Host, LAN, Lab, Member, Network, Output, Process, Receiver,
    SignallingServer, Site, Turn, UPLINK, eventually, make_folder, noise, open_sockets,
    same_content, wait_reach, within,
};
pub(crate) use librecast::id::SecretKey;
pub(crate) use librecast::time::UnixTime;
pub(crate) use nix::sys::signal::{Signal, kill};
pub(crate) use nix::unistd::Pid;
pub(crate) use serde_json::{Value, json};

pub(crate) use crate::guest::guests;
pub(crate) use crate::lan::two_lans;
pub(crate) use crate::segment::two_houses;
pub(crate) use crate::waits::{at_least, becomes, exceeds, shows_all, tells};
pub(crate) use crate::{on_a_lan, with_members, world, world_alone};
