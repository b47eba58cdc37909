//! Whose commands a fleet obeys: certified keys, revoked keys.

use anyhow::{Result, ensure};
use netns_tests::lab::{LAN, eventually};

use crate::lcagent::Fleet;
use crate::world;

/// A key of another operator, with a certificate of the fleet's beside it.
fn certified(fleet: &Fleet, name: &str, more: &[&str]) -> Result<String> {
    let made = fleet.operator.run("lcagent", &["keygen", name])?;
    let public = made.success()?.stdout.trim().to_owned();
    let args = [&["certify", &public, "--ttl", "1h"], more].concat();
    let certificate = fleet.operator.run("lcagent", &args)?.success()?.stdout;
    fleet.operator.write(&format!("{name}.cert"), certificate)?;
    Ok(public)
}

#[test]
fn a_certified_key_may_what_its_certificate_says() {
    world("agt-certify", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        certified(&fleet, "ci.key", &["--command", "echo *"])?;
        let ci = |args: &[&str]| fleet.exec(&[&["--key", "ci.key"], args].concat());
        let said = ci(&["--", "echo", "certified"])?.success()?.stdout;
        ensure!(said.matches(": certified\n").count() == 3, "{said}");
        let refused = ci(&["--", "id"])?;
        ensure!(refused.code == 1, "exit code {}", refused.code);
        ensure!(refused.stderr.contains("refused"), "{}", refused.stderr);
        // not without it
        std::fs::remove_file(fleet.operator.path("ci.key.cert"))?;
        let alone = ci(&["--timeout", "1s", "--", "echo", "x"])?;
        ensure!(alone.code == 3, "exit code {}", alone.code);
        // what a certified key certifies is worth nothing
        certified(&fleet, "second.key", &[])?;
        let made = fleet.operator.run("lcagent", &["keygen", "third.key"])?;
        let third = made.success()?.stdout.trim().to_owned();
        let args = ["certify", &third, "--ttl", "1h", "--key", "second.key"];
        let chain = fleet.operator.run("lcagent", &args)?.success()?.stdout;
        fleet.operator.write("third.key.cert", chain)?;
        let chained = fleet.exec(&["--key", "third.key", "--timeout", "1s", "--", "true"])?;
        ensure!(chained.code == 3, "exit code {}", chained.code);
        Ok(())
    });
}

#[test]
fn a_key_that_is_revoked_while_its_job_runs_is_obeyed_no_more() {
    world("agt-revoke", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let public = certified(&fleet, "ci.key", &[])?;
        fleet.agents[2].stop()?;
        let job = ["--key", "ci.key", "--on", "first+second", "--"];
        let script = ["sh", "-c", "echo begun; sleep 6543"];
        let mut exec = fleet.start_exec(&[&job[..], &script].concat())?;
        eventually("both have begun", || {
            ensure!(exec.stdout().lines().count() == 2, "{}", exec.stdout());
            Ok(())
        })?;
        let refused = fleet.run(
            "revoke",
            &[
                "--key",
                "restricted.key",
                "--on",
                "first",
                "config/lcagent/operator.key.pub",
            ],
        )?;
        ensure!(refused.code == 1, "exit code {}", refused.code);
        fleet
            .run("revoke", &["--on", "first+second", &public])?
            .success()?;
        eventually("its jobs are gone", || {
            let left = fleet.operator.ask("pgrep", &["-f", "^sleep 6543"])?;
            ensure!(left.code == 1, "still there: {}", left.stdout);
            Ok(())
        })?;
        exec.kill()?;
        let later = [
            "--key",
            "ci.key",
            "--timeout",
            "1s",
            "--",
            "touch",
            "/tmp/agt-revoke",
        ];
        ensure!(fleet.exec(&later)?.code == 3, "it is obeyed");
        // restarted, it remembers; and it tells the one that was away, which its selector leaves out
        fleet.agents[0].stop()?;
        fleet.start_agent(0)?;
        let first = [&["--on", "first"], &later[..]].concat();
        ensure!(fleet.exec(&first)?.code == 3, "forgotten in a restart");
        let everywhere = fleet.run("revoke", &["--timeout", "2s", &public])?;
        ensure!(everywhere.code == 3, "exit code {}", everywhere.code);
        fleet.agents[0].stop()?;
        fleet.agents[1].stop()?;
        fleet.start_agent(0)?;
        fleet.start_agent(2)?;
        eventually("the third has heard of it from the first", || {
            let known = std::fs::read_to_string(fleet.agent_state(2).join("revoked"))?;
            ensure!(known.contains(&public), "{known}");
            Ok(())
        })?;
        ensure!(
            !std::path::Path::new("/tmp/agt-revoke").exists(),
            "a revoked key was obeyed"
        );
        Ok(())
    });
}

#[test]
fn a_stolen_key_revokes_itself() {
    world("agt-self", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        fleet
            .run("revoke", &["config/lcagent/operator.key.pub"])?
            .success()?;
        let after = fleet.exec(&["--timeout", "1s", "--", "true"])?;
        ensure!(after.code == 3, "exit code {}", after.code);
        Ok(())
    });
}
