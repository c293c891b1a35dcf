//! What operators get wrong, against the real programs: each time a message that names the field,
//! the value and what would be accepted, an exit code, and nothing left behind.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A file that is right for the data plane: two taps, no hugepages.
const DATAPLANE: &str = r#"
[runtime]
main_cpu = 0
worker_cpus = [1]
hugepages = false
memory_mb = 256
file_prefix = "sluice-errors"
eal_args = ["--no-pci"]
[control]
socket = "DIR/dataplane.sock"
[limits]
connections = 2048
[[port]]
name = "wan"
device = "net_tap0,iface=sl-err0"
addresses = ["10.91.0.1/24"]
"#;

/// A file that is right for control.
const CONTROL: &str = r#"
[control]
api_listen = "127.0.0.1:0"
state_file = "DIR/state.json"
dataplane_socket = "DIR/dataplane.sock"
[[pool]]
name = "lan"
addresses = ["10.20.0.200"]
[[service]]
name = "web"
vip = "10.10.0.100"
port = 80
protocol = "tcp"
mode = "full-nat"
pool = "lan"
[[service.backend]]
address = "10.20.0.11"
port = 80
weight = 100
"#;

/// Exit status of a program that cannot start.
const CANNOT_START: i32 = 1;
/// Exit status of a program whose file is wrong: systemd does not start it again.
const WRONG_FILE: i32 = 78;

/// Write a file with `from` replaced by `to`, run the program on it, expect it to refuse with `code`.
fn refuse(program: &Path, file: &str, from: &str, to: &str, code: i32) -> (String, TempDir) {
    let dir = TempDir::new().unwrap();
    assert!(file.contains(from), "{from}");
    let text = file.replacen(from, to, 1).replace("DIR", dir.path().to_str().unwrap());
    let path = dir.path().join("sluice.toml");
    fs::write(&path, text).unwrap();
    let output = run(program, &["--config", path.to_str().unwrap()]);
    (refusal(&output, code), dir)
}

/// Run a program that is expected to end by itself, within 30 s.
fn run(program: &Path, args: &[&str]) -> Output {
    run_command(Command::new(program).args(args))
}

fn run_command(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: run scripts/test"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} runs on: {:?}", child.wait_with_output().unwrap());
        }
        sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// What a program said when it refused: it must have ended with `code`, without READY and without a
