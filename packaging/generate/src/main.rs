//! Makes the further content of packages from the programs themselves: `packaging-generate FOLDER`
//! writes `FOLDER/PROGRAM/` with man pages, completions, `copyright` and `PROGRAM.cdx.json`.
//!
//! The output is reproducible; its only time is `SOURCE_DATE_EPOCH`.

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
use programs::{PROGRAMS, Program, Vendored};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("usage: packaging-generate FOLDER")?;
    let crates = Crates::read()?;
    for program in PROGRAMS {
        let folder = folder.join(program.name);
        // pages of removed subcommands
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        generate(program, &crates, &folder).with_context(|| program.name)?;
    }
    let library = folder.join("librecast-dev");
    describe("librecast-c", "librecast-dev", &[], &crates, &library)?;
    // only a unit: its program is in another package
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
    // completions only for commands that users call
    let shells = match program.called == program.name {
        true => &[Shell::Bash, Shell::Zsh, Shell::Fish][..],
        false => &[],
    };
    for &shell in shells {
        let folder = folder.join(shell.to_string());
        fs::create_dir_all(&folder)?;
        // bash-completion loads the file with the program's name
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
    describe(program.name, program.name, program.vendored, crates, folder)
}

/// Writes the licences and the materials of a crate into the folder of its package.
fn describe(
    name: &str,
    package: &str,
    vendored: &[Vendored],
    crates: &Crates,
    folder: &Path,
) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let linked = crates.linked_into(name)?;
    let licences = copyright::with_crates(&linked, vendored)?;
    fs::write(folder.join("copyright"), licences)?;
    let bill = materials::bill(name, crates, &linked, vendored)?;
    fs::write(folder.join(format!("{package}.cdx.json")), bill)?;
    Ok(())
}

/// Returns the command without subcommands that only programs start.
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
    // clap cannot remove a subcommand: the command is rebuilt with the shown ones
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
