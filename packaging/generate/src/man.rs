//! Man pages: one of the program, one of each subcommand.

use std::io::Write;

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;

use crate::programs::{COMMON, Program};

/// Returns file names and pages: of subcommands, and of commands that users call.
pub fn pages(program: &Program) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut command = crate::shown(program).disable_help_subcommand(true);
    command.build();
    let verbs = command.get_subcommands().cloned();
    let mut pages = Vec::new();
    for verb in verbs.filter(|verb| program.has_page_of(verb.get_name())) {
        let name = format!("{}-{}", program.called, verb.get_name());
        let mut page = Vec::new();
        // the names that `build` has filled in are for messages, not for pages
        let verb = verb.display_name(name.clone());
        head(&verb, &name, &mut page)?;
        examples(&verb, &mut page)?;
        surroundings(program, &verb, &mut page)?;
        section("SEE ALSO", &format!("{}(1)", program.called), &mut page)?;
        pages.push((format!("{name}.1"), page));
    }
    if program.called != program.name {
        return Ok(pages);
    }
    let mut page = Vec::new();
    head(&command, program.name, &mut page)?;
    if command.has_subcommands() {
        verbs_of(&command, program, &mut page)?;
    }
    examples(&command, &mut page)?;
    surroundings(program, &command, &mut page)?;
    section("SEE ALSO", &program.see_also.join(", "), &mut page)?;
    pages.push((format!("{}.1", program.name), page));
    Ok(pages)
}

fn head(command: &Command, name: &str, page: &mut Vec<u8>) -> anyhow::Result<()> {
    let man = Man::new(command.clone())
        .title(name.to_owned())
        .source(format!("librecast {}", env!("CARGO_PKG_VERSION")));
    man.render_title(page)?;
    man.render_name_section(page)?;
    synopsis(command, name, page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    Ok(())
}

/// Writes the synopsis of a command, with the values of its options.
fn synopsis(command: &Command, name: &str, page: &mut Vec<u8>) -> anyhow::Result<()> {
    // `lcagent-exec` is the page, `lcagent exec` the command
    let name = name.replacen('-', " ", 1);
    writeln!(page, ".SH SYNOPSIS\n\\fB{}\\fR", escaped(&name))?;
    let shown = command.get_arguments().filter(|a| !a.is_hide_set());
    let (places, options): (Vec<&Arg>, Vec<&Arg>) = shown.partition(|a| a.is_positional());
    for argument in options.into_iter().chain(places) {
        let written = spelled(argument);
        match argument.is_required_set() {
            true => writeln!(page, "{written}")?,
            false => writeln!(page, "[{written}]")?,
        }
    }
    if command.has_subcommands() {
        writeln!(page, "\\fICOMMAND\\fR ...")?;
    }
    Ok(())
}

fn spelled(argument: &Arg) -> String {
    let takes_values = argument.get_action().takes_values();
    let names = argument.get_value_names().unwrap_or_default().iter();
    let values: Vec<String> = names
        .filter(|_| takes_values)
        .map(|name| format!("\\fI{}\\fR", escaped(name)))
        .collect();
    let mut values = values.join(" ");
    let several = argument.get_num_args().is_some_and(|n| n.max_values() > 1);
    if several || matches!(argument.get_action(), ArgAction::Append) {
        values += "...";
    }
    if argument.get_num_args().is_some_and(|n| n.min_values() == 0) && takes_values {
        values = format!("[{values}]");
    }
    let long = argument.get_long().map(|long| format!("--{long}"));
    let name = long.or(argument.get_short().map(|short| format!("-{short}")));
    match name {
        Some(name) if values.is_empty() => format!("\\fB{}\\fR", escaped(&name)),
        Some(name) => format!("\\fB{}\\fR {values}", escaped(&name)),
        None => values,
    }
}

/// Writes the sections that are the same for each subcommand: each page is read alone.
fn surroundings(program: &Program, command: &Command, page: &mut Vec<u8>) -> anyhow::Result<()> {
    table("FILES", program.files, page)?;
    table("ENVIRONMENT", &environment(program, command), page)?;
    table("EXIT STATUS", program.exit_status, page)
}

fn verbs_of(command: &Command, program: &Program, page: &mut Vec<u8>) -> anyhow::Result<()> {
    let verbs: Vec<(String, String)> = command
        .get_subcommands()
        .map(|verb| {
            let about = verb.get_about().map(ToString::to_string);
            (
                format!("{}-{}(1)", program.name, verb.get_name()),
                about.unwrap_or_default(),
            )
        })
        .collect();
    let rows: Vec<(&str, &str)> = verbs
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    table("COMMANDS", &rows, page)
}

/// Writes the end of `--help`, line by line.
fn examples(command: &Command, page: &mut Vec<u8>) -> anyhow::Result<()> {
    let Some(help) = command.get_after_help() else {
        return Ok(());
    };
    let help = help.to_string();
    let (title, text) = match help.split_once(':') {
        Some(("Example" | "Examples", text)) => ("EXAMPLES", text),
        _ => ("NOTES", help.as_str()),
    };
    writeln!(page, ".SH {title}\n.nf")?;
    for line in text.trim_matches('\n').lines() {
        writeln!(page, "{}", escaped(line))?;
    }
    writeln!(page, ".fi")?;
    Ok(())
}

/// Returns the variables of options, and further ones.
fn environment<'a>(program: &'a Program, command: &'a Command) -> Vec<(&'a str, &'a str)> {
    // ordered by name, each once
    let mut found = std::collections::BTreeMap::new();
    for command in std::iter::once(command).chain(command.get_subcommands()) {
        for argument in command.get_arguments() {
            if let (Some(name), Some(long)) = (
                argument.get_env().and_then(|n| n.to_str()),
                argument.get_long(),
            ) {
                found.insert(name, long);
            }
        }
    }
    let mut rows: Vec<(&str, &str)> = found
        .into_iter()
        .map(|(name, long)| (name, leaked_option(long)))
        .collect();
    rows.extend(program.environment.iter().chain(COMMON));
    rows
}

