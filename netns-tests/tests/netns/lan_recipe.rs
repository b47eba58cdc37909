//! Runs the recipe of docs/guide/lan.md literally on two gateways.
//!
//! Without systemd: the service of `systemctl restart` runs with the capabilities of the unit, and
//! of the linked drop-in (packaging/test-install tests that with systemd).

use lcroute_demo::lab;

use crate::lan::{GROUP, lan};
use crate::prelude::*;
use crate::recipes::{Block, blocks, is_command};
use crate::segment::ping;

const PAGE: &str = include_str!("../../../docs/guide/lan.md");
const UNIT: &str = include_str!("../../../systemd/lcroute.service");
const CONFIG: &str = "/etc/lcroute/lcroute.toml";
const DROP_IN: &str = include_str!("../../../systemd/lcroute-lan.conf");
const FOLDER: &str = "/etc/systemd/system/lcroute.service.d";

#[test]
fn the_recipe_joins_two_lans() {
    world("lan-recipe", |lab| {
        let mut page = Page::new(lab)?;
        let mut typed = 0;
        for block in blocks(PAGE).iter().filter(|b| b.language == "console") {
            let is_gateways = block.lines.iter().any(|line| line.starts_with("gate-a# "));
            typed += page.type_in(block, "gate-a")?;
            if is_gateways {
                page.type_in(block, "gate-b")?;
            }
        }
        // an unparsed page must not pass
        ensure!(typed >= 7, "{typed}");
        let [a, b] = &page.sites;
        for (from, to, gateway) in [(a, b, "gate-a"), (b, a, "gate-b")] {
            let listener = to.hosts[0].receive(GROUP, &[])?;
            let gateway = Member::new(page.host(gateway)?);
            // switches have joined groups as well
            let is_wanted = || -> Result<bool> {
                let groups = gateway.groups()?;
                let group = groups.iter().find(|group| group["group"] == GROUP);
                let links = group.and_then(|group| group["links"].as_array());
                Ok(links.is_some_and(|links| !links.is_empty()))
            };
            eventually("the join is known behind the other LAN", || {
                let said = lan(&gateway)?;
                holds!(said["role"] == "forwarder" && is_wanted()?, "{said}")
            })?;
            from.hosts[1].send(GROUP, 100, &["--rate", "200"])?;
            listener.expect_exactly(100)?;
            drop(listener);
            becomes(false, &is_wanted)?;
        }
        // the printer of the page, from the speaker's house
        eventually("hosts reach each other", || {
            ping(&a.hosts[0], "192.168.1.30").map(drop)
        })?;
        let said = page
            .host("gate-a")?
            .run("lcroute", &["lan", "host", "192.168.1.30"])?;
        ensure!(said.stdout == "behind gate-b\n", "{}", said.stdout);
        // without the drop-in `lcroute lan` names the remedy
        page.linked.clear();
        page.start("gate-b")?;
        let gateway = Member::new(page.host("gate-b")?);
        eventually("the LAN is off, and says why", || {
            let said = lan(&gateway)?;
            let remedy = said["remedy"].as_str().unwrap_or_default();
            let is_told = remedy.contains("/usr/share/lcroute/lan.conf");
            holds!(said["role"] == "off" && is_told, "{said}")
        })
    });
}

/// Returns the value of a key in a unit.
fn value<'a>(unit: &'a str, key: &str) -> Result<&'a str> {
    let mut lines = unit.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.with_context(|| format!("no {key}"))
}

/// The hosts of the page.
struct Page {
    /// alpha, gate-a, gate-b
    hosts: Vec<Host>,
    sites: [Site; 2],
    services: Vec<(String, Process)>,
    /// Hosts with the drop-in of the service.
    linked: Vec<String>,
    token: String,
}