/// panic.
fn refusal(output: &Output, code: i32) -> String {
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    assert!(!stdout.contains("READY"), "{stdout}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr.into_owned()
}

#[track_caller]
fn expect(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
}

#[test]
#[ignore = "needs the release build; scripts/test runs it"]
fn the_data_plane_refuses_a_wrong_file() {
    let program = common::binaries().dataplane;
    let cases = [
        ("memory_mb", "memory_bm", &["runtime.memory_bm", "unknown key", "memory_mb"][..]),
        ("256", "\"256\"", &["runtime.memory_mb", "\"256\"", "expected"]),
        ("[1]", "[4095]", &["runtime.worker_cpus", "4095", "expected"]),
        ("[1]", "[1, 1]", &["runtime.worker_cpus", "1 twice", "each CPU once"]),
        ("10.91.0.1/24", "10.91.0.1", &["port[wan].addresses", "10.91.0.1", "expected"]),
        ("2048", "1", &["limits.connections", "1", "1024"]),
        (
            "[limits]",
            "[[route]]\ndestination = \"0.0.0.0/0\"\nvia = \"10.92.0.1\"\n[limits]",
            &["route", "via", "10.92.0.1", "expected"],
        ),
        ("[runtime]", "[runtime", &["TOML"]),
    ];
    for (from, to, words) in cases {
        let (said, dir) = refuse(&program, DATAPLANE, from, to, WRONG_FILE);
        expect(&said, words);
        expect(&said, &["sluice.toml:"]);
        assert!(!dir.path().join("dataplane.sock").exists());
    }
    let said = refusal(&run(&program, &["--config", "/nonexistent/dataplane.toml"]), WRONG_FILE);
    expect(&said, &["/nonexistent/dataplane.toml", "No such file"]);
    assert_eq!(run(&program, &[]).status.code(), Some(2), "no arguments: usage");
}

/// What a start would refuse, a check finds, in the same words.
#[test]
#[ignore = "needs the release build; scripts/test runs it"]
fn devices_that_are_not_there_are_found_by_a_check_and_by_a_start() {
    let program = common::binaries().dataplane;
    let devices = [
        ("eth1", "a PCI address, as \"0000:03:00.0\", or a device string", WRONG_FILE),
        ("net_afxdp0,iface=lo", "that begins with a driver of DPDK", WRONG_FILE),
        ("net_af_xdp0", "the interface of the kernel that net_af_xdp is to use", WRONG_FILE),
        (
            "lo",
            "lo is an interface of the kernel, which DPDK uses as \"net_af_xdp0,iface=lo",
            WRONG_FILE,
        ),
        // It may be there later: systemd tries again.
        ("net_af_xdp0,iface=no-such0", "no-such0 is none", CANNOT_START),
    ];
    for (device, expected, code) in devices {
        let (started, dir) = refuse(&program, DATAPLANE, "net_tap0,iface=sl-err0", device, code);
        let field = format!("port[wan].device is {device:?}: expected ");
        expect(&started, &[&field, expected, "sluice.toml:15:10: "]);
        let path = dir.path().join("sluice.toml");
        let checked = run(&program, &["--config", path.to_str().unwrap(), "--check"]);
        assert_eq!(refusal(&checked, code), started);
        assert!(!dir.path().join("dataplane.sock").exists());
    }
}

#[test]
#[ignore = "needs root and the release build; scripts/test runs it"]
fn the_data_plane_refuses_what_the_machine_lacks() {
    let program = common::binaries().dataplane;
    let (said, dir) = refuse(
        &program,
        DATAPLANE,
        "net_tap0,iface=sl-err0",
        "net_af_xdp0,iface=nosuchdevice",
        CANNOT_START,
    );
    expect(&said, &["port[wan].device", "net_af_xdp0,iface=nosuchdevice", "nosuchdevice is none"]);
    assert!(!dir.path().join("dataplane.sock").exists(), "it left its socket behind");

    let (said, _dir) =
        refuse(&program, DATAPLANE, "net_tap0,iface=sl-err0", "0000:ff:1f.7", CANNOT_START);
    expect(&said, &["wan", "0000:ff:1f.7"]);

    // A capture device has one queue.
    let one_queue = DATAPLANE.replace("net_tap0,iface=sl-err0", "net_pcap0,iface=lo");
    let (said, _dir) = refuse(&program, &one_queue, "[1]", "[0, 1]", CANNOT_START);
    expect(&said, &["port wan (net_pcap0,iface=lo): queues = 2: expected 1 to 1", "worker_cpus"]);

    // A directory that cannot be made: its name is that of a file.
    let (said, _dir) = refuse(
        &program,
        DATAPLANE,
        "DIR/dataplane.sock",
        "DIR/sluice.toml/dataplane.sock",
        CANNOT_START,
    );
    expect(&said, &["control.socket", "sluice.toml", "expected a directory"]);
}

#[test]
#[ignore = "needs root and the release build; scripts/test runs it"]
fn the_data_plane_refuses_to_start_without_the_hugepages_it_was_promised() {
    let dir = TempDir::new().unwrap();
    let text = DATAPLANE
        .replace("hugepages = false", "hugepages = true")
        .replace("DIR", dir.path().to_str().unwrap());
    let path = dir.path().join("sluice.toml");
    fs::write(&path, text).unwrap();
    // Whatever this machine has: in a mount namespace of its own it has none mounted.
    let script = "while umount -a -t hugetlbfs 2>/dev/null && grep -q hugetlbfs /proc/mounts; do :; \
                  done; exec \"$0\" --config \"$1\"";
    let program = common::binaries().dataplane;
    let output = run_command(
        Command::new("unshare").args(["-m", "sh", "-c", script]).arg(program).arg(&path),
    );
    expect(&refusal(&output, CANNOT_START), &["hugepages"]);
}

#[test]
#[ignore = "needs root and the release build; scripts/test runs it"]
fn a_socket_in_use_is_refused_and_left_alone_and_a_dead_one_is_replaced() {
    let program = common::binaries().dataplane;
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("dataplane.sock");
    let path = dir.path().join("sluice.toml");
    fs::write(&path, DATAPLANE.replace("DIR", dir.path().to_str().unwrap())).unwrap();
    let args = ["--config", path.to_str().unwrap()];

    let listener = UnixListener::bind(&socket).unwrap();
    let said = refusal(&run(&program, &args), CANNOT_START);
    expect(&said, &["control.socket", socket.to_str().unwrap(), "in use"]);
    assert!(socket.exists(), "the other's socket was removed");
    drop(listener);

    // The file stays behind when its owner is killed: then it is free.
    assert!(socket.exists());
    let mut child = Command::new(&program)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() && Instant::now() < deadline {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(500));
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("READY"), "{output:?}");
    assert!(!socket.exists(), "it left its socket behind");
}

