//! Commands of an operator to a fleet beyond plain execution.

use crate::lcagent::{Fleet, spawn_agent_with};
use crate::prelude::*;

#[test]
fn a_rolling_command_stops_at_the_first_group_that_fails() {
    world("agt-rolling", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let one = fleet
            .exec(&["--limit", "1", "--", "echo", "x"])?
            .success()?;
        ensure!(one.stdout == "first: x\n", "{}", one.stdout);
        let all = fleet
            .exec(&["--canary", "--batch", "1", "--", "echo", "x"])?
            .success()?;
        // one after another, by name
        let expected = "first: x\nsecond: x\nthird: x\n";
        ensure!(all.stdout == expected, "{}", all.stdout);
        fleet
            .exec(&["-b", "--batch", "2", "--", "echo", "x"])?
            .success()?
            .prints("first,second,third (3)")?;
        // the second fails, so the third is never asked
        let second = fleet.hosts[1].path("");
        let script = format!("! grep -q {} /proc/$PPID/cmdline", second.display());
        fleet
            .exec(&["--batch", "2", "--", "sh", "-c", &script])?
            .fails(1, "stopped after step 1 of 2: 1 node was not asked")?;
        ensure!(!fleet.audit(2)?.contains("cmdline"));
        fleet
            .exec(&["--on", "nobody", "--canary", "--", "true"])?
            .exits(3)
    });
}

#[test]
fn jobs_shows_what_runs_and_how_it_ended() {
    world("agt-jobs", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        fleet.exec(&["--", "sh", "-c", "exit 4"])?;
        let mut exec = fleet.start_exec(&["--on", "first+second", "--", "sleep", "600"])?;
        let jobs = || -> Result<Vec<Value>> {
            let said = fleet.run("jobs", &["--json"])?.success()?.stdout;
            let said: Value = serde_json::from_str(&said).context(said)?;
            Ok(said.as_array().context("no list")?.clone())
        };
        let running = eventually("both run", || {
            let jobs = jobs()?;
            let found = jobs.iter().find(|j| j["command"] == "sleep 600");
            let found = found.context("not in the list")?.clone();
            ensure!(found["running"] == 2, "{found}");
            Ok(found)
        })?;
        let all = jobs()?;
        let failed = all
            .iter()
            .find(|j| j["failed"] == 3)
            .with_context(|| format!("{all:?}"))?;
        ensure!(failed["nodes"][0]["code"] == 4, "{failed}");
        let job = running["job"].as_str().context("no job")?;
        fleet
            .run("cancel", &["--on", "first+second", &job[..8]])?
            .success()?;
        exec.wait(Duration::from_secs(20))?;
        let table = fleet.run("jobs", &[])?.success()?.stdout;
        let line = table
            .lines()
            .find(|l| l.starts_with(&job[..8]))
            .context(table.clone())?;
        let cells: Vec<&str> = line.split_whitespace().collect();
        let shown = ["0", "0", "2", "first,second", "sleep", "600"];
        ensure!(cells[2..] == shown, "{table}");
        // the latest first
        ensure!(table.lines().nth(1) == Some(line), "{table}");
        let log = fleet.hosts[0].run(
            "lcagent",
            &["log", "--state-dir", &{
                fleet.agent_state(0).display().to_string()
            }],
        )?;
        let log = log.success()?.stdout;
        ensure!(
            log.contains("exit code 4 after") && log.lines().all(|l| l.get(10..11) == Some("T")),
            "{log}"
        );
        // another operator does not see them
        let other = fleet.run("jobs", &["--key", "restricted.key", "--json"])?;
        holds!(other.success()?.stdout.trim() == "[]", "not his")
    });
}

#[test]
fn a_module_is_called_by_name_and_only_as_the_policy_says() {
    world("agt-module", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        for host in &fleet.hosts {
            for (name, mode) in [("greet", 0o755), ("other", 0o755), ("loose", 0o777)] {
                let file = host.write(&format!("modules/{name}"), "#!/bin/sh\necho $# $1\n")?;
                fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
            }
        }
        fleet
            .exec(&["--", "@other", "a b", "c"])?
            .success()?
            .prints("first: 2 a b\n")?;
        for bad in ["@loose", "@missing", "@../modules/greet", "@"] {
            let refused = fleet.exec(&["--on", "first", "--", bad])?;
            ensure!(refused.code == 1, "{bad}: exit code {}", refused.code);
            refused.says("refused")?;
        }
        fleet
            .exec(&["--key", "restricted.key", "--", "@other"])?
            .exits(1)?;
        let nodes = fleet.run("nodes", &["--json"])?.success()?.stdout;
        holds!(nodes.contains("\"modules\":\"greet other\""), "{nodes}")
    });
}