/// Returns a text that is never freed: the process ends after its pages.
fn leaked_option(long: &str) -> &'static str {
    format!("as --{long}, which wins over it").leak()
}

fn table(title: &str, rows: &[(&str, &str)], page: &mut Vec<u8>) -> anyhow::Result<()> {
    writeln!(page, ".SH \"{title}\"")?;
    for (left, right) in rows {
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", escaped(left), escaped(right))?;
    }
    Ok(())
}

fn section(title: &str, text: &str, page: &mut Vec<u8>) -> anyhow::Result<()> {
    writeln!(page, ".SH \"{title}\"\n{}", escaped(text))?;
    Ok(())
}

/// Escapes all of a line for roff.
fn escaped(line: &str) -> String {
    let line = line
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('~', "\\(ti")
        .replace('^', "\\(ha")
        .replace('\'', "\\(aq")
        .replace('`', "\\(ga");
    // a dot at the beginning is a request
    if line.starts_with('.') {
        format!("\\&{line}")
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::PROGRAMS;

    #[test]
    fn page_of_a_verb_says_what_values_it_takes_and_how_it_ends() {
        for program in PROGRAMS {
            for (file, page) in pages(program).unwrap() {
                let page = String::from_utf8(page).unwrap();
                for section in ["FILES", "ENVIRONMENT", "EXIT STATUS"] {
                    let head = format!(".SH \"{section}\"\n");
                    assert_eq!(page.matches(&head).count(), 1, "{file}: {section}");
                }
                assert!(page.contains("\\fB130, 143\\fR"), "{file}");
            }
        }
        let of = |name| pages(PROGRAMS.iter().find(|p| p.name == name).unwrap()).unwrap();
        let pages = of("lcagent");
        let page = |name: &str| {
            let found = pages.iter().find(|(file, _)| file == name);
            String::from_utf8(found.unwrap().1.clone()).unwrap()
        };
        let exec = page("lcagent-exec.1");
        for written in [
            "\\fBlcagent exec\\fR\n",
            "[\\fB\\-\\-on\\fR \\fISELECTOR\\fR]",
            "[\\fB\\-i\\fR \\fIIFACE\\fR...]",
            "[\\fB\\-\\-strict\\fR]",
            "\n\\fICMD\\fR...",
        ] {
            assert!(exec.contains(written), "{written}: {exec}");
        }
        let watch = "[\\fB\\-\\-watch\\fR [\\fID\\fR]]";
        assert!(page("lcagent-nodes.1").contains(watch));
    }

    #[test]
    fn each_page_is_in_one_package() {
        let all = PROGRAMS.iter().flat_map(|p| pages(p).unwrap());
        let mut names: Vec<String> = all.map(|(file, _)| file).collect();
        for of_another in [
            "lcroute-demo.1",
            "lcroute-bench.1",
            "lcroute-sim.1",
            "lcroute-web.1",
            "lcroute-serve.1",
            "lcroute-connect.1",
        ] {
            assert!(names.iter().any(|n| n == of_another), "{names:?}");
        }
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
