//! CPUs: do they exist, are they left alone, on which NUMA node are they; and the clock.

use super::finding::Finding;
use super::host::{Host, commas};
use super::wanted::Wanted;

const CPU: &str = "sys/devices/system/cpu";

/// The workers' CPUs: those of the file, or the last that is online.
fn workers(host: &Host, wanted: &Wanted) -> Vec<u16> {
    if !wanted.worker_cpus.is_empty() {
        return wanted.worker_cpus.clone();
    }
    let online = host.cpus(&format!("{CPU}/online")).unwrap_or_default();
    online.last().copied().into_iter().collect()
}

/// Whether the CPUs that the file names are online, each named once.
pub fn exist(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "cpus";
    let Some(online) = host.cpus(&format!("{CPU}/online")) else {
        return Finding::unknown(CHECK, format!("/{CPU}/online cannot be read"));
    };
    let workers = workers(host, wanted);
    let named = workers.iter().chain(&wanted.main_cpu);
    let missing: Vec<u16> = named.filter(|cpu| !online.contains(cpu)).copied().collect();
    if !missing.is_empty() {
        return Finding::wrong(
            CHECK,
            format!("CPU {} is not online; online are {}", commas(&missing), commas(&online)),
            "change worker_cpus or main_cpu in [runtime]",
        );
    }
    if let Some(twice) = (1..workers.len()).find(|&n| workers[..n].contains(&workers[n])) {
        let message = format!("CPU {} has two workers", workers[twice]);
        let fix = "name each CPU once in worker_cpus";
        return match wanted.share_cpus {
            true => Finding::warning(CHECK, format!("{message}: fit for a trial only"), fix),
            false => Finding::wrong(CHECK, message, fix),
        };
    }
    let main = wanted.main_cpu.or(online.first().copied()).unwrap_or_default();
    Finding::ok(CHECK, format!("workers on {}, the main thread on {main}", commas(&workers)))
}

/// Whether the kernel keeps other work away from the workers' CPUs.
pub fn isolated(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "isolation";
    let Some(isolated) = host.cpus(&format!("{CPU}/isolated")) else {
        return Finding::unknown(CHECK, format!("/{CPU}/isolated cannot be read"));
    };
    let workers = workers(host, wanted);
    let shared: Vec<u16> = workers.iter().filter(|c| !isolated.contains(c)).copied().collect();
    if shared.is_empty() {
        return Finding::ok(CHECK, format!("CPU {} is left to its worker", commas(&workers)));
    }
    let cpus = commas(&shared);
    if !wanted.busy {
        return Finding::ok(
            CHECK,
            format!(
                "CPU {cpus} is not isolated: other work may delay packets; fine with idle = \"adaptive\""
            ),
        );
    }
    Finding::warning(
        CHECK,
        format!("CPU {cpus} is not isolated: other work there delays packets by milliseconds"),
        format!(
            "kernel parameters: isolcpus={cpus} nohz_full={cpus} rcu_nocbs={cpus}, then reboot"
        ),
    )
}

/// Whether two workers share one core as hyperthreads.
pub fn siblings(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "hyperthreads";
    let workers = workers(host, wanted);
    for (n, cpu) in workers.iter().enumerate() {
        let Some(siblings) = host.cpus(&format!("{CPU}/cpu{cpu}/topology/thread_siblings_list"))
        else {
            return Finding::unknown(
                CHECK,
                format!("the kernel does not tell CPU {cpu}'s siblings"),
            );
        };
        if let Some(other) = workers[..n].iter().find(|other| siblings.contains(other)) {
            return Finding::warning(
                CHECK,
                format!(
                    "workers on CPU {other} and {cpu} share one core, and each gets little more \
                     than half of it"
                ),
                "name CPUs of different cores in worker_cpus (lscpu -e shows them)",
            );
        }
    }
    Finding::ok(CHECK, "each worker has a core of its own")
}

/// The NUMA node of a CPU.
fn node_of(host: &Host, cpu: u16) -> Option<i64> {
    let nodes = host.names("sys/devices/system/node")?;
    nodes.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).find(|node: &i64| {
        host.cpus(&format!("sys/devices/system/node/node{node}/cpulist"))
            .is_some_and(|cpus| cpus.contains(&cpu))
    })
}

