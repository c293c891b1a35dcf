//! What does not keep the data plane from starting, but costs something that an operator should know.

use std::fs;
use std::path::Path;

/// Warnings about ports (name, NUMA node, whether the link is up) and the CPUs of the workers that
/// poll them. `root` is the root directory, `/`.
pub fn of<'p>(
    root: &Path,
    ports: impl Iterator<Item = (&'p str, Option<u16>, bool)>,
    worker_cpus: &[u16],
) -> Vec<String> {
    let mut warnings = Vec::new();
    for (port, node, link_up) in ports {
        let far: Vec<String> = worker_cpus
            .iter()
            .filter(|cpu| is_elsewhere(root, **cpu, node))
            .map(u16::to_string)
            .collect();
        if let (Some(node), false) = (node, far.is_empty()) {
            let near = fs::read_to_string(root.join(node_path(node))).unwrap_or_default();
            warnings.push(format!(
                "port {port} is on NUMA node {node}, its workers on CPU {} are not: each packet \
                 crosses between the sockets, which costs some 100 ns for every cache line of it; \
                 runtime.worker_cpus: expected CPUs of {}",
                far.join(", "),
                near.trim()
            ));
        }
        if !link_up {
            warnings.push(format!(
                "port {port}: its link is down, so it receives and sends nothing until it comes up: \
                 look at cable and switch; a VF has the link of its PF (`ip link set PF up`)"
            ));
        }
    }
    warnings
}

fn node_path(node: u16) -> String {
    format!("sys/devices/system/node/node{node}/cpulist")
}

/// Whether the kernel says that the CPU is not on this node.
fn is_elsewhere(root: &Path, cpu: u16, node: Option<u16>) -> bool {
    let Some(node) = node else { return false };
    fs::read_to_string(root.join(node_path(node)))
        .ok()
        .and_then(|text| crate::config::parse_cpu_list(&text))
        .is_some_and(|cpus| !cpus.contains(&cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_workers_and_links_that_are_down_are_told() {
        let root = std::env::temp_dir().join(format!("sluice-numa-{}", std::process::id()));
        for (node, cpus) in [(0, "0-1\n"), (1, "2-3\n")] {
            let path = root.join(node_path(node));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, cpus).unwrap();
        }
        let look =
            |node, link_up, cpus: &[u16]| of(&root, [("lan", node, link_up)].into_iter(), cpus);
        assert!(look(Some(0), true, &[0, 1]).is_empty());
        assert!(look(None, true, &[0, 3]).is_empty(), "a device without a node");
        assert!(look(Some(7), true, &[0]).is_empty(), "a node that the kernel does not know");
        let far = look(Some(0), true, &[1, 2, 3]).remove(0);
        assert!(
            far.starts_with("port lan is on NUMA node 0, its workers on CPU 2, 3 are not"),
            "{far}"
        );
        assert!(far.contains("100 ns") && far.ends_with("expected CPUs of 0-1"), "{far}");
        let down = look(Some(1), false, &[2]);
        assert!(down.len() == 1 && down[0].starts_with("port lan: its link is down"), "{down:?}");
        fs::remove_dir_all(&root).unwrap();
    }
}
