//! Leaves that attend a lecture by its link: their requests, and the cost of these.

use lcstudio_core::{Session, TrackName};

use crate::guest::{as_nobody, open_driver};
use crate::prelude::*;
use crate::studio::{
    Typed, attend, bytes_of_tracks, count_tracks, keygen, present, session, told, until_told,
};

/// Lines of captions before anybody attends.
const LINES: u32 = 20;

/// A lecture on the air, in a network behind closed firewalls.
pub(crate) struct Lecture {
    pub network: Network,
    pub presenter: Typed,
    /// `lct1...,lcs1...`
    pub link: String,
    session: Session,
}

impl Lecture {
    pub fn begin(lab: &Lab) -> Result<(Self, Vec<Host>)> {
        open_driver()?;
        let mut network = lab.closed_network(["stage", "text"])?;
        network.signalling.restart_with_relay()?;
        let leaves = lab.closed_hosts(&["bob", "eve"])?;
        let stage = &network.members[0].host;
        let writer = &network.members[1].host;
        let (writes, _, public) = keygen(writer, "ann.key")?;
        let (folder, key, text) = session(stage, Some(&public))?;
        let presenter = present(stage, &folder, &key)?;
        let url = network.signalling.url()?;
        let path = folder.display().to_string();
        let invite = ["invite", &path, "--signal", &url];
        let invited = stage.run("lcstudio", &invite)?.success()?;
        let link = invited.stdout.trim().to_owned();
        ensure!(link.ends_with(&format!(",{text}")), "{link}");
        let lecture = Self {
            network,
            presenter,
            link,
            session: Session::decode(&text)?,
        };
        lecture.write_captions(&writes, &text)?;
        Ok((lecture, leaves))
    }

    fn stage(&self) -> &Host {
        &self.network.members[0].host
    }

    fn write_captions(&self, key: &str, text: &str) -> Result<()> {
        let writer = &self.network.members[1].host;
        let lines = (0..LINES)
            .map(|n| format!("line {n}\n"))
            .collect::<String>();
        writer.write("lines", &lines)?;
        let command = format!(
            "(while read line; do echo \"$line\"; sleep 0.1; done <{}; sleep 2) | \
             lcstudio caption {text} --key {key} --lang en -i lc0 -",
            writer.path("lines").display()
        );
        writer.sh(&command)?.success()?;
        Ok(())
    }

    /// Attends as user nobody, by the link.
    fn attend(&self, host: &Host, name: &str) -> Result<Typed> {
        let program = ["lcstudio", "--json", "attend", &self.link, "--name", name];
        let command = as_nobody(&program).join(" ");
        Typed::start(host, name, &format!("setpriv {command}"))
    }

    /// The live groups, by the names of their tracks.
    fn live(&self) -> Result<BTreeMap<String, Ipv6Addr>> {
        let key = self.stage().path("talk.key");
        let seed = librecast_program::keyfile::load_signing_key(&key)?.seed();
        let key = lcstudio_core::SessionKey::from_seed(&seed);
        let mut groups = BTreeMap::new();
        groups.insert("index".to_owned(), self.session.index().group());
        for name in ["slides", "turn", "questions", "captions/en"] {
            let track: TrackName = name.parse()?;
            let owner = key.track_key(&track).peer_id();
            groups.insert(name.to_owned(), self.session.space(owner).group());
        }
        Ok(groups)
    }
}

/// Waits until it has the slide and all captions.
fn has_all(process: &Process, slide: u32) -> Result<()> {
    eventually("the slide and all captions", || {
        told(process, "slide", "number", &slide.into())?;
        for n in 0..LINES {
            told(process, "caption", "text", &format!("line {n}").into())?;
        }
        Ok(())
    })
}

#[test]
fn a_leaf_that_comes_late_has_the_lecture_and_asks_a_question() {
    world("asking", |lab| {
        let (mut lecture, leaves) = Lecture::begin(lab)?;
        lecture.presenter.types("")?;
        let mut bob = lecture.attend(&leaves[0], "Bob")?;
        has_all(&bob.process, 2)?;
        let words = "why do they dance?".into();
        bob.types("why do they dance?")?;
        until_told(&lecture.presenter.process, "question", "text", &words)?;
        lecture.presenter.types("a 1")?;
        until_told(&bob.process, "question", "text", &words)?;
        // notes are for members: any member may write them
        let notes = leaves[1].path("notes.md");
        let refused = format!(
            "setpriv {} notes {} {}",
            as_nobody(&["lcstudio"]).join(" "),
            lecture.link,
            notes.display()
        );
        leaves[1].sh(&refused)?.fails(4, "leaf")
    });
}