/// Whether workers are on the NUMA node of their ports.
pub fn numa(host: &Host, wanted: &Wanted) -> Vec<Finding> {
    const CHECK: &str = "numa";
    let mut findings = Vec::new();
    for (port, address) in wanted.pci() {
        let Some(node) = host.number(&format!("sys/bus/pci/devices/{address}/numa_node")) else {
            findings.push(Finding::unknown(
                CHECK,
                format!("port {port}: {address} does not tell its NUMA node"),
            ));
            continue;
        };
        let far: Vec<u16> = workers(host, wanted)
            .into_iter()
            .filter(|cpu| node >= 0 && node_of(host, *cpu).is_some_and(|other| other != node))
            .collect();
        if far.is_empty() {
            let where_ = if node < 0 {
                "has no NUMA node".to_owned()
            } else {
                format!("is on node {node}, as its workers")
            };
            findings.push(Finding::ok(CHECK, format!("port {port} {where_}")));
            continue;
        }
        let near = host
            .read(&format!("sys/devices/system/node/node{node}/cpulist"))
            .unwrap_or_else(|| "its own".to_owned());
        findings.push(Finding::warning(
            CHECK,
            format!(
                "port {port} is on NUMA node {node}, its worker on CPU {} is not: every packet \
                 crosses between the sockets, which costs some 100 ns for each line of it",
                commas(&far)
            ),
            format!("take worker_cpus from {near}"),
        ));
    }
    findings
}

