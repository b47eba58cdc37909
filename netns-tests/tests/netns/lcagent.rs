//! lcagent: an operator and agents on a plain LAN, and over lc0 behind closed firewalls.

use crate::prelude::*;

#[test]
fn every_node_runs_the_command_and_its_output_comes_back_with_its_name() {
    world("agt-exec", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let said = fleet
            .exec(&["--", "sh", "-c", "echo I am here"])?
            .success()?;
        for agent in ["first", "second", "third"] {
            let line = format!("{agent}: I am here\n");
            said.prints(&line)?;
        }
        ensure!(said.stdout.lines().count() == 3, "{}", said.stdout);
        let folded = fleet.exec(&["-b", "--", "echo", "same"])?.success()?.stdout;
        ensure!(
            folded.contains("first,second,third (3)") && folded.matches("same").count() == 1,
            "{folded}"
        );
        let web = fleet
            .exec(&["--on", "role=web,!third", "--", "echo", "x"])?
            .success()?;
        ensure!(web.stdout == "first: x\n", "{}", web.stdout);
        // as the shell passes it
        let plain = fleet.exec(&["--on", "first", "echo", "-n", "x"])?;
        let plain = plain.success()?.stdout;
        holds!(plain == "first: x\n", "{plain}")
    });
}

#[test]
fn a_failing_node_is_named_and_the_exit_code_is_1() {
    world("agt-fail", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let script = "test $(hostname) != x; [ \"$LCAGENT_JOB\" ] && exit 3";
        fleet
            .exec(&["--on", "second", "--", "sh", "-c", script])?
            .fails(1, "second: exit code 3")?;
        fleet
            .exec(&["--on", "first", "--", "no-such-program"])?
            .fails(1, "no-such-program")
    });
}

#[test]
fn a_known_node_that_is_silent_and_nobody_at_all_end_with_3() {
    world("agt-silent", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let code = fleet.agents[1].stop()?;
        ensure!(code == 0, "a stopped agent ended with {code}");
        let silent = fleet.exec(&["--timeout", "2s", "--", "echo", "x"])?;
        silent.fails(3, "second: no answer")?;
        ensure!(silent.stdout.lines().count() == 2, "{}", silent.stdout);
        fleet
            .exec(&["--on", "role=none", "--timeout", "1s", "--", "true"])?
            .fails(3, "role=none")?;
        // rows appear before the timeout for the rest
        let mut nodes = fleet
            .operator
            .spawn("lcagent", &["nodes", "-i", LAN, "--timeout", "10m"])?;
        eventually("two rows", || {
            nodes.must_run()?;
            let said = nodes.stdout();
            let rows = said.lines().filter(|l| l.contains(" up "));
            holds!(rows.count() == 2 && said.starts_with("NAME"), "{said}")
        })?;
        nodes.kill()?;
        // a failure has precedence over a missing answer
        fleet.exec(&["--timeout", "2s", "--", "false"])?.exits(1)
    });
}

#[test]
fn a_node_that_was_away_runs_the_command_when_it_comes_back() {
    world("agt-back", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        fleet.agents[2].stop()?;
        fleet
            .exec(&["--timeout", "1s", "--valid", "10m", "--", "echo", "ran"])?
            .exits(3)?;
        fleet.start_agent(2)?;
        // the operator has ended: other agents pass the command on
        eventually("the third has run it", || {
            let log = fleet.audit(2)?;
            holds!(log.contains("ended") && log.contains("echo ran"), "{log}")
        })
    });
}

#[test]
fn commands_of_strangers_and_of_keys_that_may_not_are_not_executed() {
    world("agt-stranger", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        fleet.operator.call("lcagent keygen stranger.key")?;
        let begun = Instant::now();
        let stranger = fleet.exec(&["--key", "stranger.key", "--", "true"])?;
        stranger.exits(1)?;
        let told = "does not list your key";
        ensure!(stranger.stderr.matches(told).count() == 3);
        ensure!(begun.elapsed() < Duration::from_secs(60));
        let log = fleet.audit(0)?;
        ensure!(
            !log.contains("true"),
            "a stranger's command was looked at: {log}"
        );
        let restricted = fleet.exec(&["--key", "restricted.key", "--", "id", "-u"])?;
        restricted.fails(1, "refused")?;
        // also by a node that was forgotten, and is met again
        fleet.run("nodes", &["--forget", "second"])?.success()?;
        let anew = fleet.exec(&["--key", "restricted.key", "--", "id", "-u"])?;
        anew.exits(1)?;
        for said in ["met for the first time: second 12D3KooW", "second: refused"] {
            anew.says(said)?;
        }
        let allowed = fleet
            .exec(&["--key", "restricted.key", "--", "id", "-un"])?
            .success()?;
        let user = if many_users() { ": nobody" } else { ": root" };
        holds!(
            allowed.stdout.lines().all(|l| l.ends_with(user)),
            "not as the policy's user: {}",
            allowed.stdout
        )
    });
}

