//! Runs docs/guide/fleet.md literally: its files, its commands, its expected output.

use crate::lcagent::Fleet;
use crate::prelude::*;

const PAGE: &str = include_str!("../../../docs/guide/fleet.md");

#[test]
fn the_recipes_do_what_they_say() {
    world("recipes", |lab| {
        let mut page = Page::new(lab)?;
        let (mut files, mut commands) = (0, 0);
        for block in blocks(PAGE) {
            if block.language == "console" {
                page.start()?;
                commands += page.type_in(&block)?;
            } else {
                page.write(&block)?;
                files += 1;
            }
        }
        // an unparsed page must not pass
        holds!(files >= 5 && commands >= 10, "{files} {commands}")
    });
}

#[test]
fn a_watch_shows_each_round_until_it_is_interrupted() {
    world("agt-watch", |lab| {
        let mut fleet = Fleet::new(lab, LAN)?;
        let args = ["nodes", "-i", LAN, "--watch", "1s", "--json"];
        let mut watch = fleet.operator.spawn("lcagent", &args)?;
        let states = |watch: &Process, of: &str| -> Result<Vec<(u64, String)>> {
            let said = watch.stdout();
            // the last line may be incomplete
            let whole = said.rfind('\n').map_or("", |end| &said[..end]);
            let rows = whole.lines().map(serde_json::from_str::<Value>);
            let mut states = Vec::new();
            for row in rows {
                let row = row?;
                if row["name"] == of {
                    let at = row["at"].as_u64().context("no time")?;
                    states.push((at, row["state"].to_string()));
                }
            }
            Ok(states)
        };
        eventually("two rounds", || {
            watch.must_run()?;
            let rounds = states(&watch, "third")?;
            ensure!(rounds.len() >= 2, "{rounds:?}");
            ensure!(rounds.iter().all(|(_, s)| s == "\"up\""), "{rounds:?}");
            holds!(rounds[1].0 > rounds[0].0, "{rounds:?}")
        })?;
        fleet.agents[2].kill()?;
        let last = |watch: &Process| -> Result<String> {
            Ok(states(watch, "third")?.pop().context("none")?.1)
        };
        eventually("it is silent", || {
            let last = last(&watch)?;
            holds!(last == "\"silent\"", "{last}")
        })?;
        fleet.start_agent(2)?;
        eventually("it is back", || {
            let last = last(&watch)?;
            holds!(last == "\"up\"", "{last}")
        })?;
        watch.signal(Signal::SIGINT)?;
        watch.expect_exit(Duration::from_secs(20), 130)
    });
}

pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) lines: Vec<String>,
}

pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) => {
                inside = true;
                blocks.push(Block {
                    language: language.to_owned(),
                    lines: Vec::new(),
                });
            }
            None if inside => {
                if let Some(block) = blocks.last_mut() {
                    block.lines.push(line.to_owned());
                }
            }
            None => {}
        }
    }
    blocks
}

/// The hosts of the page.
struct Page {
    operator: Host,
    nodes: Vec<Host>,
    agents: Vec<Process>,
    key: String,
}

impl Page {
    fn new(lab: &Lab) -> Result<Page> {
        let mut hosts = lab.lan(&["operator", "alpha", "beta", "gamma"])?;
        let operator = hosts.remove(0);
        fs::create_dir_all(operator.path("config/lcagent"))?;
        let made = operator.run("lcagent", &["keygen", "config/lcagent/operator.key"])?;
        Ok(Page {
            operator,
            nodes: hosts,
            agents: Vec::new(),
            key: made.success()?.stdout.trim().to_owned(),
        })
    }