#[test]
fn copies_arrive_whole_where_they_are_allowed() {
    world("agt-orders", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let content: Vec<u8> = (0..3_000_000_u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        fleet.operator.write("tree/a/large", &content)?;
        fleet.operator.write("tree/small", "x")?;
        // all agents share one disk: each has a folder by its node's name
        let copy = |at: usize, args: &[&str]| {
            let on = ["--on", fleet.hosts[at].name()];
            fleet.run("copy", &[&on[..], args].concat())
        };
        for (at, host) in fleet.hosts.iter().enumerate() {
            let dest = host.path("fleet");
            copy(at, &["tree", &dest.to_string_lossy()])?.success()?;
            ensure!(fs::read(dest.join("a/large"))? == content, "{at}");
            ensure!(fs::read(dest.join("small"))? == b"x", "{at}");
        }
        // a file becomes DEST, or a file in it under its own name
        let dest = fleet.hosts[0].path("fleet");
        copy(0, &["tree/a/large", &dest.to_string_lossy()])?.success()?;
        ensure!(fs::read(dest.join("large"))? == content);
        let file = dest.join("other");
        copy(0, &["tree/a/large", &file.to_string_lossy()])?.success()?;
        ensure!(fs::read(&file)? == content, "not as the file");

        let restricted = ["--key", "restricted.key", "tree/small"];
        let forbidden = fleet.hosts[0].path("forbidden");
        copy(
            0,
            &[&restricted[..], &[&forbidden.to_string_lossy()]].concat(),
        )?
        .exits(1)?;
        ensure!(!forbidden.exists(), "copied all the same");
        let sneaky = format!("{}/../forbidden", fleet.hosts[0].path("allowed").display());
        copy(0, &[&restricted[..], &[&sneaky]].concat())?.exits(2)?;
        let left = fleet
            .operator
            .ask("pgrep", &["-f", "share --name lcagent-"])?;
        holds!(left.code == 1, "still shared: {}", left.stdout)
    });
}

#[test]
fn a_copy_reaches_the_whole_fleet_at_once() {
    world("agt-copies", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let content = vec![7; 500_000];
        fleet.operator.write("file", &content)?;
        // one shared disk: each agent has a folder of its own under the same path
        let landing = fleet.operator.path("landing");
        fs::create_dir_all(&landing)?;
        for at in 0..3 {
            fleet.agents[at].stop()?;
            let own = fleet.hosts[at].path("own");
            fs::create_dir_all(&own)?;
            let script = format!(
                "mount --bind {} {} && exec lcagent run --config lcagent.toml --state-dir {}",
                own.display(),
                landing.display(),
                fleet.agent_state(at).display()
            );
            let agent = fleet.hosts[at].spawn("unshare", &["-m", "sh", "-c", &script])?;
            fleet.agents[at] = agent;
        }
        fleet.meet()?;
        let dest = landing.join("file");
        let said = fleet.run("copy", &["file", &dest.to_string_lossy(), "--json"])?;
        let ended = said.success()?.stdout;
        ensure!(ended.matches("\"event\":\"ended\"").count() == 3, "{ended}");
        for host in &fleet.hosts {
            ensure!(
                fs::read(host.path("own/file"))? == content,
                "{}",
                host.name()
            );
        }
        holds!(!dest.exists(), "no agent has its own folder")
    });
}

#[test]
fn a_job_gets_no_more_memory_than_it_may() {
    world("agt-memory", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let hungry = [
            "--on",
            "first",
            "--",
            "python3",
            "-c",
            "print(len(bytearray(200_000_000)))",
        ];
        let fed = fleet.exec(&hungry)?.success()?.stdout;
        ensure!(fed == "first: 200000000\n", "{fed}");
        fleet
            .exec(&[&["--memory", "100M"], &hungry[..]].concat())?
            .exits(1)?;
        let modest = ["--memory", "100M", "--on", "first", "--", "echo", "x"];
        fleet.exec(&modest)?.success()?;
        Ok(())
    });
}

#[test]
fn jobs_are_run_by_who_listens_on_a_socket() {
    world("agt-socket", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let host = fleet.hosts[0].clone();
        fs::create_dir_all(host.path("run"))?;
        let socket = host.path("run/jobs.sock");
        let listen = format!("UNIX-LISTEN:{},fork", socket.display());
        let jobs = fleet.agent_state(0).join("jobs");
        // as systemd does, by lcagent-job.socket
        let supervise = format!(
            "EXEC:lcagent --log warn supervise --socket {}",
            jobs.display()
        );
        let mut runner = host.spawn("socat", &[&listen, &supervise])?;
        let start = || {
            let flag = ["--jobs", &socket.to_string_lossy()];
            spawn_agent_with(&host, &flag)
        };
        fleet.agents[0].kill()?;
        fleet.agents[0] = start()?;
        becomes(true, || Ok(socket.exists()))?;
        let first = |args: &[&str]| fleet.exec(&[&["--on", "first", "--"], args].concat());
        let said = first(&["sh", "-c", "tr '\\0' ' ' < /proc/$PPID/cmdline; exit 3"])?;
        said.prints("supervise --socket")?;
        said.fails(1, "3")?;

        let mut exec = fleet.start_exec(&["--on", "first", "--", "sleep", "7654"])?;
        let left = || host.ask("pgrep", &["-fx", "sleep 7654"]);
        eventually("it runs", || holds!(left()?.code == 0, "no sleep"))?;
        exec.signal(Signal::SIGINT)?;
        exec.wait(Duration::from_secs(20))?;
        becomes(1, || Ok(left()?.code))?;

        // a job survives its agent, and the next agent can end it
        let mut exec = fleet.start_exec(&["--on", "first", "--", "sleep", "7654"])?;
        eventually("it runs again", || holds!(left()?.code == 0, "no sleep"))?;
        fleet.agents[0].kill()?;
        fleet.agents[0] = start()?;
        ensure!(left()?.code == 0, "ended with its agent");
        exec.signal(Signal::SIGINT)?;
        exec.wait(Duration::from_secs(20))?;
        becomes(1, || Ok(left()?.code))?;

        runner.kill()?;
        fleet
            .exec(&["--on", "first", "--", "true"])?
            .fails(1, "jobs.sock")
    });
}
