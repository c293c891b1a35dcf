//! `sluice-sriov`: runs Sluice on SR-IOV virtual functions of emulated NICs, in a virtual machine that
//! `scripts/test-sriov` prepares.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sluice_tests::lab::error::LabError;
use sluice_tests::lab::site::{self, Site};
use sluice_tests::lab::sluice::Binaries;
use sluice_tests::lab::topology::Wire;
use sluice_tests::lab::{LabOptions, check_machine, interrupt};
use sluice_tests::sriov::{self, SriovOptions};
use sluice_tests::story::report::print;

/// Prefix of the names of its namespaces.
const PREFIX: &str = "sluice-sriov";
/// How long the whole run may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Run Sluice on SR-IOV virtual functions of emulated NICs.
#[derive(Debug, Parser)]
#[command(name = "sluice-sriov", version)]
struct Cli {
    /// What scripts/test-sriov has prepared: QEMU, kernel, initramfs.
    #[arg(long, value_name = "DIRECTORY")]
    image: PathBuf,
    /// Print only the summary, as JSON.
    #[arg(long)]
    json: bool,
    /// Only this step, from 1; may be repeated.
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u8).range(1..))]
    only: Vec<u8>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            site::wait_if_abandoned();
            eprintln!("sluice-sriov: {error}");
            ExitCode::from(2)
        }
    }
}

/// Run the steps; whether all went well.
fn run(cli: &Cli) -> Result<bool, LabError> {
    check_machine()?;
    let own = std::env::current_exe().map_err(LabError::io("this program"))?;
    let binaries = Binaries::in_dir(own.parent().unwrap_or(Path::new(".")));
    binaries.check()?;
    interrupt::clean_up("sluice-sriov")?;
    end_in_time();
    let lab = LabOptions {
        prefix: PREFIX.to_owned(),
        wire: Wire::Guest,
        worker_cpus: Vec::new(),
        helper: own.with_file_name("sluice-lab"),
        patience: Duration::from_secs(300),
    };
    let options =
        SriovOptions { image: cli.image.clone(), silent: cli.json, only: cli.only.clone() };
    let summary = sriov::run(&options, lab, binaries)?;
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&summary).unwrap_or_default());
    } else {
        print(&summary);
    }
    Ok(summary.passed)
}

/// Each step has its limits; this is for what none of them sees.
fn end_in_time() {
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT);
        eprintln!(
            "sluice-sriov: not done after {LIMIT:?}, removing {}",
            Site::new(PREFIX).run_dir().display()
        );
        site::abandon();
        std::process::exit(2);
    });
}
