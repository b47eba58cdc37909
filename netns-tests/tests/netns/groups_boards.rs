//! Boards: a reader in no list, a writer, a holder for the absent, and the feed.

use crate::groups::Person;
use crate::prelude::*;

/// Parses a feed on standard input; prints its titles and contents.
const PARSE: &str = r#"
import sys, xml.etree.ElementTree as tree
atom = "{http://www.w3.org/2005/Atom}"
feed = tree.parse(sys.argv[1]).getroot()
assert feed.tag == atom + "feed" and feed.find(atom + "id") is not None, feed.tag
for entry in feed.findall(atom + "entry"):
    print(entry.find(atom + "title").text, entry.find(atom + "content").text, sep="|")
"#;

impl Person {
    /// Runs a command for boards; returns its output.
    fn board(&self, args: &[&str]) -> Result<String> {
        let args = [&["--control", &self.control], args].concat();
        Ok(self.host.ask("lcgroup", &args)?.success()?.stdout)
    }

    fn posts(&self) -> Result<Vec<String>> {
        let args = ["--control", &self.control, "--json", "read", "news"];
        let said = self.host.ask("lcgroup", &args)?.success()?.stdout;
        let text = |line: &str| -> Result<String> {
            let post: Value = serde_json::from_str(line)?;
            Ok(post["text"].as_str().unwrap_or_default().to_owned())
        };
        said.lines().map(text).collect()
    }

    fn follows(&self, text: &str) -> Result<String> {
        let answer = self.ask(&["follow", text])?;
        Ok(answer["author"].as_str().context("a key")?.to_owned())
    }
}

#[test]
fn anyone_follows_a_board_and_a_holder_has_it_while_its_owner_is_away() {
    world("groups-boards", |lab| {
        let hosts = lab.lan(&["ann", "bob", "cy", "box"])?;
        let [mut ann, bob, mut cy, holder] =
            <[Person; 4]>::try_from(Person::all(hosts.into_iter(), "lan0")?)
                .ok()
                .expect("four");
        let text = ann.board(&["board", "create", "news"])?.trim().to_owned();
        ensure!(text.starts_with("lcb1"), "{text}");
        let key = bob.follows(&text)?;
        holder.board(&["hold", &text, "news"])?;
        let refused = ["--control", &bob.control, "board", "post", "news", "mine"];
        bob.fails(&refused, 4, "board writer add news")?;
        ann.board(&[
            "board",
            "post",
            "news",
            "--title",
            "<First>",
            "hello & welcome",
        ])?;
        ann.board(&["board", "writer", "add", "news", &key])?;
        // on disk, once the command has ended
        ann.daemon()?.kill()?;
        ann.start()?;
        becomes(vec!["hello & welcome".to_owned()], || ann.posts())?;
        eventually("bob may post", || {
            bob.board(&["board", "post", "news", "by bob"])
        })?;
        let all = vec!["hello & welcome".to_owned(), "by bob".to_owned()];
        for person in [&ann, &bob, &holder] {
            becomes(all.clone(), || person.posts())?;
        }
        ann.daemon()?.stop()?;
        bob.host
            .write("feed.atom", &bob.board(&["board", "feed", "news"])?)?;
        let feed = bob.host.path("feed.atom").display().to_string();
        let read = bob.host.run("python3", &["-c", PARSE, &feed])?.success()?;
        ensure!(
            read.stdout == "by bob|by bob\n<First>|hello & welcome\n",
            "{}",
            read.stdout
        );
        bob.board(&["unfollow", "news"])?;
        cy.follows(&text)?;
        becomes(all.clone(), || cy.posts())?;
        cy.daemon()?.kill()?;
        cy.start()?;
        ensure!(cy.posts()? == all);
        Ok(())
    });
}
