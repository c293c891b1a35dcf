//! `sluice doctor`: what of this host keeps the data plane from starting, or costs it speed, and the
//! command that mends it.
//!
//! Each check is a small function over a [`Host`] and what the data plane's file asks for
//! ([`Wanted`]); none changes anything, and none needs a running control.

mod cpu;
mod device;
mod files;
mod finding;
mod host;
mod memory;
mod running;
mod wanted;

use std::path::PathBuf;

use files::Programs;

pub use finding::{Finding, State};
pub use host::Host;
pub use wanted::Wanted;

/// What to examine.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The data plane's file.
    pub dataplane_file: PathBuf,
    /// Control's file.
    pub control_file: PathBuf,
}

/// Look at everything.
pub fn examine(examination: &Examination) -> Vec<Finding> {
    let Examination { dataplane_file, control_file } = examination;
    let programs = Programs::find();
    let (file, wanted) = files::dataplane(dataplane_file, programs.dataplane.as_deref());
    let ports = wanted.is_some().then_some(dataplane_file.as_path());
    let wanted = wanted.unwrap_or_default();
    let mut findings = vec![file];
    findings.extend(files::control(control_file, ports, programs.control.as_deref()));
    let answer = running::ask(&wanted.socket);
    findings.extend(examine_host(&Host::new("/"), &wanted));
    findings.extend(running::findings(&wanted.socket, &answer));
    findings
}

/// All checks of a host.
pub fn examine_host(host: &Host, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = vec![
        memory::hugepages(host, wanted),
        memory::hugetlbfs(host, wanted),
        memory::memlock(host, wanted),
        cpu::exist(host, wanted),
        cpu::isolated(host, wanted),
        cpu::siblings(host, wanted),
        cpu::clock(host),
        device::iommu(host, wanted),
        device::vfio(host, wanted),
        device::tap(host, wanted),
    ];
    findings.extend(cpu::numa(host, wanted));
    findings.extend(device::ports(host, wanted));
    findings
}

/// Whether nothing must be mended.
pub fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_tells_nothing_is_not_called_well_or_ill_without_reason() {
        let (host, _root) = host::tests::made_up(&[("dev/net/tun", "")]);
        let findings = examine_host(&host, &Wanted::default());
        assert!(is_well(&findings), "{findings:#?}");
        assert!(findings.iter().any(|f| f.state == State::Unknown));
        let without_fix = |f: &&Finding| f.state == State::Wrong && f.fix.is_none();
        assert!(findings.iter().find(without_fix).is_none());
    }

    #[test]
    fn one_wrong_finding_is_enough() {
        let (host, _root) = host::tests::made_up(&[]);
        let findings = examine_host(&host, &Wanted::default());
        assert!(!is_well(&findings), "no /dev/net/tun");
        let json = serde_json::to_value(&findings).unwrap();
        let tap = json.as_array().unwrap().iter().find(|f| f["check"] == "tap").unwrap();
        assert_eq!(tap["state"], "wrong");
        assert!(tap["fix"].as_str().unwrap().starts_with("modprobe tun"));
    }
}
