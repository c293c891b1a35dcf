//! `sluice-manual DIR`: writes the man pages and shell completions of Sluice's programs, made from
//! the command lines that the programs themselves parse. `scripts/package` calls it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;

/// Write man pages to DIR/man and shell completions to DIR/bash, DIR/zsh and DIR/fish.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The directory; made when it is missing.
    directory: PathBuf,
}

/// The programs of the package whose command lines a library tells.
fn programs() -> [Command; 4] {
    [
        sluice_control::cli::command(),
        sluice_control::args::Arguments::command(),
        sluice_dataplane::args::Args::command(),
        sluice_perf::Args::command(),
    ]
}

fn main() -> ExitCode {
    let directory = Args::parse().directory;
    for program in programs() {
        if let Err(error) = write(program, &directory) {
            eprintln!("sluice-manual: {}: {error}", directory.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(program: Command, directory: &Path) -> io::Result<()> {
    let name = program.get_name().to_owned();
    let man = directory.join("man");
    fs::create_dir_all(&man)?;
    // Built, it knows how each command below is called, and which options go for all of them. A page
    // about `help` would tell nothing.
    let mut documented = program.clone().disable_help_subcommand(true);
    documented.build();
    // Daemons are for administrators.
    let section = if matches!(&*name, "sluice" | "sluice-perf") { "1" } else { "8" };
    manual(&documented, &name, section, &man)?;
    for (shell, folder, file) in [
        (Shell::Bash, "bash", name.clone()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ] {
        let folder = directory.join(folder);
        fs::create_dir_all(&folder)?;
        let mut out = File::create(folder.join(file))?;
        clap_complete::generate(shell, &mut program.clone(), &name, &mut out);
    }
    Ok(())
}

/// A page for the command, and one for each command below it: `sluice-service-create(1)`.
fn manual(command: &Command, name: &str, section: &str, directory: &Path) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .section(section)
        .manual("Sluice")
        .source(format!("sluice {}", env!("CARGO_PKG_VERSION")));
    page.render(&mut File::create(directory.join(format!("{name}.{section}")))?)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        manual(below, &format!("{name}-{}", below.get_name()), section, directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_page_and_completions() {
        let directory = tempfile::tempdir().unwrap();
        for program in programs() {
            write(program, directory.path()).unwrap();
        }
        let read = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap();
        for page in [
            "sluice.1",
            "sluice-service-create.1",
            "sluice-control.8",
            "sluice-dataplane.8",
            "sluice-perf.1",
            "sluice-perf-pipeline.1",
        ] {
            let text = read(&format!("man/{page}"));
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
        }
        assert!(read("man/sluice-dataplane.8").contains("READY"));
        assert!(read("man/sluice.1").contains("Exit codes"));
        // As it is typed, with what goes for every command.
        let create = read("man/sluice-service-create.1").replace("\\-", "-");
        assert!(create.contains("sluice service create") && create.contains("--api"), "{create}");
        assert!(!directory.path().join("man/sluice-help.1").exists());
        for file in
            ["bash/sluice", "zsh/_sluice-control", "fish/sluice-dataplane.fish", "bash/sluice-perf"]
        {
            assert!(read(file).contains("sluice"), "{file}");
        }
    }
}
