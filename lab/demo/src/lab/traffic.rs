//! The ordinary programs `mc-send` and `mc-recv` (and `mld-watch`) as handles.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Host, Process, eventually};

/// A running `mc-recv`.
#[derive(Debug)]
pub struct Receiver {
    process: Process,
}

/// The final report of `mc-send`.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Datagrams that the kernel accepted.
    pub packets: u64,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// Datagrams that came back, with `--member`.
    pub received: u64,
    /// CPU seconds that the program used.
    pub cpu_seconds: f64,
}

/// A running `mld-watch`.
#[derive(Debug)]
pub struct MldWatch {
    process: Process,
}

impl Host {
    /// Starts `mc-recv GROUP ARGS...` and waits until it has joined.
    pub fn receive(&self, group: &str, args: &[&str]) -> Result<Receiver> {
        let mut receiver = Receiver {
            process: self.spawn("mc-recv", &[&[group], args].concat())?,
        };
        eventually("a receiver has joined", || {
            let runs = receiver.process.is_running();
            ensure!(
                runs || receiver.state().is_ok(),
                "mc-recv: {}",
                receiver.process.stderr()
            );
            receiver.state().map(drop)
        })?;
        Ok(receiver)
    }

    /// Runs `mc-send GROUP --count COUNT ARGS...` to its end.
    pub fn send(&self, group: &str, count: u64, args: &[&str]) -> Result<Sent> {
        let count = count.to_string();
        let done = self
            .run("mc-send", &[&[group, "--count", &count], args].concat())?
            .success()?;
        let said: Value = serde_json::from_str(&done.stdout).context("output of mc-send")?;
        ensure!(said["errors"] == 0, "the kernel refused datagrams: {said}");
        Ok(Sent {
            packets: said["sent"].as_u64().context("sent")?,
            seconds: said["seconds"].as_f64().context("seconds")?,
            received: said["received"].as_u64().context("received")?,
            cpu_seconds: said["cpu_s"].as_f64().context("cpu_s")?,
        })
    }

    /// Starts a sender of 50 datagrams a second, which runs until its handle is dropped.
    pub fn send_for_ever(&self, group: &str) -> Result<Process> {
        self.spawn(
            "mc-send",
            &[
                group,
                "--count",
                "1000000000",
                "--rate",
                "50",
                "--size",
                "200",
            ],
        )
    }

    /// Starts `mld-watch ARGS...` and waits until it listens.
    pub fn watch_mld(&self, args: &[&str]) -> Result<MldWatch> {
        let mut watch = MldWatch {
            process: self.spawn("mld-watch", args)?,
        };
        eventually("an MLD watcher listens", || {
            watch.process.must_run()?;
            ensure!(watch.process.stdout().contains("watching"), "not yet");
            Ok(())
        })?;
        Ok(watch)
    }
}

impl Receiver {
    /// Returns the last report: see `mc-recv`.
    pub fn state(&self) -> Result<Value> {
        let output = self.process.stdout();
        // The last line may be incomplete: only lines with a newline count.
        let complete = output
            .rfind('\n')
            .map(|end| &output[..end])
            .context("has not joined yet")?;
        let last = complete.lines().next_back().unwrap_or_default();
        serde_json::from_str(last).with_context(|| last.to_owned())
    }

    /// Returns a number of the last report.
    pub fn number(&self, key: &str) -> Result<u64> {
        let state = self.state()?;
        state[key]
            .as_u64()
            .with_context(|| format!("no number {key} in {state}"))
    }

    /// Returns the number of received datagrams.
    pub fn packets(&self) -> Result<u64> {
        self.number("packets")
    }

    /// Returns all pauses of 100 ms and more between two datagrams so far, in milliseconds.
    pub fn pauses(&self) -> Result<Vec<f64>> {
        let state = self.state()?;
        let pauses = state["pauses_ms"].as_array().context("pauses_ms")?;
        Ok(pauses.iter().filter_map(Value::as_f64).collect())
    }

    /// Checks that no datagram came twice.
    pub fn expect_no_duplicates(&self) -> Result<()> {
        let state = self.state()?;
        ensure!(state["duplicates"] == 0, "duplicates: {state}");
        Ok(())
    }

    /// Waits until `count` datagrams have come.
    pub fn expect(&self, count: u64) -> Result<()> {
        eventually(&format!("{count} datagrams have come"), || {
            let state = self.state()?;
            ensure!(state["packets"].as_u64() >= Some(count), "got {state}");
            Ok(())
        })
    }

    /// Waits until `count` datagrams have come, and checks that these are `count` different ones.
    pub fn expect_exactly(&self, count: u64) -> Result<()> {
        self.expect(count)?;
        let state = self.state()?;
        ensure!(
            state["unique"].as_u64() == Some(count),
            "{count} different datagrams expected: {state}"
        );
        ensure!(state["duplicates"] == 0, "duplicates: {state}");
        Ok(())
    }

    /// Waits until more datagrams come than so far.
    pub fn expect_more(&self, what: &str) -> Result<()> {
        let before = self.packets()?;
        eventually(what, || {
            ensure!(self.packets()? > before, "still {before} datagrams");
            Ok(())
        })
    }

    /// Returns the process, e.g. to end it, which leaves the group.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl MldWatch {
    /// Returns the number of JOINs or PARTs of `group` that it has seen.
    pub fn seen(&self, change: &str, group: &str) -> Result<usize> {
        let said = self.said()?;
        let those = said
            .iter()
            .filter(|line| line["change"] == change && line["group"] == group);
        Ok(those.count())
    }

    /// Returns all groups of which it has seen JOINs (or PARTs).
    pub fn groups(&self, change: &str) -> Result<BTreeSet<String>> {
        let said = self.said()?;
        let those = said.iter().filter(|line| line["change"] == change);
        Ok(those
            .filter_map(|line| Some(line["group"].as_str()?.to_owned()))
            .collect())
    }

    /// Returns the queries that it has received: see `mld-watch`.
    pub fn queries(&self) -> Result<Vec<Value>> {
        let said = self.said()?.into_iter();
        Ok(said.filter(|line| line["query"].is_string()).collect())
    }

    fn said(&self) -> Result<Vec<Value>> {
        let output = self.process.stdout();
        // The last line may be incomplete.
        let complete = output.rfind('\n').map_or("", |end| &output[..end]);
        let parse = |line: &str| serde_json::from_str(line).with_context(|| line.to_owned());
        complete.lines().map(parse).collect()
    }
}