/// Whether time is cheap and steady: the data plane reads the TSC.
pub fn clock(host: &Host) -> Finding {
    const CHECK: &str = "clock";
    let source = host.read("sys/devices/system/clocksource/clocksource0/current_clocksource");
    let flags = host.read("proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("flags"))?;
        Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    });
    let (Some(source), Some(flags)) = (source, flags) else {
        return Finding::unknown(CHECK, "the kernel tells neither its clock source nor CPU flags");
    };
    let steady = ["constant_tsc", "nonstop_tsc"];
    let lacks: Vec<&str> =
        steady.into_iter().filter(|flag| !flags.iter().any(|f| f == flag)).collect();
    if source == "tsc" || source == "kvm-clock" && lacks.is_empty() {
        return Finding::ok(CHECK, format!("the TSC is steady, the kernel uses {source}"));
    }
    if lacks.is_empty() {
        return Finding::warning(
            CHECK,
            format!(
                "the kernel's clock is {source}, not tsc: it may have found the TSC to drift, by \
                 which timeouts are counted"
            ),
            "dmesg | grep -i tsc   # says why; in a virtual machine give it the host's TSC",
        );
    }
    Finding::warning(
        CHECK,
        format!(
            "the CPU does not promise a steady TSC ({} absent), the kernel uses {source}: timeouts \
             may be wrong",
            lacks.join(", ")
        ),
        "in a virtual machine pass the host's CPU through (as -cpu host with invtsc)",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::host::tests::made_up;
    use super::super::wanted::tests::wanted;
    use super::*;

    const ONLINE: (&str, &str) = ("sys/devices/system/cpu/online", "0-3");

    #[test]
    fn cpus_exist_and_are_named_once() {
        let (host, _root) = made_up(&[ONLINE]);
        let look = |text: &str| exist(&host, &wanted(text));
        assert_eq!(look("").message, "workers on 3, the main thread on 0");
        let missing = look("[runtime]\nmain_cpu = 9\nworker_cpus = [1, 7]");
        assert_eq!(missing.state, State::Wrong);
        assert_eq!(missing.message, "CPU 7,9 is not online; online are 0,1,2,3");
        let twice = look("[runtime]\nworker_cpus = [1, 2, 1]");
        assert_eq!((twice.state, twice.message.as_str()), (State::Wrong, "CPU 1 has two workers"));
        let trial = look("[runtime]\nworker_cpus = [1, 2, 1]\nshare_cpus = true");
        assert_eq!(trial.state, State::Warning);
        assert_eq!(trial.message, "CPU 1 has two workers: fit for a trial only");
        let (bare, _root) = made_up(&[]);
        assert_eq!(exist(&bare, &Wanted::default()).state, State::Unknown);
    }

    #[test]
    fn busy_workers_want_isolated_cpus() {
        let tree = |isolated| made_up(&[ONLINE, ("sys/devices/system/cpu/isolated", isolated)]);
        let busy = wanted("[runtime]\nworker_cpus = [2, 3]\nidle = \"busy\"");
        let (host, _root) = tree("3\n");
        let found = isolated(&host, &busy);
        assert_eq!(found.state, State::Warning);
        assert!(found.fix.unwrap().contains("isolcpus=2 nohz_full=2 rcu_nocbs=2"));
        let adaptive = wanted("[runtime]\nworker_cpus = [2]");
        assert_eq!(isolated(&host, &adaptive).state, State::Ok);
        let (host, _root) = tree("2-3\n");
        assert_eq!(isolated(&host, &busy).message, "CPU 2,3 is left to its worker");
        let (host, _root) = made_up(&[]);
        assert_eq!(isolated(&host, &busy).state, State::Unknown);
    }

    #[test]
    fn two_workers_on_one_core_are_told() {
        let list = |n| format!("sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list");
        let (host, _root) = made_up(&[
            ONLINE,
            (&list(0), "0,2"),
            (&list(1), "1,3"),
            (&list(2), "0,2"),
            (&list(3), "1,3"),
        ]);
        let look =
            |cpus: &str| siblings(&host, &wanted(&format!("[runtime]\nworker_cpus = [{cpus}]")));
        assert_eq!(look("0, 1").state, State::Ok);
        let found = look("0, 1, 2");
        assert_eq!(found.state, State::Warning);
        assert!(found.message.starts_with("workers on CPU 0 and 2 share one core"), "{found:?}");
        assert_eq!(look("0, 9").state, State::Unknown);
    }

    #[test]
    fn workers_far_from_their_port_are_told_with_the_cost() {
        let tree = |node: &str| {
            made_up(&[
                ONLINE,
                ("sys/devices/system/node/node0/cpulist", "0-1"),
                ("sys/devices/system/node/node1/cpulist", "2-3"),
                ("sys/bus/pci/devices/0000:03:00.0/numa_node", node),
            ])
        };
        let port = "[[port]]\nname = \"lan\"\ndevice = \"03:00.0\"";
        let look = |node: &str, cpus: &str| {
            let (host, _root) = tree(node);
            numa(&host, &wanted(&format!("[runtime]\nworker_cpus = [{cpus}]\n{port}"))).remove(0)
        };
        assert_eq!(look("0", "1").message, "port lan is on node 0, as its workers");
        assert_eq!(look("-1", "1").message, "port lan has no NUMA node");
        let far = look("0", "1, 2, 3");
        assert_eq!(far.state, State::Warning);
        assert!(far.message.contains("CPU 2,3 is not") && far.message.contains("100 ns"));
        assert_eq!(far.fix.as_deref(), Some("take worker_cpus from 0-1"));
        let (host, _root) = made_up(&[ONLINE]);
        assert_eq!(numa(&host, &wanted(port))[0].state, State::Unknown);
        assert!(numa(&host, &Wanted::default()).is_empty());
    }

    #[test]
    fn the_clock_is_steady_or_not() {
        let look = |source: &str, flags: &str| {
            let flags = format!("processor: 0\nflags\t\t: fpu {flags}\n");
            let (host, _root) = made_up(&[
                ("sys/devices/system/clocksource/clocksource0/current_clocksource", source),
                ("proc/cpuinfo", &flags),
            ]);
            clock(&host)
        };
        let steady = "constant_tsc nonstop_tsc";
        assert_eq!(look("tsc\n", steady).state, State::Ok);
        assert_eq!(look("kvm-clock\n", steady).state, State::Ok);
        let hpet = look("hpet\n", steady);
        assert_eq!(hpet.state, State::Warning);
        assert!(hpet.message.starts_with("the kernel's clock is hpet"), "{hpet:?}");
        let unsteady = look("kvm-clock\n", "constant_tsc");
        assert!(unsteady.message.contains("nonstop_tsc absent"), "{unsteady:?}");
        let (host, _root) = made_up(&[]);
        assert_eq!(clock(&host).state, State::Unknown);
    }
}