#[test]
fn an_interrupted_command_ends_with_130_and_its_jobs_end_with_it() {
    world("agt-stop", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let script = "setsid sleep 4321 & echo started; wait";
        let mut exec = fleet.start_exec(&["--", "sh", "-c", script])?;
        becomes(3, || Ok(exec.stdout().lines().count()))?;
        exec.signal(Signal::SIGINT)?;
        let code = exec.wait(Duration::from_secs(20))?;
        ensure!(code == 130, "exit code {code}: {}", exec.stderr());
        eventually("the jobs are gone, with what they started", || {
            let left = fleet.operator.ask("pgrep", &["-f", "sleep 4321"])?;
            holds!(left.code == 1, "still there: {}", left.stdout)
        })
    });
}

#[test]
fn a_job_that_takes_too_long_is_killed_with_all_that_it_started() {
    world("agt-time", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let script = "trap '' TERM; setsid sleep 5432 & sleep 5432; sleep 5432";
        fleet
            .exec(&["--on", "first", "--timeout", "1s", "--", "sh", "-c", script])?
            .fails(1, "first: out of time")?;
        let left = fleet.operator.ask("pgrep", &["-f", "sleep 5432"])?;
        holds!(left.code == 1, "still there: {}", left.stdout)
    });
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_job_loses_nothing_of_it() {
    world("agt-crash", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let script =
            "echo before; while [ ! -e /tmp/go-$LCAGENT_JOB ]; do sleep 0.05; done; echo after";
        let mut exec = fleet.start_exec(&["--on", "first", "--json", "--", "sh", "-c", script])?;
        let job = eventually("the job runs", || {
            let said = exec.stdout();
            let line = said
                .lines()
                .find(|l| l.contains("before"))
                .context("nothing said")?;
            let event: Value = serde_json::from_str(line)?;
            Ok(event["job"].as_str().context("no job")?.to_owned())
        })?;
        fleet.agents[0].kill()?;
        let go = format!("/tmp/go-{job}");
        fs::write(&go, "")?;
        fleet.start_agent(0)?;
        let code = exec.wait(Duration::from_secs(60))?;
        fs::remove_file(&go)?;
        let said = exec.stdout();
        ensure!(code == 0, "exit code {code}: {}{said}", exec.stderr());
        holds!(
            said.matches("before").count() == 1 && said.matches("after").count() == 1,
            "{said}"
        )
    });
}

#[test]
fn ten_percent_of_loss_costs_time_and_no_line() {
    world("agt-loss", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        for host in &fleet.hosts {
            host.set_loss(LAN, 10)?;
        }
        let script = "seq 1 3000; cat";
        fleet.operator.write("input", vec![b'z'; 20_000])?;
        let mut command = fleet.operator.command("sh")?;
        let line =
            format!("lcagent exec -i {LAN} --stdin -- sh -c '{script}' < input > output 2> errors");
        let status = command.args(["-c", &line]).status()?;
        let said = fs::read_to_string(fleet.operator.path("output"))?;
        let errors = fs::read_to_string(fleet.operator.path("errors"))?;
        ensure!(status.success(), "{status}: {errors}");
        for agent in ["first", "second", "third"] {
            let prefix = format!("{agent}: ");
            let lines: Vec<&str> = said
                .lines()
                .filter_map(|l| l.strip_prefix(&prefix))
                .collect();
            ensure!(lines.len() == 3_001, "{} lines of {agent}", lines.len());
            let in_order = (1..=3_000)
                .zip(&lines)
                .all(|(n, line)| *line == n.to_string());
            ensure!(in_order, "lines of {agent} are not in order");
            ensure!(lines[3_000].len() == 20_000, "standard input of {agent}");
        }
        Ok(())
    });
}

