//! What an operator can ask a fleet for beside plain commands.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{LAN, eventually};
use serde_json::Value;

use crate::lcagent::Fleet;
use crate::world;

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
        // one after the other, in the order of their names
        let expected = "first: x\nsecond: x\nthird: x\n";
        ensure!(all.stdout == expected, "{}", all.stdout);
        let folded = fleet
            .exec(&["-b", "--batch", "2", "--", "echo", "x"])?
            .success()?;
        ensure!(
            folded.stdout.contains("first,second,third (3)"),
            "{}",
            folded.stdout
        );
        // the second one fails, so the third is never asked
        let second = fleet.hosts[1].path("");
        let script = format!("! grep -q {} /proc/$PPID/cmdline", second.display());
        let stopped = fleet.exec(&["--batch", "2", "--", "sh", "-c", &script])?;
        ensure!(stopped.code == 1, "exit code {}", stopped.code);
        ensure!(
            stopped
                .stderr
                .contains("stopped after step 1 of 2: 1 nodes"),
            "{}",
            stopped.stderr
        );
        ensure!(
            !fleet.audit(2)?.contains("cmdline"),
            "the third was asked all the same"
        );
        let nobody = fleet.exec(&["--on", "nobody", "--canary", "--", "true"])?;
        ensure!(nobody.code == 3, "exit code {}", nobody.code);
        Ok(())
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
            .run("cancel", &["--on", "first+second", job])?
            .success()?;
        exec.wait(std::time::Duration::from_secs(20))?;
        let table = fleet.run("jobs", &[])?.success()?.stdout;
        let line = table
            .lines()
            .find(|l| l.starts_with(job))
            .context(table.clone())?;
        let cells: Vec<&str> = line.split_whitespace().collect();
        ensure!(cells[2..5] == ["0", "0", "2"], "{table}");
        // another operator does not see them
        let other = fleet.run("jobs", &["--key", "restricted.key", "--json"])?;
        ensure!(other.success()?.stdout.trim() == "[]", "not his");
        Ok(())
    });
}