#[test]
fn a_leaf_without_udp_attends_by_the_relay_of_the_signalling_server() {
    world("asking-relay", |lab| {
        let (lecture, leaves) = Lecture::begin(lab)?;
        leaves[0].drop_udp()?;
        let mut bob = lecture.attend(&leaves[0], "Bob")?;
        has_all(&bob.process, 1)?;
        bob.types("does this come?")?;
        let words = "does this come?".into();
        until_told(&lecture.presenter.process, "question", "text", &words)
    });
}

/// Returns the processor time of a process in seconds.
fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
    Ok(ticks as f64 / per_second.context("ticks")? as f64)
}

/// Late comers, and leaves that ask all the time: what the rest of the audience receives stays the
/// same, and the presenter has little work.
#[test]
#[ignore = "long: `make test-all`"]
fn late_comers_and_hostile_leaves_add_nothing_to_the_live_groups() {
    const WINDOW: Duration = Duration::from_secs(20);
    const LATE: u32 = 12;
    const HOSTILE: u32 = 24;
    world_alone("asking-long", |lab| {
        let (lecture, leaves) = Lecture::begin(lab)?;
        // a member in the audience, at rest
        let member = &lecture.network.members[1].host;
        let sits = attend(member, "sits", &lecture.session.encode(), "")?;
        has_all(&sits.process, 1)?;
        let groups = lecture.live()?;
        count_tracks(member, &groups)?;
        let all = || Ok::<u64, anyhow::Error>(bytes_of_tracks(member, &groups)?.values().sum());
        // heads come less often from minute to minute
        sleep(2 * WINDOW);
        let before = all()?;
        sleep(WINDOW);
        let without = all()? - before;
        let before = all()?;
        let late = (0..LATE).map(|n| lecture.attend(&leaves[0], &format!("late{n}")));
        let late = late.collect::<Result<Vec<_>>>()?;
        sleep(WINDOW);
        let with = all()? - before;
        late.iter().try_for_each(|late| has_all(&late.process, 1))?;
        eprintln!("live groups: {without} bytes without late comers, {with} with {LATE}");
        ensure!(with <= without + 400);
        // each asks twice a second on the asking group of the slides, and on invented ones
        let asking = lecture.session.index().groups().asking;
        let (token, _) = lecture.link.split_once(',').context("a link")?;
        let file = leaves[1].write("token", token)?.display().to_string();
        let asks = format!(
            "while kill -0 $$; do for g in {asking} {asking}; do lcroute say $g x; done; sleep 0.8; done"
        );
        let program = [
            "lcroute",
            "guest",
            "--token-file",
            &file,
            "--",
            "sh",
            "-c",
            &asks,
        ];
        let program = as_nobody(&program);
        let hostile = (0..HOSTILE).map(|_| leaves[1].spawn("setpriv", &program));
        let hostile = hostile.collect::<Result<Vec<_>>>()?;
        sleep(WINDOW);
        let presenter = lecture.presenter.process.pid();
        let (used, before) = (cpu(presenter)?, all()?);
        sleep(WINDOW);
        let used = (cpu(presenter)? - used) / WINDOW.as_secs_f64();
        let with = all()? - before;
        let mut drops = 0;
        for member in &lecture.network.members {
            let status = member.status()?;
            let limited = &status["counters"]["drops"]["leaf_uplink_rate"];
            drops += limited.as_u64().unwrap_or_default();
        }
        eprintln!(
            "{HOSTILE} hostile leaves: presenter {used:.3} of a core, {with} bytes live, {drops} dropped"
        );
        ensure!(used < 0.05, "{used} of a core");
        ensure!(with <= without + 400);
        let bob = lecture.attend(&leaves[0], "Bob")?;
        has_all(&bob.process, 1)?;
        drop(hostile);
        Ok(())
    });
}