#[test]
fn a_full_disk_under_the_audit_log_keeps_everything_from_running() {
    world("agt-audit", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        fleet.agents[0].stop()?;
        let log = fleet.agent_state(0).join("audit.log");
        fs::remove_file(&log)?;
        std::os::unix::fs::symlink("/dev/full", &log)?;
        fleet.start_agent(0)?;
        let trace = fleet.agent_state(1).join("ran");
        let path = trace.display().to_string();
        fleet
            .exec(&["--on", "first", "--", "touch", &path])?
            .fails(1, "audit log")?;
        holds!(!trace.exists(), "it ran")
    });
}

#[test]
fn an_end_that_finds_no_room_on_the_disk_is_told_once_there_is_some() {
    world("agt-full", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        fleet.agents[0].stop()?;
        let jobs = fleet.agent_state(0).join("jobs").display().to_string();
        let mount = ["-t", "tmpfs", "-o", "size=300k", "tmpfs", &jobs];
        fleet.hosts[0].run("mount", &mount)?.success()?;
        fleet.start_agent(0)?;
        fleet.meet()?;
        let fill = format!("cat /dev/zero > {jobs}/fill; echo full; exit 7");
        let on = ["--on", "first", "--timeout", "3s", "--json", "--"];
        let full = fleet.exec(&[&on[..], &["sh", "-c", &fill]].concat())?;
        // the stream itself had room for it
        full.exits(1)?;
        // it answers other commands, and has retried in the meantime
        fleet.meet()?;
        let log = fleet.agents[0].stderr();
        let complaints = log.matches("No space left").count();
        ensure!((1..10).contains(&complaints), "{complaints} complaints");
        ensure!(log.contains("cannot be written down"), "{log}");
        let event: Value = serde_json::from_str(full.stdout.lines().next().unwrap_or(""))?;
        let job = event["job"].as_str().context("no job")?;
        fs::remove_file(format!("{jobs}/fill"))?;
        eventually("the job has ended", || {
            fleet
                .run("result", &["--on", "first", &job[..8]])?
                .fails(1, "first: exit code 7")
        })
    });
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_at_the_start() {
    world("agt-warn", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let host = &fleet.hosts[0];
        let key = fleet.operator.run("lcagent", &["keygen", "deep/er/k"])?;
        let config = format!(
            "name = \"wrong\"\ninterface = [\"{LAN}\", \"late0\"]\n\
             [[allow]]\nkey = \"{}\"\ncommands = [\"*\"]\nuser = \"nobody-of-that-name\"\n",
            key.success()?.stdout.trim()
        );
        host.write("wrong.toml", config)?;
        let args = crate::words("run --config wrong.toml --state-dir wrong-state");
        let mut agent = host.spawn("lcagent", &args)?;
        eventually("both are named", || {
            agent.must_run()?;
            let said = agent.stderr();
            let named = ["\"late0\" is not there", "no user \"nobody-of-that-name\""];
            holds!(named.iter().all(|n| said.contains(n)), "{said}")
        })?;
        let add = ["link", "add", "late0", "type", "veth", "peer", "late1"];
        host.run("ip", &add)?.success()?;
        for end in ["late0", "late1"] {
            host.run("ip", &["link", "set", end, "up"])?.success()?;
        }
        agent.says("\"late0\" is there")
    });
}

#[test]
fn a_fleet_behind_closed_firewalls_executes_over_lc0() {
    world("agt-lc0", |lab| {
        let mut network = lab.closed_network(["operator", "first", "second", "third"])?;
        let hosts: Vec<Host> = network.members.iter().map(|m| m.host.clone()).collect();
        let fleet = Fleet::on(hosts, "lc0")?;
        let said = fleet.exec(&["--", "echo", "over lc0"])?.success()?.stdout;
        for agent in ["first", "second", "third"] {
            ensure!(said.contains(&format!("{agent}: over lc0\n")), "{said}");
        }
        // certificate labels count besides those of the configuration
        let by_label = fleet.exec(&["--on", "world=lab,role=db", "--", "echo", "x"])?;
        let said = by_label.success()?.stdout;
        ensure!(said == "second: x\n", "{said}");
        for member in &mut network.members {
            member.stop()?;
        }
        Ok(())
    });
}

