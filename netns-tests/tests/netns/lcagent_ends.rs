//! Ends of lcagent's jobs after the end of their supervisor or operator; hosts with one key.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::lcagent::Fleet;
use crate::prelude::*;

/// Returns the number of processes with this command line on all hosts.
fn count(host: &Host, line: &str) -> Result<usize> {
    let found = host.ask("pgrep", &["-xf", line])?;
    Ok(found.stdout.lines().count())
}

fn wait_for(host: &Host, line: &str, wanted: usize) -> Result<()> {
    becomes(wanted, || count(host, line))
}

#[test]
fn hosts_with_one_key_are_told_apart_and_told() {
    world("agt-copy", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        for at in [0, 1] {
            fleet.agents[at].stop()?;
        }
        let (from, to) = (fleet.agent_state(0), fleet.agent_state(1));
        fs::remove_dir_all(&to)?;
        let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
        fleet.operator.run("cp", &["-a", &from, &to])?.success()?;
        let config = fs::read_to_string(fleet.hosts[0].path("lcagent.toml"))?;
        fleet.hosts[1].write("lcagent.toml", config)?;
        fleet.run("nodes", &["--forget", "second"])?.success()?;
        for at in [0, 1] {
            fleet.start_agent(at)?;
        }
        eventually("both are heard", || {
            let nodes = fleet.run("nodes", &["--on", "first"])?;
            let rows = nodes.stdout.matches("first  up").count();
            holds!(
                nodes.code == 1 && rows == 2,
                "{}{}",
                nodes.stdout,
                nodes.stderr
            )
        })?;
        let both = fleet.exec(&["--on", "first", "--json", "--", "seq", "3000"])?;
        both.fails(1, "2 hosts have one key")?;
        let mut outputs = BTreeMap::<String, String>::new();
        for line in both.stdout.lines() {
            let event: Value = serde_json::from_str(line)?;
            if let (Some(stream), Some(data)) = (event["stream"].as_str(), event["data"].as_str()) {
                *outputs.entry(stream.to_owned()).or_default() += data;
            }
        }
        let expected: String = (1..=3000).map(|n| format!("{n}\n")).collect();
        ensure!(outputs.len() == 2, "{} hosts", outputs.len());
        ensure!(outputs.values().all(|output| *output == expected));
        for at in [0, 1] {
            let agent = &fleet.agents[at];
            agent.says("has the key of this one")?;
        }
        Ok(())
    });
}

#[test]
fn what_is_left_of_a_job_ends_with_its_supervisor() {
    world("agt-lost", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let host = fleet.operator.clone();
        let script =
            "setsid sleep 9371 & env -i setsid sleep 9371 & env -i sleep 9371 & sleep 9372";
        for restarted in [false, true] {
            // a restarted agent is not the parent of its jobs
            let script = match restarted {
                false => script.to_owned(),
                true => script.replace("env -i setsid", "setsid"),
            };
            let mut exec = fleet.start_exec(&["--on", "first", "--", "sh", "-c", &script])?;
            wait_for(&host, "sleep 9371", 3)?;
            let mut other = fleet.start_exec(&["--on", "second", "--", "sleep", "9373"])?;
            wait_for(&host, "sleep 9373", 1)?;
            let agent = fleet.agents[0].pid().to_string();
            let supervisor = host.ask("pgrep", &["-P", &agent])?.success()?.stdout;
            if restarted {
                fleet.agents[0].kill()?;
            }
            kill(Pid::from_raw(supervisor.trim().parse()?), Signal::SIGKILL)?;
            if restarted {
                fleet.start_agent(0)?;
            }
            exec.expect_exit(Duration::from_secs(30), 1)?;
            let said = exec.stderr();
            ensure!(said.contains("first: nobody saw how it ended"), "{said}");
            // by then all processes of the job have ended, and no others
            ensure!(count(&host, "sleep 9371")? + count(&host, "sleep 9372")? == 0);
            ensure!(count(&host, "sleep 9373")? == 1);
            other.signal(Signal::SIGINT)?;
            other.wait(Duration::from_secs(20))?;
            wait_for(&host, "sleep 9373", 0)?;
        }
        Ok(())
    });
}

#[test]
fn jobs_end_with_their_operator_however_it_goes() {
    world("agt-hangup", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let host = &fleet.operator;
        for (signal, expected) in [(Signal::SIGHUP, 143), (Signal::SIGQUIT, 130)] {
            let mut exec = fleet.start_exec(&["--", "sleep", "9374"])?;
            wait_for(host, "sleep 9374", 3)?;
            exec.signal(signal)?;
            let code = exec.wait(Duration::from_secs(20))?;
            ensure!(code == expected, "{signal}: exit code {code}");
            wait_for(host, "sleep 9374", 0)?;
        }
        // its reader closes: before or after output, with no more to come
        for script in ["echo x; sleep 9375 & wait", "sleep 9375 & wait"] {
            let mut command = host.command("lcagent")?;
            let args = ["exec", "-i", LAN, "--", "sh", "-c", script];
            let exec = command.args(args).stdin(Stdio::null());
            let mut exec = exec.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            wait_for(host, "sleep 9375", 3)?;
            let mut reader = BufReader::new(exec.stdout.take().context("a pipe")?);
            if script.starts_with("echo") {
                reader.read_line(&mut String::new())?;
            }
            drop(reader);
            wait_for(host, "sleep 9375", 0)?;
            ensure!(exec.wait()?.code() == Some(1));
        }
        Ok(())
    });
}

#[test]
fn an_operator_is_told_when_nothing_is_run_because_a_disk_is_full() {
    world("agt-unseen", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        fleet.agents[0].stop()?;
        let (host, state) = (fleet.hosts[0].clone(), fleet.agent_state(0));
        let keep = host.path("keep");
        let (state, keep) = (state.to_string_lossy(), keep.to_string_lossy());
        host.run("mv", &[&state, &keep])?.success()?;
        host.run("mkdir", &["-m", "700", &state])?.success()?;
        let tmpfs = ["-t", "tmpfs", "-o", "size=400k,mode=700", "none", &state];
        host.run("mount", &tmpfs)?.success()?;
        host.run("cp", &["-a", &format!("{keep}/."), &state])?
            .success()?;
        fleet.start_agent(0)?;
        fleet.exec(&["--on", "first", "--", "true"])?.success()?;
        let fill = format!("dd if=/dev/zero of={state}/fill bs=4k; true");
        host.sh(&fill)?.success()?;
        for _ in 0..2 {
            let full = fleet.exec(&["--on", "first", "--timeout", "20s", "--", "echo", "ran"])?;
            ensure!(
                full.code == 1 && full.stdout.is_empty(),
                "exit code {}",
                full.code
            );
            let told = full.stderr.contains("cannot be written (")
                && full.stderr.contains("No space left");
            ensure!(told, "{}", full.stderr);
        }
        fleet.agents[0].must_run()?;
        fs::remove_file(fleet.agent_state(0).join("fill"))?;
        fleet.exec(&["--on", "first", "--", "true"])?.success()?;
        Ok(())
    });
}
