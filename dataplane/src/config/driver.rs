//! What is known of drivers before their devices are opened: limits that some keep to themselves until
//! the process dies of it, or that hang on an argument which is easily forgotten. Of DPDK 22.11.

/// How many queues a driver gives a device.
struct Queues {
    /// The driver, as device strings begin.
    driver: &'static str,
    /// The argument that says how many, where there is one.
    argument: Option<&'static str>,
    /// How many without it, or at all where there is none.
    most: u16,
    /// Why so few, in words that follow `as`.
    why: &'static str,
}

const QUEUES: [Queues; 5] = [
    Queues {
        driver: "net_tap",
        argument: None,
        most: 4,
        // With 5 it writes past the end of that message, and the process is aborted.
        why: "it passes a descriptor for each receive and each transmit queue in one message of 8",
    },
    Queues { driver: "net_af_xdp", argument: Some("queue_count"), most: 1, why: DEFAULT },
    Queues { driver: "net_af_packet", argument: Some("qpairs"), most: 1, why: DEFAULT },
    Queues { driver: "net_virtio_user", argument: Some("queues"), most: 1, why: DEFAULT },
    Queues { driver: "net_vhost", argument: Some("queues"), most: 1, why: DEFAULT },
];

const DEFAULT: &str = "that is what it takes when its device string does not say";

/// What is known of a device's driver.
fn known(device: &str) -> Option<&'static Queues> {
    let name = device.split(',').next().unwrap_or_default();
    // A device's name is the driver's and whatever sets it apart: `net_tap0`, `net_tap_lan`.
    let sets_apart = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_lowercase());
    QUEUES.iter().find(|known| name.strip_prefix(known.driver).is_some_and(sets_apart))
}

/// How many queues a device string asks for, where it does.
fn said(device: &str, argument: Option<&str>) -> Option<u16> {
    let values = device.split(',').skip(1).filter_map(|word| word.split_once('='));
    values.filter(|(key, _)| Some(*key) == argument).find_map(|(_, value)| value.parse().ok())
}

/// How many queues a device can have, where that is known.
pub fn most_queues(device: &str) -> Option<u16> {
    let known = known(device)?;
    Some(said(device, known.argument).unwrap_or(known.most))
}

/// What would be accepted in place of a device that cannot have so many queues; none when nothing is
/// known that speaks against it.
pub(super) fn instead_of(device: &str, wanted: u16) -> Option<String> {
    let (Queues { driver, argument, why, .. }, most) = (known(device)?, most_queues(device)?);
    let why = said(device, *argument).map_or(*why, |_| "its device string says");
    let more = argument.map(|name| format!("; or {name}={wanted}")).unwrap_or_default();
    (wanted > most).then(|| {
        format!(
            "a device with {wanted} queues, one for each CPU in runtime.worker_cpus: {driver} has at \
             most {most} here, as {why}{more}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_has_four_queues_whatever_it_is_called() {
        for device in ["net_tap0", "net_tap1,iface=lan0", "net_tap_exception0,iface=sl-lan"] {
            assert_eq!(instead_of(device, 4), None, "{device}");
            let expected = instead_of(device, 5).unwrap();
            assert!(expected.contains("net_tap has at most 4 here, as it passes"), "{expected}");
            assert!(expected.starts_with("a device with 5 queues, one for each CPU"), "{expected}");
        }
    }

    #[test]
    fn where_an_argument_says_how_many_it_counts() {
        let xdp = |arguments: &str, wanted| {
            instead_of(&format!("net_af_xdp0,iface=eth0{arguments}"), wanted)
        };
        assert_eq!((xdp("", 1), xdp(",queue_count=4", 4)), (None, None));
        let expected = xdp("", 2).unwrap();
        assert!(expected.contains("at most 1 here") && expected.ends_with("; or queue_count=2"));
        let expected = xdp(",start_queue=1,queue_count=2", 3).unwrap();
        assert!(expected.contains("at most 2 here, as its device string says"), "{expected}");
        assert!(instead_of("net_vhost0,iface=/x.sock", 2).is_some());
    }

    #[test]
    fn of_others_nothing_is_known() {
        for device in ["0000:03:00.0", "net_memif0,role=client", "net_taproot0", ""] {
            assert_eq!((instead_of(device, 127), most_queues(device)), (None, None), "{device}");
        }
    }
}