/// An operator and three agents that know the operator's key.
pub(crate) struct Fleet {
    pub(crate) operator: Host,
    pub(crate) hosts: Vec<Host>,
    pub(crate) agents: Vec<Process>,
    interface: &'static str,
}

impl Fleet {
    /// Starts a fleet on one Ethernet.
    pub(crate) fn new(lab: &Lab, interface: &'static str) -> Result<Fleet> {
        Fleet::on(
            lab.lan(&["operator", "first", "second", "third"])?,
            interface,
        )
    }

    /// Starts a fleet; the first of `hosts` is the operator's.
    fn on(mut hosts: Vec<Host>, interface: &'static str) -> Result<Fleet> {
        let operator = hosts.remove(0);
        fs::create_dir_all(operator.path("config/lcagent"))?;
        let key = |file: &str| -> Result<String> {
            let made = operator.run("lcagent", &["keygen", file])?.success()?;
            Ok(made.stdout.trim().to_owned())
        };
        let (all, restricted) = (key("config/lcagent/operator.key")?, key("restricted.key")?);
        for host in &hosts {
            let user = if many_users() {
                "user = \"nobody\"\n"
            } else {
                ""
            };
            let role = if host.name() == "second" { "db" } else { "web" };
            fs::create_dir_all(host.path("modules"))?;
            let config = format!(
                "name = \"{}\"\nlabels = {{ role = \"{role}\" }}\ninterface = \"{interface}\"\n\
                 modules = \"{modules}\"\n\
                 [[allow]]\nkey = \"{all}\"\ncommands = [\"*\"]\n\
                 [[allow]]\nkey = \"{restricted}\"\ncommands = [\"id -un\", \"@greet *\", \"copy:{folder}*\"]\n{user}",
                host.name(),
                modules = host.path("modules").display(),
                folder = host.path("allowed").display(),
            );
            host.write("lcagent.toml", config)?;
        }
        let mut fleet = Fleet {
            operator,
            agents: hosts.iter().map(spawn_agent).collect::<Result<_>>()?,
            hosts,
            interface,
        };
        fleet.meet()?;
        Ok(fleet)
    }

    /// Waits until the operator knows all three.
    pub(crate) fn meet(&mut self) -> Result<()> {
        eventually("all agents are known", || {
            for agent in &mut self.agents {
                agent.must_run()?;
            }
            let nodes = self.run("nodes", &["--json", "--timeout", "5s"])?;
            let nodes: Value = serde_json::from_str(&nodes.stdout)
                .with_context(|| format!("{}{}", nodes.stdout, nodes.stderr))?;
            let up = nodes.as_array().context("no list")?;
            let up = up.iter().filter(|n| n["state"] == "up").count();
            holds!(up == 3, "{nodes}")
        })
    }

    pub(crate) fn run(&self, verb: &str, args: &[&str]) -> Result<Output> {
        self.operator
            .run("lcagent", &[&[verb, "-i", self.interface], args].concat())
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Result<Output> {
        self.run("exec", args)
    }

    pub(crate) fn start_exec(&self, args: &[&str]) -> Result<Process> {
        self.operator
            .spawn("lcagent", &[&["exec", "-i", self.interface], args].concat())
    }

    pub(crate) fn start_agent(&mut self, at: usize) -> Result<()> {
        self.agents[at] = spawn_agent(&self.hosts[at])?;
        Ok(())
    }

    pub(crate) fn agent_state(&self, at: usize) -> PathBuf {
        self.hosts[at].path("state/agent")
    }

    pub(crate) fn audit(&self, at: usize) -> Result<String> {
        let log = self.agent_state(at).join("audit.log");
        fs::read_to_string(&log).with_context(|| log.display().to_string())
    }
}

fn spawn_agent(host: &Host) -> Result<Process> {
    spawn_agent_with(host, &[])
}

pub(crate) fn spawn_agent_with(host: &Host, more: &[&str]) -> Result<Process> {
    let state = host.path("state/agent");
    let state = state.to_string_lossy();
    let args = ["run", "--config", "lcagent.toml", "--state-dir", &state];
    host.spawn("lcagent", &[&args, more].concat())
}

/// Whether the namespace has several users: a user namespace of an ordinary user has only root.
fn many_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().last() != Some("1")
}
