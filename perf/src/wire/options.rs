//! What to compare, and where the programs are.

use std::path::{Path, PathBuf};

use clap::Args;

use super::WireError;
use super::site;

/// What to compare.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Options {
    /// Print the report as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Numbers of flows, one row each
    #[arg(long, value_delimiter = ',', default_value = "10000,1000000")]
    pub(super) flows: Vec<u32>,
    /// How long each round sends, in s
    #[arg(long, default_value_t = 0.5)]
    pub(super) seconds: f64,
    /// Rounds of each, of which the median counts
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) rounds: u32,
    /// CPU of the generator, and of Sluice's main thread
    #[arg(long, default_value_t = 0)]
    pub(super) generator_cpu: u16,
    /// CPU of testpmd and of Sluice's worker
    #[arg(long, default_value_t = 1)]
    pub(super) device_cpu: u16,
    /// The data plane [default: in SLUICE_BIN_DIR, or beside this program]
    #[arg(long, value_name = "PATH")]
    sluice_dataplane: Option<PathBuf>,
    /// testpmd [default: dpdk-testpmd in PATH]
    #[arg(long, value_name = "PATH")]
    testpmd: Option<PathBuf>,
}

impl Options {
    pub(super) fn most_flows(&self) -> u32 {
        self.flows.iter().copied().max().unwrap_or_default()
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        let error =
            |flag, value: String, expected: String| Err(WireError::Flag { flag, value, expected });
        if let Some(flows) = self.flows.iter().find(|f| !(1..=site::MOST_FLOWS).contains(*f)) {
            let expected = format!("numbers from 1 to {}", site::MOST_FLOWS);
            return error("--flows", flows.to_string(), expected);
        }
        if !(0.1..=60.0).contains(&self.seconds) {
            return error("--seconds", self.seconds.to_string(), "0.1 to 60".to_owned());
        }
        if self.generator_cpu == self.device_cpu {
            let expected = "another CPU than --generator-cpu: both take theirs whole";
            return error("--device-cpu", self.device_cpu.to_string(), expected.to_owned());
        }
        Ok(())
    }

    /// Whether both CPUs are among those that this process may use.
    pub(super) fn check_cpus(&self, available: &[usize]) -> Result<(), WireError> {
        for (flag, cpu) in
            [("--generator-cpu", self.generator_cpu), ("--device-cpu", self.device_cpu)]
        {
            if !available.contains(&usize::from(cpu)) {
                let known: Vec<String> = available.iter().map(ToString::to_string).collect();
                let expected = format!("a CPU that this process may use: {}", known.join(", "));
                return Err(WireError::Flag { flag, value: cpu.to_string(), expected });
            }
        }
        Ok(())
    }

    pub(super) fn dataplane(&self) -> Result<PathBuf, WireError> {
        let beside = || {
            let own = std::env::current_exe().unwrap_or_default();
            own.parent().map(Path::to_owned).unwrap_or_default()
        };
        let directory = std::env::var_os("SLUICE_BIN_DIR").map_or_else(beside, PathBuf::from);
        let path =
            self.sluice_dataplane.clone().unwrap_or_else(|| directory.join("sluice-dataplane"));
        if path.is_file() {
            return Ok(path);
        }
        let expected = "the program: build it with `cargo build --release`, or name it with \
                        --sluice-dataplane or its directory in SLUICE_BIN_DIR";
        Err(WireError::Missing { name: "sluice-dataplane", path, expected })
    }

    pub(super) fn testpmd(&self) -> Result<PathBuf, WireError> {
        let name = Path::new("dpdk-testpmd");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file());
        let path = self.testpmd.clone().or(found).unwrap_or_else(|| name.to_owned());
        if path.is_file() {
            return Ok(path);
        }
        let expected =
            "DPDK's testpmd (on Debian: apt-get install dpdk-dev), or its path in --testpmd";
        Err(WireError::Missing { name: "dpdk-testpmd", path, expected })
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        Options {
            json: false,
            flows: vec![10_000, 1_000_000],
            seconds: 1.0,
            rounds: 1,
            generator_cpu: 0,
            device_cpu: 1,
            sluice_dataplane: None,
            testpmd: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_cannot_be_are_named() {
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::for_test();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        let error = refused(|o| o.flows = vec![10, 0]);
        assert_eq!(error, "--flows is 0: expected numbers from 1 to 10000000");
        let error = refused(|o| o.seconds = 0.0);
        assert_eq!(error, "--seconds is 0: expected 0.1 to 60");
        let error = refused(|o| o.device_cpu = 0);
        assert!(error.starts_with("--device-cpu is 0: expected another CPU than"), "{error}");
        assert!(Options::for_test().check().is_ok());
    }

    #[test]
    fn cpus_that_are_not_there_are_named() {
        let mut options = Options::for_test();
        (options.generator_cpu, options.device_cpu) = (0, 9);
        let error = options.check_cpus(&[0, 1]).unwrap_err().to_string();
        assert_eq!(error, "--device-cpu is 9: expected a CPU that this process may use: 0, 1");
        options.device_cpu = 1;
        assert!(options.check_cpus(&[0, 1]).is_ok());
    }

    #[test]
    fn programs_that_are_missing_are_named() {
        let mut options = Options::for_test();
        options.sluice_dataplane = Some("/nowhere/sluice-dataplane".into());
        let error = options.dataplane().unwrap_err().to_string();
        assert!(
            error.starts_with("sluice-dataplane is not at /nowhere/sluice-dataplane: expected")
        );
        options.testpmd = Some("/nowhere/testpmd".into());
        let error = options.testpmd().unwrap_err().to_string();
        assert!(error.contains("apt-get install dpdk-dev"), "{error}");
    }
}