    /// Writes a file; its first or second line names the hosts and the path.
    fn write(&self, block: &Block) -> Result<()> {
        let head = block.lines.iter().take(2).find_map(|line| {
            let comment = line.strip_prefix("# ").or(line.strip_prefix("// "))?;
            comment.split_once(": ")
        });
        let (hosts, path) = head.with_context(|| format!("no file: {:?}", block.lines))?;
        let text = block.lines.join("\n") + "\n";
        for name in hosts.split(", ") {
            if name == "operator" {
                self.operator.write(path, &text)?;
                continue;
            }
            let node = self.nodes.iter().find(|n| n.name() == name);
            let node = node.with_context(|| format!("no host {name}"))?;
            let own = path.strip_prefix("/etc/").context(path.to_owned())?;
            if path.ends_with(".toml") {
                // the defaults of a real host
                let head = format!("name = \"{name}\"\ninterface = \"{LAN}\"\n");
                let modules = node.path("lcagent/modules");
                let head = format!("{head}modules = \"{}\"\n", modules.display());
                let text = text
                    .replace("12D3KooW...", &self.key)
                    .replace("user = \"ci\"", "user = \"root\"");
                node.write(own, head + &text)?;
            } else {
                let file = node.write(own, &text)?;
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    /// Starts the agents once they have their files. On the shared disk each has its own /srv.
    fn start(&mut self) -> Result<()> {
        if !self.agents.is_empty() {
            return Ok(());
        }
        for node in &self.nodes {
            fs::create_dir_all(node.path("srv/build"))?;
            fs::create_dir_all(node.path("lcagent/modules"))?;
            let script = "mount --bind srv /srv && exec lcagent run --config lcagent/lcagent.toml \
                          --state-dir state/agent";
            self.agents
                .push(node.spawn("unshare", &["-m", "sh", "-c", script])?);
        }
        let agents = &mut self.agents;
        eventually("all are known", || {
            for agent in agents.iter_mut() {
                agent.must_run()?;
            }
            let nodes = self.operator.run("lcagent", &["nodes", "--json"])?.stdout;
            holds!(nodes.matches("\"state\":\"up\"").count() == 3, "{nodes}")
        })
    }

    /// Types the commands of a block; returns their number.
    fn type_in(&mut self, block: &Block) -> Result<usize> {
        let mut typed = 0;
        let mut lines = block.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let mut shown = Vec::new();
            while let Some(line) = lines.next_if(|l| !is_command(l)) {
                shown.push(line.as_str());
            }
            match line.split_once("$ ").or(line.split_once("# ")) {
                Some(("operator", command)) if command.contains(" --watch ") => {
                    self.watch(command, &shown)?;
                }
                Some(("operator", command)) => {
                    let done = self.operator.sh(command)?;
                    let last_word = shown.iter().any(|line| line.starts_with("exit code"));
                    ensure!(
                        done.code == 0 || last_word,
                        "{command}: {}: {}",
                        done.code,
                        done.stderr
                    );
                    shows(&(done.stdout + &done.stderr), &shown).context(command.to_owned())?;
                }
                Some((host, "poweroff")) => {
                    let at = self.nodes.iter().position(|n| n.name() == host);
                    self.agents[at.context(host.to_owned())?].stop()?;
                }
                _ => bail!("whose command is this? {line}"),
            }
            typed += 1;
        }
        Ok(typed)
    }

    fn watch(&self, command: &str, shown: &[&str]) -> Result<()> {
        let mut watch = self.operator.spawn("sh", &["-c", command])?;
        eventually(command, || {
            watch.must_run()?;
            shows(&watch.stdout(), shown)
        })?;
        // a shell with a single command is replaced by it
        watch.signal(Signal::SIGINT)?;
        let parent = watch.pid().to_string();
        self.operator.ask("pkill", &["-INT", "-P", &parent])?;
        watch.wait(Duration::from_secs(20)).map(drop)
    }
}

pub(crate) fn is_command(line: &str) -> bool {
    ["operator$ ", "alpha# ", "beta# ", "gamma# ", "gate-a# "]
        .iter()
        .any(|prompt| line.starts_with(prompt))
}

/// Checks that the output has each line; `...` matches anything, column widths are ignored.
pub(crate) fn shows(said: &str, lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(
            said.lines().any(|l| matches(line, l)),
            "{line:?} is not in {said}"
        );
    }
    Ok(())
}

fn matches(pattern: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (words(pattern), words(line));
    let mut parts = pattern.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}
