//! Makes what the packages contain beside the programs, from the programs themselves: `packaging-generate FOLDER`
//! writes `FOLDER/PROGRAM/` with man pages, completions, `copyright` and `PROGRAM.cdx.json`.
//!
//! The same sources give the same bytes; the one time in it is `SOURCE_DATE_EPOCH`.

mod copyright;
mod crates;
mod man;
mod materials;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap_complete::Shell;

use crates::Crates;
use programs::{PROGRAMS, Program};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("usage: packaging-generate FOLDER")?;
    let crates = Crates::read()?;
    for program in PROGRAMS {
        let folder = folder.join(program.name);
        // pages of verbs that are no more
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        generate(program, &crates, &folder).with_context(|| program.name)?;
    }
    // a unit alone: all that runs is in the package of its program
    fs::create_dir_all(folder.join("lcroute-signal"))?;
    fs::write(folder.join("lcroute-signal/copyright"), copyright::ours())?;
    Ok(())
}

fn generate(program: &Program, crates: &Crates, folder: &Path) -> anyhow::Result<()> {
    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    for (file, page) in man::pages(program)? {
        fs::write(pages.join(file), page)?;
    }
    // completions are of what users call
    let shells = match program.called == program.name {
        true => &[Shell::Bash, Shell::Zsh, Shell::Fish][..],
        false => &[],
    };
    for &shell in shells {
        let folder = folder.join(shell.to_string());
        fs::create_dir_all(&folder)?;
        // bash-completion loads the file that is named like the program
        let name = match shell {
            Shell::Bash => program.name.to_owned(),
            Shell::Zsh => format!("_{}", program.name),
            _ => format!("{}.{shell}", program.name),
        };
        let mut text = Vec::new();
        let mut command = shown(program);
        clap_complete::generate(shell, &mut command, program.name, &mut text);
        fs::write(folder.join(name), text)?;
    }
    let linked = crates.linked_into(program.name)?;
    fs::write(
        folder.join("copyright"),
        copyright::with_crates(&linked, program.vendored)?,
    )?;
    let bill = materials::bill(program.name, crates, &linked, program.vendored)?;
    fs::write(folder.join(format!("{}.cdx.json", program.name)), bill)?;
    Ok(())
}

/// Verbs that programs start themselves are nobody else's concern.
fn shown(program: &Program) -> clap::Command {
    let command = (program.command)();
    let shown: Vec<clap::Command> = command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .cloned()
        .collect();
    let hidden: Vec<String> = command
        .get_subcommands()
        .filter(|verb| verb.is_hide_set())
        .map(|verb| verb.get_name().to_owned())
        .collect();
    if hidden.is_empty() {
        return command;
    }
    // clap has no way to take a verb out: the same command is put together anew, with those that are shown
    let mut anew = clap::Command::new(program.called).args(command.get_arguments());
    if let Some(about) = command.get_about() {
        anew = anew.about(about.clone());
    }
    if let Some(help) = command.get_after_help() {
        anew = anew.after_help(help.clone());
    }
    anew.version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(command.is_subcommand_required_set())
        .subcommands(shown)
}
