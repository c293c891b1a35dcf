//! The reference: testpmd as a plain wire between Sluice's two ports, and wrk to load both.

use std::time::Duration;

use super::command::run_in;
use super::error::{LabError, Result};
use super::process::Process;
use super::site::Site;

/// Start testpmd in place of Sluice: what comes in on one port goes out of the other. It polls
/// without pause on `worker_cpu`; end it with SIGINT as soon as the measurement is done.
pub fn start_testpmd(site: &Site, worker_cpu: u16) -> Result<Process> {
    let lcores = format!("0@0,1@{worker_cpu}");
    let prefix = site.netns("testpmd");
    let argv = [
        "dpdk-testpmd",
        "--no-pci",
        "--no-huge",
        "-m",
        "512",
        "--no-telemetry",
        "--file-prefix",
        &prefix,
        "--lcores",
        &lcores,
        "--vdev",
        "net_af_xdp0,iface=wan0",
        "--vdev",
        "net_af_xdp1,iface=lan0",
        "--",
        "--forward-mode=io",
        "--total-num-mbufs=16384",
        // Without a terminal testpmd ends at once unless it has statistics to print.
        "--stats-period=3600",
    ];
    let mut testpmd = Process::spawn(site, &site.netns("lb"), "testpmd", &argv)?;
    testpmd.wait_for_text("io packet forwarding", Duration::from_secs(20))?;
    Ok(testpmd)
}

/// What wrk measured.
#[derive(Clone, Copy, Debug)]
pub struct WrkResult {
    /// Requests per second.
    pub requests_per_s: f64,
    /// Requests that failed or were answered with an error.
    pub errors: u64,
}

/// Run wrk in the client's namespace: `connections` connections, each asking again as soon as it
/// is answered.
pub fn wrk(
    site: &Site,
    url: &str,
    cpus: &str,
    connections: u32,
    seconds: u64,
) -> Result<WrkResult> {
    let (connections, duration) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let argv = ["taskset", "-c", cpus, "wrk", "-t1", &connections, &duration, url];
    let output = run_in(&site.netns("client"), &argv)?;
    parse_wrk(&output)
        .ok_or_else(|| LabError::Command { command: format!("wrk {url}"), reason: output.clone() })
}

fn parse_wrk(output: &str) -> Option<WrkResult> {
    let after = |label: &str| {
        output.lines().find_map(|line| line.trim().strip_prefix(label).map(str::trim))
    };
    let requests_per_s = after("Requests/sec:")?.parse().ok()?;
    let digits = |text: &str| -> u64 {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum()
    };
    let errors = after("Socket errors:").map_or(0, digits)
        + after("Non-2xx or 3xx responses:").map_or(0, digits);
    Some(WrkResult { requests_per_s, errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let output = "  212690 requests in 4.10s, 32.25MB read\n  \
                      Socket errors: connect 0, read 3, write 0, timeout 4\n  \
                      Non-2xx or 3xx responses: 5\nRequests/sec:  51870.06\n";
        let result = parse_wrk(output).unwrap();
        assert_eq!(result.errors, 12);
        assert!((result.requests_per_s - 51_870.06).abs() < 1e-6);
        assert!(parse_wrk("unable to connect").is_none());
    }
}