#[test]
#[ignore = "needs the release build; scripts/test runs it"]
fn control_refuses_a_wrong_file() {
    let program = common::binaries().control;
    let twice = "[[service.backend]]\naddress = \"10.20.0.11\"\nport = 80\n[[service.backend]]";
    let cases = [
        ("api_listen", "api_lisen", &["control.api_lisen", "expected", "api_listen"][..]),
        ("weight = 100", "weight = 65536", &["weight", "65536", "0 to 65535"]),
        ("weight = 100", "wieght = 100", &["wieght", "expected"]),
        ("weight = 100", "max_conns = 0", &["max_conns is 0", "1 to 4294967295"]),
        ("weight = 100", "max_conns = -1", &["max_conns is -1", "1 to 4294967295"]),
        ("weight = 100", "max_conns = \"many\"", &["max_conns is \"many\"", "1 to 4294967295"]),
        ("pool = \"lan\"", "pool = \"lan\"\nmax_conns = 0", &["service[web].max_conns is 0"]),
        ("pool = \"lan\"", "", &["service[web].pool", "absent", "pool"]),
        ("pool = \"lan\"", "pool = \"wan\"", &["service[web].pool", "\"wan\"", "lan"]),
        ("10.20.0.200", "10.10.0.100", &["pool[lan].addresses", "10.10.0.100", "VIP"]),
        ("[[service.backend]]", twice, &["10.20.0.11:80", "listed twice", "once"]),
        ("port = 80", "port = \"http\"", &["service[web].port", "\"http\"", "1 to 65535"]),
        ("[control]", "[control", &["TOML"]),
    ];
    for (from, to, words) in cases {
        let (said, dir) = refuse(&program, CONTROL, from, to, WRONG_FILE);
        expect(&said, &["sluice.toml:"]);
        expect(&said, words);
        assert!(!dir.path().join("state.db").exists(), "something was stored: {from}");
    }
    let said = refusal(&run(&program, &["--config", "/nonexistent/control.toml"]), WRONG_FILE);
    expect(&said, &["/nonexistent/control.toml", "No such file"]);
    assert_eq!(run(&program, &[]).status.code(), Some(2), "no arguments: usage");
}

#[test]
#[ignore = "needs the release build; scripts/test runs it"]
fn control_refuses_a_port_in_use_and_a_state_it_cannot_read() {
    let program = common::binaries().control;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let (said, dir) = refuse(&program, CONTROL, "127.0.0.1:0", &taken, CANNOT_START);
    expect(&said, &["control.api_listen", &taken, "in use", "free"]);
    assert!(!dir.path().join("state.db").exists(), "something was stored");

    // A directory that cannot be made: its name is that of a file.
    let (said, _dir) =
        refuse(&program, CONTROL, "DIR/state.json", "DIR/sluice.toml/state.json", CANNOT_START);
    expect(&said, &["sluice.toml/state.db"]);

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sluice.toml");
    fs::write(&path, CONTROL.replace("DIR", dir.path().to_str().unwrap())).unwrap();
    let mut state = fs::File::create(dir.path().join("state.json")).unwrap();
    state.write_all(b"{\"torn\": ").unwrap();
    let said = refusal(&run(&program, &["--config", path.to_str().unwrap()]), CANNOT_START);
    expect(&said, &["state.json"]);
    let kept = fs::read(dir.path().join("state.json")).unwrap();
    assert_eq!(kept, b"{\"torn\": ", "a state that cannot be read was overwritten");
}

#[test]
#[ignore = "needs the release build; scripts/test runs it"]
fn the_cli_tells_an_unreachable_api_from_a_wrong_command_line() {
    let program = common::binaries().cli;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(&program, &["--api", &format!("http://{free}"), "service", "list"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    expect(&String::from_utf8_lossy(&output.stderr), &[&free.to_string()]);
    let output = run(&program, &["service", "lits"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
#[ignore = "needs the release build; scripts/test runs it"]
fn the_doctor_judges_files_by_the_programs_rules() {
    let program = common::binaries().cli;
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (dataplane, control) = (write("d.toml", DATAPLANE), write("c.toml", CONTROL));
    let look = |dataplane: &str| {
        let args = ["doctor", "--json", "--dataplane-file", dataplane, "--control-file", &control];
        let output = run(&program, &args);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let file = json["findings"].as_array().unwrap().iter();
        let file = file.clone().find(|f| f["check"] == "dataplane-file").unwrap().clone();
        assert_eq!(output.status.code(), Some(i32::from(json["ok"] == false)), "{json}");
        file
    };
    assert_eq!(look(&dataplane)["state"], "ok");
    let wrong = write("w.toml", &DATAPLANE.replace("memory_mb", "memory_bm"));
    let file = look(&wrong);
    assert_eq!(file["state"], "wrong");
    expect(file["message"].as_str().unwrap(), &["runtime.memory_bm is an unknown key"]);
}
