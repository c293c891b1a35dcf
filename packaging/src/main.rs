//! `sluice-manual`: writes the man pages and shell completions of Sluice's programs and files, made from
//! the command lines that the programs themselves parse and from `docs/configuration.md`; and checks
//! the links of documents. `scripts/package` calls it.

mod files;
mod links;
mod manual;
mod programs;
mod roff;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap_complete::Shell;

use programs::Program;

/// Write man pages to DIR/man and shell completions to DIR/bash, DIR/zsh and DIR/fish.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The directory; made when it is missing.
    directory: PathBuf,
    /// The date that pages bear, as 2026-11-30.
    #[arg(long, required_unless_present = "check_links")]
    date: Option<String>,
    /// Write nothing: find links of the Markdown documents below DIR that lead nowhere.
    #[arg(long)]
    check_links: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.date {
        Some(date) if !args.check_links => write_all(&args.directory, date).map(|()| Vec::new()),
        _ => links::broken(&args.directory),
    };
    match done {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("sluice-manual: {}: {error}", args.directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path, date: &str) -> io::Result<()> {
    let man = directory.join("man");
    fs::create_dir_all(&man)?;
    for program in programs::all() {
        for (name, page) in manual::pages(&program, date)? {
            fs::write(man.join(name), page)?;
        }
        completions(&program, directory)?;
    }
    for (name, page) in files::pages(date) {
        fs::write(man.join(name), page)?;
    }
    Ok(())
}

fn completions(program: &Program, directory: &Path) -> io::Result<()> {
    let name = program.command.get_name().to_owned();
    for (shell, folder, file) in [
        (Shell::Bash, "bash", name.clone()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ] {
        let folder = directory.join(folder);
        fs::create_dir_all(&folder)?;
        let mut out = File::create(folder.join(file))?;
        clap_complete::generate(shell, &mut program.command.clone(), &name, &mut out);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_and_file_has_a_page_and_completions() {
        let directory = tempfile::tempdir().unwrap();
        write_all(directory.path(), "2026-11-30").unwrap();
        let read = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap();
        for page in [
            "sluice.1",
            "sluice-service-create.1",
            "sluice-control.8",
            "sluice-dataplane.8",
            "sluice-perf.1",
            "sluice-perf-pipeline.1",
            "sluice-control.toml.5",
            "sluice-dataplane.toml.5",
        ] {
            let text = read(&format!("man/{page}"));
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
        }
        assert!(read("man/sluice-dataplane.8").contains("READY"));
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
