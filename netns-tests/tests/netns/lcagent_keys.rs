//! Permission to command a fleet: certified keys, revoked keys.

use crate::lcagent::Fleet;
use crate::prelude::*;

/// Makes a key of another operator, with a certificate of the fleet's operator.
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
        ci(&["--", "id"])?.fails(1, "refused")?;
        // not without the certificate
        fs::remove_file(fleet.operator.path("ci.key.cert"))?;
        ci(&["--", "echo", "x"])?.fails(1, "does not list your key")?;
        // a certified key cannot certify others
        certified(&fleet, "second.key", &[])?;
        let made = fleet.operator.run("lcagent", &["keygen", "third.key"])?;
        let third = made.success()?.stdout.trim().to_owned();
        let args = ["certify", &third, "--ttl", "1h", "--key", "second.key"];
        let chain = fleet.operator.run("lcagent", &args)?.success()?.stdout;
        fleet.operator.write("third.key.cert", chain)?;
        fleet.exec(&["--key", "third.key", "--", "true"])?.exits(1)
    });
}

#[test]
fn commands_of_a_key_revoked_while_its_job_runs_are_executed_no_more() {
    world("agt-revoke", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let public = certified(&fleet, "ci.key", &[])?;
        fleet.agents[2].stop()?;
        let job = ["--key", "ci.key", "--on", "first+second", "--"];
        let script = ["sh", "-c", "echo begun; sleep 6543"];
        let mut exec = fleet.start_exec(&[&job[..], &script].concat())?;
        becomes(2, || Ok(exec.stdout().lines().count()))?;
        fleet
            .run(
                "revoke",
                &crate::words("--key restricted.key --on first config/lcagent/operator.key.pub"),
            )?
            .exits(1)?;
        let revoked = fleet.run("revoke", &["--on", "first+second", &public])?;
        let said = revoked.success()?.stdout;
        ensure!(said == "revoked on 2 nodes: first, second\n", "{said}");
        eventually("its jobs are gone", || {
            let left = fleet.operator.ask("pgrep", &["-f", "^sleep 6543"])?;
            holds!(left.code == 1, "still there: {}", left.stdout)
        })?;
        exec.kill()?;
        let trace = fleet.agent_state(0).join("executed");
        let path = trace.display().to_string();
        let command = ["--key", "ci.key", "--timeout", "1s", "--", "touch", &path];
        ensure!(fleet.exec(&command)?.code == 3, "it is executed");
        // it remembers after a restart, and informs the absent agent, which its selector excludes
        fleet.agents[0].stop()?;
        fleet.start_agent(0)?;
        let first = [&["--on", "first"], &command[..]].concat();
        ensure!(fleet.exec(&first)?.code == 3, "forgotten in a restart");
        fleet
            .run("revoke", &["--timeout", "2s", &public])?
            .exits(3)?;
        fleet.agents[0].stop()?;
        fleet.agents[1].stop()?;
        fleet.start_agent(0)?;
        fleet.start_agent(2)?;
        eventually("the third has heard of it from the first", || {
            let known = fs::read_to_string(fleet.agent_state(2).join("revoked"))?;
            holds!(known.contains(&public), "{known}")
        })?;
        holds!(!trace.exists(), "a command of a revoked key was executed")
    });
}

#[test]
fn with_a_certifier_the_jobs_of_whom_he_has_certified_end() {
    world("agt-certifier", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        let sleep = [
            "--key",
            "ci.key",
            "--",
            "sh",
            "-c",
            "echo begun; sleep 7654",
        ];
        certified(&fleet, "ci.key", &[])?;
        let mut exec = fleet.start_exec(&sleep)?;
        becomes(3, || Ok(exec.stdout().lines().count()))?;
        fleet
            .run("revoke", &["config/lcagent/operator.key.pub"])?
            .success()?;
        eventually("they are gone", || {
            let left = fleet.operator.ask("pgrep", &["-f", "^sleep 7654"])?;
            holds!(left.code == 1, "still there: {}", left.stdout)
        })?;
        exec.kill()
    });
}

#[test]
fn a_stolen_key_revokes_itself() {
    world("agt-self", |lab| {
        let fleet = Fleet::new(lab, LAN)?;
        fleet
            .run("revoke", &["config/lcagent/operator.key.pub"])?
            .success()?;
        fleet.exec(&["--timeout", "1s", "--", "true"])?.exits(3)
    });
}

#[test]
fn what_is_sealed_is_read_by_the_selected_nodes_and_the_operator_alone() {
    world("agt-sealed", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let listen = format!(
            "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))\n\
             s.bind(('{LAN}', 0))\nf = open('heard', 'wb', 0)\nprint('listening', flush=True)\n\
             while True: f.write(s.recv(65535))"
        );
        let mut heard = fleet.operator.spawn("python3", &["-c", &listen])?;
        heard.prints("listening")?;
        let on = ["--on", "first+second"];
        // any node may answer: that does not entitle it to encrypted commands
        fleet
            .exec(&[&on[..], &["--encrypt", "--", "echo", "clas"]].concat())?
            .fails(4, "--accept first second")?;
        let accepted = fleet.run("nodes", &["--accept", "first", "second"])?;
        let accepted = accepted.success()?.stdout;
        ensure!(
            accepted.matches("accepted ").count() == 2 && accepted.contains(" 12D3KooW"),
            "{accepted}"
        );
        // a node that claims labels of other nodes is excluded
        fleet
            .exec(&["--on", "role=web", "--encrypt", "--", "echo", "clas"])?
            .fails(4, "--accept third")?;
        let script = ["--", "sh", "-c", "echo clas; seq 1 2000; echo sified"];
        let plain = fleet.exec(&[&on[..], &["--", "echo", "for", "everybody"]].concat())?;
        plain.success()?;
        let sealed = [&["--encrypt", "--json"], &on[..], &script].concat();
        let said = fleet.exec(&sealed)?.success()?.stdout;
        ensure!(said.matches("sified").count() == 2, "{said}");
        let event: Value = serde_json::from_str(said.lines().next().unwrap_or(""))?;
        let job = event["job"].as_str().unwrap_or_default().to_owned();
        // a restarted agent still keeps it secret
        fleet.agents[0].stop()?;
        fleet.start_agent(0)?;
        fleet.meet()?;
        fleet
            .run("result", &["--on", "first", &job])?
            .fails(1, "sealed")?;
        let again = fleet.run("result", &["--on", "first", "--encrypt", &job])?;
        let again = again.success()?.stdout;
        ensure!(again.contains("first: sified\n"), "{again}");
        let logs = fleet.audit(0)? + &fleet.agents[0].stderr();
        ensure!(
            logs.contains("(sealed)") && !logs.contains("clas"),
            "{logs}"
        );
        heard.kill()?;
        let heard = fs::read(fleet.operator.path("heard"))?;
        let contains = |text: &str| heard.windows(text.len()).any(|w| w == text.as_bytes());
        ensure!(contains("everybody"), "nothing was heard at all");
        for secret in ["clas", "sified", "1999\n2000"] {
            ensure!(!contains(secret), "{secret} went over the wire");
        }
        fleet
            .exec(&["--encrypt", "--on", "nobody", "--", "true"])?
            .exits(3)
    });
}
