//! What control tells the program that supervises it.

use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn control_tells_its_supervisor_when_it_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let config = dir.path().join("control.toml");
    let text = format!(
        "[control]\napi_listen = \"127.0.0.1:0\"\nstate_file = \"{at}/state.json\"\n\
         dataplane_socket = \"{at}/dp.sock\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let path = dir.path().join("notify.sock");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut control = Command::new(env!("CARGO_BIN_EXE_sluice-control"))
        .arg("--config")
        .arg(&config)
        .env("NOTIFY_SOCKET", &path)
        .env("RUST_LOG", "off")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = [0; 256];
    let mut hear = || {
        let length = supervisor.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    let status = Command::new("kill").args(["-TERM", &control.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(hear(), "STOPPING=1");
    assert!(control.wait().unwrap().success());
}
