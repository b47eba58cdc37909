//! Runs the commands of docs/troubleshooting.md literally on two nodes.

use crate::prelude::*;
use crate::recipes::{blocks, is_command, shows};

const PAGE: &str = include_str!("../../../docs/troubleshooting.md");
/// The place at which the page closes beta's firewall.
const CLOSED: &str = "<!-- beta's firewall closes here -->";

#[test]
fn the_commands_of_the_page_say_what_it_says() {
    world("troubleshoot", |lab| {
        let network = lab.closed_network(["alpha", "beta"])?;
        let (open, closed) = PAGE.split_once(CLOSED).context(CLOSED)?;
        let mut typed = 0;
        for (part, is_closed) in [(open, false), (closed, true)] {
            if is_closed {
                network.members[1].host.close_everywhere()?;
            }
            for block in blocks(part).iter().filter(|b| b.language == "console") {
                let mut lines = block.lines.iter().peekable();
                while let Some(line) = lines.next() {
                    let mut shown = Vec::new();
                    while let Some(line) = lines.next_if(|l| !is_command(l)) {
                        shown.push(line.as_str());
                    }
                    let (name, command) = line.split_once("# ").context(line.clone())?;
                    let member = network.members.iter().find(|m| m.host.name() == name);
                    let Some(member) = member else {
                        bail!("whose command is this? {line}");
                    };
                    // the lab's names of table and chain
                    let command = command.replace("inet filter input", "inet closed input");
                    let done = member.host.sh(&command)?;
                    ensure!(done.code == 0, "{command}: {}: {}", done.code, done.stderr);
                    let said = done.stdout + &done.stderr;
                    let shown: Vec<&str> = shown.into_iter().filter(|l| *l != "...").collect();
                    shows(&said, &shown).context(command)?;
                    typed += 1;
                }
            }
        }
        // an unparsed page must not pass
        holds!(typed >= 18, "{typed}")
    });
}
