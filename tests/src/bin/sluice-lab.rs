//! `sluice-lab`: builds the lab, plays the story, cleans up. Inside the lab's namespaces it becomes
//! the clients and the echo servers, by hidden subcommands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use sluice_tests::helper::echo::EchoServer;
use sluice_tests::helper::http_load::HttpLoad;
use sluice_tests::helper::udp_flood::UdpFlood;
use sluice_tests::helper::udp_load::UdpLoad;
use sluice_tests::lab::error::LabError;
use sluice_tests::lab::site::{self, Site};
use sluice_tests::lab::sluice::Binaries;
use sluice_tests::lab::topology::Wire;
use sluice_tests::lab::{Lab, LabOptions, check_machine, interrupt, vip};
use sluice_tests::story::report::print;
use sluice_tests::story::{self, StoryOptions};

/// Prefix of the names of the story's namespaces.
const PREFIX: &str = "sluice";

/// Watch real clients reach real servers through Sluice, in network namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "sluice-lab", version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Print only the summary, as JSON.
    #[arg(long)]
    json: bool,
    /// Leave the lab running at the end, and say how to talk to it.
    #[arg(long)]
    keep: bool,
    /// Remove a lab that was left running, and do nothing else.
    #[arg(long, conflicts_with_all = ["json", "keep", "quick", "only"])]
    down: bool,
    /// Wire Sluice with two-queue taps and two workers, in place of AF_XDP and one. Step 6 needs
    /// AF_XDP.
    #[arg(long)]
    taps: bool,
    /// Fewer requests, shorter measurements.
    #[arg(long)]
    quick: bool,
    /// Only this step, 1 to 6; may be repeated.
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u8).range(1..=6))]
    only: Vec<u8>,
    #[command(subcommand)]
    helper: Option<Helper>,
}

#[derive(Debug, Subcommand)]
enum Helper {
    /// Be HTTP clients.
    #[command(hide = true)]
    HttpLoad(HttpLoad),
    /// Be UDP clients.
    #[command(hide = true)]
    UdpLoad(UdpLoad),
    /// Send datagrams without end.
    #[command(hide = true)]
    UdpFlood(UdpFlood),
    /// Be a UDP echo server.
    #[command(hide = true)]
    EchoServer(EchoServer),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.helper {
        Some(helper) => help(helper).map_err(LabError::io("helper")).map(|()| true),
        None if cli.down => take_down().map(|()| true),
        None => tell(&cli),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            site::wait_if_abandoned();
            eprintln!("sluice-lab: {error}");
            ExitCode::from(2)
        }
    }
}

fn help(helper: Helper) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match helper {
            Helper::HttpLoad(load) => load.run().await,
            Helper::UdpLoad(load) => load.run().await,
            Helper::UdpFlood(flood) => flood.run(),
            Helper::EchoServer(server) => server.run().await,
        }
    })
}

fn take_down() -> Result<(), LabError> {
    check_machine()?;
    // Claiming removes what is there, under the lock; dropping removes the rest.
    Site::new(PREFIX).claim(Duration::ZERO).map(drop)
}

/// Tell the story; whether it went well.
fn tell(cli: &Cli) -> Result<bool, LabError> {
    check_machine()?;
    let helper = std::env::current_exe().map_err(LabError::io("this program"))?;
    let binaries = Binaries::in_dir(helper.parent().unwrap_or(Path::new(".")));
    binaries.check()?;
    interrupt::clean_up("sluice-lab")?;
    let options = StoryOptions { silent: cli.json, quick: cli.quick, only: cli.only.clone() };
    let (summary, lab) = story::play(&options, lab_options(cli.taps, helper), binaries)?;
    if cli.json {
        let json = serde_json::to_string_pretty(&summary).unwrap_or_default();
        println!("{json}");
    } else {
        print(&summary);
    }
    if cli.keep {
        say_how_to_talk_to(&lab);
        lab.keep();
    }
    Ok(summary.passed)
}

fn lab_options(taps: bool, helper: PathBuf) -> LabOptions {
    LabOptions {
        prefix: PREFIX.to_owned(),
        wire: if taps { Wire::Tap } else { Wire::AfXdp },
        worker_cpus: if taps { vec![0, 1] } else { vec![1] },
        helper,
        patience: Duration::ZERO,
    }
}

/// To stderr: stdout may be a program's.
fn say_how_to_talk_to(lab: &Lab) {
    let (lb, client) = (lab.site().netns("lb"), lab.site().netns("client"));
    let cli = lab.binaries().cli.display();
    let exe = std::env::current_exe().unwrap_or_else(|_| "sluice-lab".into());
    eprintln!(
        "\nThe lab is still running. Talk to it:
  ip netns exec {lb} {cli} service list
  ip netns exec {lb} {cli} stats
  ip netns exec {lb} curl {url}/api/v1/services
  ip netns exec {client} curl http://{web}/
  ip netns exec {client} curl http://{dr}/
  ip netns exec {client} bash
Configuration and logs are in {dir}.
Take it down (the next run does so too):
  {exe} --down",
        url = lab.api.url(),
        web = vip("web").ip(),
        dr = vip("web-dr").ip(),
        dir = lab.site().run_dir().display(),
        exe = exe.display(),
    );
}
