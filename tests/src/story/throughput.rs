//! Step 6: wrk through Sluice, as a ratio to wrk through testpmd as a plain wire.
//!
//! The same nginx, the same client, the same two ports, the same CPUs: what stands between them
//! alternates. Sluice forwards between two networks and rewrites each packet; testpmd passes frames
//! on as they are, so the client has an address in the backends' network for its sake.

use std::thread::sleep;
use std::time::Duration;

use crate::lab::Lab;
use crate::lab::command::run_in;
use crate::lab::error::{LabError, Result};
use crate::lab::process::wait_until;
use crate::lab::reference::{WrkResult, start_testpmd, wrk};
use crate::lab::sluice;
use crate::lab::topology::{CLIENT_ON_LAN, VIP_WEB, add_address, backend_address};
use crate::story::report::{Step, round};

const CONNECTIONS: u32 = 32;
/// What the ratio must reach.
const LEAST_RATIO: f64 = 0.6;

/// Run the step.
pub fn run(lab: &mut Lab, step: &mut Step) -> Result<()> {
    let (rounds, seconds) = if step.quick { (1, 2) } else { (3, 4) };
    // One backend, as the plain wire has one end.
    for number in [2, 3] {
        lab.cli(&["backend", "drain", "web", &format!("{}:80", backend_address(number))])?;
    }
    let client = lab.site().netns("client");
    add_address(&client, CLIENT_ON_LAN, 24, "wan")?;
    let through_sluice = format!("http://{VIP_WEB}:80/");
    let over_wire = format!("http://{}:80/", backend_address(1));
    let (mut sluice_rates, mut wire_rates) = (Vec::new(), Vec::new());
    let mut errors = 0;
    for round_number in 1..=rounds {
        reachable(&client, &through_sluice)?;
        let result = measure(lab, &through_sluice, seconds)?;
        step.say(format!("round {round_number}: Sluice {:7.0} requests/s", result.requests_per_s));
        sluice_rates.push(result.requests_per_s);
        errors += result.errors;

        if let Some(dataplane) = &mut lab.dataplane {
            let status = sluice::stop(dataplane)?;
            step.expect(status.success(), format!("sluice-dataplane ended on SIGTERM: {status}"));
        }
        let mut testpmd = start_testpmd(lab.site(), lab.worker_cpu())?;
        reachable(&client, &over_wire)?;
        let result = measure(lab, &over_wire, seconds)?;
        testpmd.signal("-INT")?;
        // It may have to wait for its CPU on a machine that is in use.
        testpmd.wait(Duration::from_secs(30))?;
        step.say(format!("round {round_number}: testpmd {:6.0} requests/s", result.requests_per_s));
        wire_rates.push(result.requests_per_s);
        lab.start_dataplane()?;
    }
    for number in [2, 3] {
        lab.cli(&["backend", "up", "web", &format!("{}:80", backend_address(number))])?;
    }
    lab.wait_healthy(Duration::from_secs(10))?;

    let (sluice, wire) = (median(&mut sluice_rates), median(&mut wire_rates));
    let ratio = sluice / wire;
    step.figure("sluice_requests_per_s", round(sluice, 0));
    step.figure("testpmd_requests_per_s", round(wire, 0));
    step.figure("ratio", round(ratio, 3));
    step.figure("rounds", rounds);
    step.figure("seconds_per_measurement", seconds);
    step.figure("wrk_connections", CONNECTIONS);
    step.figure("cpus_of_wrk_and_nginx", lab.load_cpus());
    step.figure("cpu_of_worker", lab.worker_cpu());
    step.expect(errors == 0, format!("{errors} errors through Sluice"));
    step.expect(
        ratio >= LEAST_RATIO,
        format!("Sluice made {sluice:.0} and testpmd {wire:.0} requests/s: ratio {ratio:.2}, at least {LEAST_RATIO}"),
    );
    Ok(())
}

fn measure(lab: &Lab, url: &str, seconds: u64) -> Result<WrkResult> {
    let cpus = lab.load_cpus();
    // A short run first: caches, ARP and nginx' open files are then as in the middle of things.
    wrk(lab.site(), url, &cpus, CONNECTIONS, 1)?;
    sleep(Duration::from_millis(200));
    wrk(lab.site(), url, &cpus, CONNECTIONS, seconds)
}

fn reachable(netns: &str, url: &str) -> Result<()> {
    wait_until(&format!("{url} answers"), Duration::from_secs(15), || {
        match run_in(netns, &["curl", "-sf", "-m", "1", "-o", "/dev/null", url]) {
            Ok(_) => Ok(Some(())),
            Err(LabError::Command { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    })
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(0.0)
}