impl Page {
    fn new(lab: &Lab) -> Result<Page> {
        let alpha = lab.host("alpha")?;
        let mut hosts = lab.closed_hosts(&["gate-a", "gate-b"])?;
        let sites = [
            lab.site(1, &[&hosts[0]], &["camera", "server"])?,
            lab.site(2, &[&hosts[1]], &["viewer1", "viewer2"])?,
        ];
        for (gateway, (site, n)) in hosts.iter().zip(sites.iter().zip([20, 30])) {
            gateway.ip(&format!("addr add 192.168.1.10/24 dev {}", lab::LAN))?;
            site.hosts[0].ip(&format!("addr add 192.168.1.{n}/24 dev {}", lab::LAN))?;
        }
        hosts.insert(0, alpha);
        let names = format!("{} alpha.example\n", hosts[0].v4()?);
        for host in &hosts {
            host.write("hosts", &names)?;
        }
        let mut page = Page {
            hosts,
            sites,
            services: Vec::new(),
            linked: Vec::new(),
            token: String::new(),
        };
        // as in README.md
        page.host("alpha")?
            .configure("[signal]\nlisten = \"[::]:7117\"\n")?;
        page.run("alpha", "lcroute init --name alpha")?;
        page.start("alpha")?;
        Ok(page)
    }

    fn host(&self, name: &str) -> Result<Host> {
        let host = self.hosts.iter().find(|host| host.name() == name);
        Ok(host.with_context(|| format!("no host {name}"))?.clone())
    }

    /// Types the commands of a block, those for `gate-a` on a gateway; returns their number.
    fn type_in(&mut self, block: &Block, gateway: &str) -> Result<usize> {
        let mut typed = 0;
        let mut lines = block.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let mut shown = Vec::new();
            while let Some(line) = lines.next_if(|line| !is_command(line)) {
                shown.push(line.as_str());
            }
            let line = line.replace("gate-a", gateway);
            let (host, command) = line.split_once("# ").with_context(|| line.clone())?;
            match command {
                "systemctl daemon-reload" => {}
                "systemctl restart lcroute" => self.start(host)?,
                _ if command == format!("mkdir -p {FOLDER}") => {}
                _ if command == format!("ln -s /usr/share/lcroute/lan.conf {FOLDER}") => {
                    self.linked.push(host.to_owned());
                }
                _ => match command.strip_prefix("cat ") {
                    Some(file) => self.write(host, file, &shown)?,
                    None => {
                        let said = self.run(host, &command.replace("lct1...", &self.token))?;
                        if shown == ["lct1..."] {
                            ensure!(said.starts_with("lct1"), "{said}");
                            said.trim().clone_into(&mut self.token);
                        }
                    }
                },
            }
            typed += 1;
        }
        Ok(typed)
    }

    fn write(&self, host: &str, file: &str, lines: &[&str]) -> Result<()> {
        let host = self.host(host)?;
        let text = lines.join("\n") + "\n";
        match file {
            // in the lab the page's name is that of uplinks
            CONFIG => host.configure(&text.replace("\"eth0\"", &format!("\"{}\"", lab::LAN))),
            _ => bail!("where is {file}?"),
        }
    }

    /// Runs a command; returns its output.
    fn run(&self, host: &str, command: &str) -> Result<String> {
        let script = format!("mount --bind hosts /etc/hosts && {command}");
        let done = self
            .host(host)?
            .run("unshare", &["-m", "sh", "-c", &script])?;
        let done = done.success().with_context(|| command.to_owned())?;
        Ok(done.stdout)
    }

    /// Starts the service, in place of a running one.
    fn start(&mut self, host: &str) -> Result<()> {
        self.services.retain(|(name, _)| name != host);
        let is_linked = self.linked.iter().any(|linked| linked == host);
        let files = [UNIT, DROP_IN].into_iter().take(1 + usize::from(is_linked));
        let capabilities = files.map(|file| value(file, "CapabilityBoundingSet"));
        let capabilities = capabilities.collect::<Result<Vec<_>>>()?.join(",");
        let capabilities = capabilities.to_lowercase().replace("cap_", "+");
        let script = format!(
            "mount --bind hosts /etc/hosts && exec setpriv --bounding-set=-all,{capabilities} lcroute run"
        );
        let at = self.host(host)?;
        let mut service = at.spawn("unshare", &["-m", "sh", "-c", &script])?;
        // the unit is of Type=notify: systemctl waits
        eventually("the service is ready", || {
            service.must_run()?;
            Member::new(at.clone()).status().map(drop)
        })?;
        self.services.push((host.to_owned(), service));
        Ok(())
    }
}
