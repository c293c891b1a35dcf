//! A data plane that runs, asked over its own socket: no control is needed.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use sluice_api::message::{Request, Response, read_frame, write_frame};
use sluice_api::stats::{DataplaneStatus, PortStatus};

use super::finding::Finding;

/// Time that a data plane has to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the data plane behind a socket says about itself.
///
/// # Errors
/// There is no such socket, nobody listens, we may not, or the answer is not of this version.
pub fn ask(socket: &Path) -> io::Result<DataplaneStatus> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write_frame(&mut stream, &Request::Status).map_err(io::Error::other)?;
    match read_frame::<Response>(&mut stream).map_err(io::Error::other)? {
        Response::Status(status) => Ok(status),
        other => Err(io::Error::other(format!("an answer to another question: {other:?}"))),
    }
}

/// What follows from the answer.
pub fn findings(socket: &Path, answer: &io::Result<DataplaneStatus>) -> Vec<Finding> {
    const CHECK: &str = "dataplane";
    let shown = socket.display();
    let status = match answer {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let message =
                format!("{shown}: {error}: only root and the group sluice may ask the data plane");
            return vec![Finding::unknown(CHECK, message)];
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            let message = format!("none runs at {shown}, so what its ports can do cannot be told");
            return vec![Finding::unknown(CHECK, message)];
        }
        Err(error) => {
            return vec![Finding::wrong(
                CHECK,
                format!("{shown}: {error}"),
                "systemctl status sluice-dataplane   # and its log",
            )];
        }
    };
    let mut findings = vec![Finding::ok(
        CHECK,
        format!(
            "runs as process {} (version {}), {} worker(s)",
            status.pid,
            status.version,
            status.workers.len()
        ),
    )];
    findings.extend(status.ports.iter().map(|port| port_finding(port, status.workers.len())));
    findings
}

fn port_finding(port: &PortStatus, workers: usize) -> Finding {
    const CHECK: &str = "port";
    let PortStatus { name, driver, mac, queues, mtu, .. } = port;
    if !port.link_up {
        return Finding::wrong(
            CHECK,
            format!("port {name} ({driver}): its link is down"),
            "check the cable and the switch; for a VF: ip link set PF up, \
             ip link set PF vf N state auto",
        );
    }
    if mac == "00:00:00:00:00:00" {
        return Finding::wrong(
            CHECK,
            format!("port {name} ({driver}): it has no MAC address"),
            "ip link set PF vf N mac 02:…   # then restart the data plane",
        );
    }
    Finding::ok(
        CHECK,
        format!(
            "port {name} ({driver}): link up, {mac}, mtu {mtu}, {queues} queue(s) for {workers} \
             worker(s), steering {}",
            port.steering
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use sluice_api::stats::WorkerStatus;
    use std::os::unix::net::UnixListener;

    fn port(link_up: bool, mac: &str) -> PortStatus {
        PortStatus {
            name: "lan".into(),
            device: "0000:03:00.0".into(),
            driver: "net_iavf".into(),
            mac: mac.into(),
            addresses: vec![],
            queues: 2,
            max_queues: 4,
            mtu: 1500,
            max_mtu: 9_000,
            ip_checksum_offload: true,
            l4_checksum_offload: true,
            link_up,
            steering: "handover".into(),
            steering_reason: "it has no table".into(),
            rss_key_bytes: 0,
            rss_table_entries: 0,
            exception: None,
        }
    }

    fn status(ports: Vec<PortStatus>) -> DataplaneStatus {
        DataplaneStatus {
            version: "0.1.0".into(),
            boot_id: 1,
            uptime_ms: 1,
            pid: 77,
            generation: 0,
            workers_generation: 0,
            ports,
            workers: vec![WorkerStatus { cpu: 1, ..WorkerStatus::default() }],
            ..DataplaneStatus::default()
        }
    }

    #[test]
    fn a_data_plane_is_asked_over_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let none = ask(&socket);
        let found = findings(&socket, &none);
        assert_eq!((found.len(), found[0].state), (1, State::Unknown));
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = status(vec![port(true, "02:00:00:00:00:01")]);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(read_frame::<Request>(&mut stream).unwrap(), Request::Status);
            write_frame(&mut stream, &Response::Status(answer)).unwrap();
        });
        let found = findings(&socket, &ask(&socket));
        server.join().unwrap();
        assert_eq!(found[0].message, "runs as process 77 (version 0.1.0), 1 worker(s)");
        assert!(found[1].message.contains("2 queue(s) for 1 worker(s)"), "{found:?}");
        // The file is there, and nobody listens.
        assert_eq!(findings(&socket, &ask(&socket))[0].state, State::Unknown);
    }

    #[test]
    fn ports_without_link_or_mac_are_told() {
        let path = Path::new("/x");
        let look = |port| findings(path, &Ok(status(vec![port]))).remove(1);
        let down = look(port(false, "02:00:00:00:00:01"));
        assert_eq!(down.state, State::Wrong);
        assert_eq!(down.message, "port lan (net_iavf): its link is down");
        assert!(look(port(true, "00:00:00:00:00:00")).message.contains("no MAC address"));
    }

    #[test]
    fn who_may_not_ask_is_told_so() {
        let path = Path::new("/run/sluice/dataplane.sock");
        let denied = Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(findings(path, &denied)[0].message.contains("the group sluice"));
        let odd = Err(io::Error::other("version 9"));
        assert_eq!(findings(path, &odd)[0].state, State::Wrong);
    }
}
