//! The `sluice` command against a real control, which speaks to a data plane played here.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_api::message::{Request, Response, read_frame, write_frame};
use sluice_api::stats::{
    BackendStats, DataplaneStatus, MainThreadStats, NeighbourStatus, PortStats, PortStatus,
    QueueStats, ServiceStats, Stats, TableUsage, Traffic, WorkerStats, WorkerStatus,
};
use sluice_api::{DropReason, Snapshot};
use sluice_control::config::Config;
use sluice_control::server;
use tempfile::TempDir;
use tokio::sync::mpsc as orders;

/// A data plane that takes every snapshot and counts more packets each time it is asked.
#[derive(Default)]
struct Dataplane {
    snapshot: Option<Snapshot>,
    asked: u64,
}

impl Dataplane {
    fn serve(socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let dataplane = Arc::new(Mutex::new(Dataplane::default()));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, dataplane) = (stream.unwrap(), dataplane.clone());
                std::thread::spawn(move || Self::converse(stream, &dataplane));
            }
        });
    }

    fn converse(mut stream: UnixStream, dataplane: &Mutex<Dataplane>) {
        while let Ok(request) = read_frame::<Request>(&mut stream) {
            let response = dataplane.lock().unwrap().answer(request);
            if write_frame(&mut stream, &response).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, request: Request) -> Response {
        let generation = self.snapshot.as_ref().map_or(0, |s| s.generation);
        match request {
            Request::Status => Response::Status(DataplaneStatus {
                version: "0.1.0".into(),
                boot_id: 42,
                uptime_ms: 7_500_000,
                pid: 1,
                generation,
                workers_generation: generation,
                ports: vec![PortStatus {
                    name: "p0".into(),
                    steering: "rss".into(),
                    steering_reason: "verified".into(),
                    queues: 1,
                    ..PortStatus::default()
                }],
                workers: vec![WorkerStatus { cpu: 1, generation, ..WorkerStatus::default() }],
                ..DataplaneStatus::default()
            }),
            Request::Apply { snapshot } => {
                let generation = snapshot.generation;
                self.snapshot = Some(snapshot);
                Response::Applied { generation }
            }
            Request::Amend { change } => match self.snapshot.clone() {
                Some(held) if held.generation == change.base => {
                    let snapshot = change.apply(held).expect("a change of what is in force");
                    self.answer(Request::Apply { snapshot })
                }
                _ => Response::OtherBase { generation },
            },
            Request::GetSnapshot => Response::Snapshot { snapshot: self.snapshot.clone() },
            Request::Announce { addresses } => Response::Announced { addresses },
            Request::Stats => Response::Stats(self.stats(generation)),
            Request::Neighbours => Response::Neighbours {
                neighbours: vec![NeighbourStatus {
                    address: [10, 0, 0, 1].into(),
                    mac: Some("02:00:00:00:00:01".into()),
                    port: "p0".into(),
                    state: "reachable".into(),
                    age_ms: 12_000,
                }],
            },
            Request::UnreachableBackends => Response::UnreachableBackends { backends: vec![] },
            Request::Events { .. } => Response::Events { events: vec![] },
        }
    }

    fn stats(&mut self, generation: u64) -> Stats {
        self.asked += 1;
        let traffic = Traffic {
            packets_in: 1_000_000 * self.asked,
            bytes_in: 64_000_000 * self.asked,
            packets_out: 7,
            bytes_out: (1 << 53) + 1,
            conns_created: 5_000,
            conns: 1_234,
        };
        let services = self.snapshot.iter().flat_map(|s| &s.services).map(|s| ServiceStats {
            name: s.name.clone(),
            vip: s.vip,
            port: s.port,
            protocol: s.protocol,
            traffic,
            max_conns: s.max_conns,
            backends: s
                .backends
                .iter()
                .map(|b| BackendStats {
                    address: b.address,
                    port: b.port,
                    traffic,
                    max_conns: b.max_conns,
                })
                .collect(),
        });
        Stats {
            boot_id: 42,
            uptime_ms: 7_500_000,
            generation,
            main_thread: MainThreadStats { late_rounds: 3, ..MainThreadStats::default() },
            workers: vec![WorkerStats { rx_packets: 9_999, ..WorkerStats::default() }],
            ports: vec![PortStats {
                name: "p0".into(),
                rx_missed: 77,
                mis_steered: 5,
                queues: vec![QueueStats { queue: 0, rx_packets: 1_234, mis_steered: 5 }],
                ..PortStats::default()
            }],
            services: services.collect(),
            pools: Vec::new(),
            tables: vec![TableUsage {
                table: "conns".into(),
                used: 250,
                capacity: 1_000,
                bytes: 64_000,
            }],
            drops: [(DropReason::NoConn.name().to_owned(), 12_345)].into(),
            leaving: Vec::new(),
        }
    }
}

/// Control, on a thread of its own.
struct Control {
    api: SocketAddr,
    /// What it stands still for until the other end is dropped.
    pauses: orders::UnboundedSender<mpsc::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    fn start(config: Config) -> Control {
        let (ready, is_ready) = mpsc::channel();
        let (pauses, mut all) = orders::unbounded_channel::<mpsc::Receiver<()>>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let server = server::start(&config).await.unwrap();
                ready.send(server.api).unwrap();
                // All of it is in this thread: nobody is answered meanwhile.
                while let Some(pause) = all.recv().await {
                    let _ = pause.recv();
                }
            });
        });
        Control { api: is_ready.recv().unwrap(), pauses, thread: Some(thread) }
    }

    /// It hangs until what is returned is dropped.
    fn hang(&self) -> mpsc::Sender<()> {
        let (go_on, pause) = mpsc::channel();
        self.pauses.send(pause).unwrap();
        go_on
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.pauses = orders::unbounded_channel().0;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "control panicked");
    }
}

struct Lab {
    control: Control,
    api: String,
    dir: TempDir,
}

impl Lab {
    fn start() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        Dataplane::serve(&dir.path().join("dp.sock"));
        Self::in_dir(dir)
    }

    fn without_dataplane() -> Lab {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    fn in_dir(dir: TempDir) -> Lab {
        let at = dir.path().display();
        let text = format!(
            "[control]\napi_listen = \"127.0.0.1:0\"\nstate_file = \"{at}/state.json\"\n\
             dataplane_socket = \"{at}/dp.sock\"\n"
        );
        let control = Control::start(Config::parse(&text, "control.toml".as_ref()).unwrap());
        Lab { api: format!("http://{}", control.api), control, dir }
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.env("SLUICE_API", &self.api).args(args.split_whitespace());
        command
    }

    /// Runs the command; its exit code and what it printed.
    fn run(&self, args: &str) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// Runs a command that must succeed; what it printed.
    fn ok(&self, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "sluice {args}: {}", ran.stdout);
        ran.stdout
    }

    /// The same with `--json`.
    fn json(&self, args: &str) -> Value {
        let text = self.ok(&format!("{args} --json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("sluice {args}: {e}: {text}"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A pool `local` and a service `web` with two backends.
    fn with_web(self) -> Lab {
        self.with_web_ending(0)
    }

    /// The same by commands with this exit code.
    fn with_web_ending(self, code: i32) -> Lab {
        for args in [
            "pool create local --address 10.0.0.250,10.0.0.251",
            "service create web --vip 198.51.100.1 --port 80 --pool local --scheduler wrr \
             --backend 10.0.0.1:80=3 --backend 10.0.0.2:8080",
        ] {
            let ran = self.run(args);
            assert_eq!(ran.code, code, "sluice {args}: {}", ran.stderr);
        }
        self
    }
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(command: &mut Command) -> Ran {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Ran {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The cells of a table's line that begins with this cell.
fn row<'t>(table: &'t str, first: &str) -> Vec<&'t str> {
    let cells = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = cells.filter(|cells| cells.first() == Some(&first));
    found.next().unwrap_or_else(|| panic!("no line for {first} in:\n{table}"))
}

/// What was changed is told, compared, undone, and applied anywhere.
#[test]
fn history_and_the_way_back() {
    let lab = Lab::start().with_web();
    let changed =
        Ran::of(lab.command("backend weight web 10.0.0.1:80 7").args(["--reason", "a new disk"]));
    assert_eq!((changed.code, changed.stderr.as_str()), (0, ""));
    let history = lab.ok("history");
    assert!(history.starts_with("REVISION"), "{history}");
    let told = history.lines().find(|line| line.trim_start().starts_with("4 ")).unwrap();
    assert!(
        told.contains("sluice/")
            && told.contains("has weight 7 now")
            && told.contains("a new disk"),
        "{told}"
    );
    assert_eq!(lab.json("history --limit 1")["revisions"][0]["number"], 4);
    assert_eq!(lab.ok("diff 3"), "service web changed\n  backends[10.0.0.1:80].weight: 3 -> 7\n");
    assert_eq!(lab.ok("diff 4 3"), "service web changed\n  backends[10.0.0.1:80].weight: 7 -> 3\n");
    assert_eq!(lab.ok("diff 4"), "nothing differs\n");

    // What is exported is applied unchanged, in both forms.
    for (name, format) in [("all.toml", "toml"), ("all.json", "json")] {
        let file = lab.file(name, &lab.ok(&format!("export --format {format}")));
        let applied = lab.ok(&format!("apply {}", file.display()));
        assert_eq!(applied, "pool local unchanged\nservice web unchanged\n");
    }
    assert!(lab.ok("export --revision 2").contains("[[pool]]"));

    let would = lab.ok("rollback 3 --dry-run");
    assert_eq!(would, "service web would be changed\n  backends[10.0.0.1:80].weight: 7 -> 3\n");
    lab.ok("rollback 3");
    assert_eq!(lab.json("service show web")["backends"][0]["weight"], 3);
    assert_eq!(lab.ok("rollback 3"), "nothing differs from revision 3\n");
    let ran = lab.run("rollback 99");
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.contains("there is no revision 99"), "{}", ran.stderr);
}

/// A host is in several services: it drains in all of them or in none, and nobody is left alone unasked.
#[test]
fn a_host_is_drained_in_all_its_services_at_once() {
    let lab = Lab::start().with_web();
    lab.ok("service create api --vip 198.51.100.2 --port 80 --pool local --backend 10.0.0.1:81");
    let show = lab.ok("host show 10.0.0.1");
    assert_eq!(row(&show, "web"), ["web", "80", "3", "up", "unchecked", "yes", "1,234"]);
    assert_eq!(row(&show, "api"), ["api", "81", "100", "up", "unchecked", "yes", "1,234"]);

    let revisions = || lab.json("history")["revisions"].as_array().unwrap().len();
    let states = || {
        let state = |service: &str| {
            let shown = lab.json(&format!("service show {service}"));
            shown["backends"][0]["state"].as_str().unwrap().to_owned()
        };
        (state("web"), state("api"))
    };
    let both = |state: &str| (state.to_owned(), state.to_owned());
    let before = revisions();
    let refused = lab.run("host drain 10.0.0.1");
    assert_eq!(refused.code, 5);
    let why = "no other backend than those at 10.0.0.1 takes new conns of service api: nothing was changed";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    assert_eq!((states(), revisions()), (both("up"), before));

    let drained = lab.run("host drain 10.0.0.1 --force --deadline 1s --reason rack-7");
    assert_eq!(drained.code, 8, "{}", drained.stderr);
    let says = "host 10.0.0.1 drains in 2 services: web, api: it keeps its conns";
    assert!(drained.stdout.starts_with(says), "{}", drained.stdout);
    assert_eq!(
        drained.stderr,
        "host 10.0.0.1: 2,468 conns left in 2 services\n\
         error: host 10.0.0.1 still has 2468 conns at the deadline; it goes on draining\n"
    );
    assert_eq!((states(), revisions()), (both("drain"), before + 1), "one change");
    assert_eq!(lab.json("history")["revisions"][0]["reason"], "rack-7");

    // One that is down stays so.
    lab.ok("backend down api 10.0.0.1:81");
    assert_eq!(lab.ok("host up 10.0.0.1"), "host 10.0.0.1 takes new conns in service web\n");
    assert_eq!(lab.ok("host up 10.0.0.1"), "host 10.0.0.1 has no backend that drains\n");
    assert_eq!(states(), ("up".to_owned(), "down".to_owned()));
    for command in ["show", "up", "drain"] {
        let nowhere = lab.run(&format!("host {command} 10.0.0.77"));
        assert_eq!(nowhere.code, 4);
        assert!(nowhere.stderr.contains("no service has a backend at 10.0.0.77"));
    }
    assert_eq!(lab.run("host drain 10.0.0.1 --deadline 10").code, 2);
}

#[test]
fn a_services_life() {
    let lab = Lab::start();
    assert!(lab.ok("service list").contains("no services yet"));
    let lab = lab.with_web();

    let list = lab.ok("service list");
    assert!(list.starts_with("NAME"), "{list}");
    assert_eq!(
        row(&list, "web"),
        ["web", "198.51.100.1:80/tcp", "full-nat", "wrr", "local", "-", "2", "2", "serving", "-"]
    );
    let web = lab.json("service show web");
    assert_eq!(web["backends"][0]["weight"], 3);
    assert_eq!(web["backends"][1]["weight"], 100);
    assert_eq!(lab.json("service list")["services"][0], web);

    lab.ok(
        "service set web --scheduler maglev --hash-on source --timeout tcp_established_ms=60000",
    );
    lab.ok("service set web --check-kind http --check-path /alive --check-status 200,204 --check-close fin");
    let web = lab.json("service show web");
    assert_eq!((&web["scheduler"], &web["hash_on"]), (&json!("maglev"), &json!("source")));
    assert_eq!(web["timeouts"]["tcp_established_ms"], 60_000);
    assert_eq!(web["timeouts"]["tcp_fin_wait_ms"], 60_000, "others stay");
    assert_eq!(web["health_check"]["path"], "/alive");
    assert_eq!(web["health_check"]["close"], "fin");
    let show = lab.ok("service show web");
    for part in
        ["maglev on source, slots by backends", "GET /alive, expects 200, 204", "established 60000"]
    {
        assert!(show.contains(part), "{part} is not in:\n{show}");
    }
    lab.ok("service set web --no-check");
    assert_eq!(lab.json("service show web")["health_check"], Value::Null);

    assert_eq!(lab.ok("service delete web"), "service web deleted\n");
    assert_eq!(lab.json("service list"), json!({"services": []}));
    let gone = lab.json("pool delete local");
    assert_eq!(gone["change"]["outcome"], "applied");
    assert_eq!(gone.as_object().unwrap().len(), 1, "nothing else is left to show");
}

#[test]
fn backends_and_their_states() {
    let lab = Lab::start().with_web();
    lab.ok("backend add web 10.0.0.3:80 --weight 7 --zone a --state down");
    let list = lab.ok("backend list web");
    assert_eq!(row(&list, "10.0.0.1:80")[..6], ["10.0.0.1:80", "3", "-", "-", "up", "unchecked"]);
    assert_eq!(row(&list, "10.0.0.3:80")[..6], ["10.0.0.3:80", "7", "-", "a", "down", "unchecked"]);
    let text = list.lines().collect::<Vec<_>>();
    assert_eq!(text[1].find(" 3 "), text[3].find(" 7 "), "weights are aligned:\n{list}");

    lab.ok("backend up web 10.0.0.3:80");
    assert!(lab.ok("backend drain web 10.0.0.2:8080").contains("keeps its conns"));
    assert_eq!(lab.json("backend weight web 10.0.0.1:80 0")["weight"], 0);
    let backends = lab.json("backend list web");
    let states: Vec<_> = (0..3).map(|n| backends["backends"][n]["state"].clone()).collect();
    assert_eq!(states, ["up", "drain", "up"]);
    lab.ok("backend down web 10.0.0.2:8080");
    lab.ok("backend remove web 10.0.0.3:80");
    assert_eq!(lab.json("backend list web")["backends"].as_array().unwrap().len(), 2);

    // Checks begin at once, and their result shows.
    lab.ok("service set web --check-interval-ms 100 --check-timeout-ms 50");
    let health = lab.json("backend list web")["backends"][0]["observed"]["health"].clone();
    assert_ne!(health, json!("unchecked"));
    assert_eq!(
        lab.json("backend list web")["backends"][1]["observed"]["health"],
        "unchecked",
        "it is down"
    );
}

#[test]
fn limits_of_conns() {
    let lab = Lab::start().with_web();
    lab.ok("service set web --max-conns 1000");
    lab.ok("backend add web 10.0.0.3:80 --max-conns 4294967295");
    assert!(lab.ok("backend max-conns web 10.0.0.1:80 5").contains("while it has 5"));
    let show = lab.ok("service show web");
    assert!(show.contains("max conns     1000\n"), "{show}");
    assert_eq!(row(&show, "10.0.0.1:80")[2], "5");
    assert_eq!(row(&lab.ok("backend list web"), "10.0.0.3:80")[2], "4294967295");

    // Beside what is used of them.
    let stats = lab.ok("stats web");
    assert!(stats.lines().next().unwrap().contains("MAX CONNS"), "{stats}");
    assert_eq!(row(&stats, "web")[1..3], ["1,234", "1,000"]);
    assert_eq!(row(&stats, "10.0.0.1:80")[1..3], ["1,234", "5"]);
    assert_eq!(row(&stats, "10.0.0.2:8080")[1..3], ["1,234", "-"]);

    lab.ok("backend max-conns web 10.0.0.1:80 none");
    lab.ok("backend max-conns web 10.0.0.3:80 none");
    lab.ok("service set web --no-max-conns");
    assert_eq!(lab.json("service show web")["max_conns"], Value::Null);
    assert!(!lab.ok("stats web").contains("MAX CONNS"));

    for wrong in ["0", "-1", "many", "4294967296"] {
        for command in [
            format!("service set web --max-conns={wrong}"),
            format!("backend add web 10.0.0.4:80 --max-conns={wrong}"),
            format!("backend max-conns web 10.0.0.1:80 -- {wrong}"),
        ] {
            let refused = lab.run(&command);
            assert_eq!(refused.code, 2, "{command}");
            let expected = format!("max_conns {wrong:?}: expected 1 to 4294967295");
            assert!(refused.stderr.contains(&expected), "{command}: {}", refused.stderr);
        }
    }
}

#[test]
fn pools_and_their_addresses() {
    let lab = Lab::start().with_web();
    assert_eq!(lab.ok("pool add-address local 10.0.0.252"), "pool local has 3 addresses\n");
    let list = lab.ok("pool list");
    assert_eq!(row(&list, "local"), ["local", "3", "10.0.0.250,", "10.0.0.251,", "10.0.0.252"]);
    assert_eq!(
        lab.ok("pool drain local 10.0.0.251"),
        "address 10.0.0.251 of pool local: drains: it keeps its conns and takes no new ones\n"
    );
    assert_eq!(lab.json("pool show local")["drained"], json!(["10.0.0.251"]));
    assert!(lab.ok("pool show local").contains("\n  10.0.0.251  drains\n"));
    assert_eq!(lab.run("pool drain local 10.0.0.99").code, 4);
    lab.ok("pool drain local 10.0.0.250");
    let all = lab.run("pool drain local 10.0.0.252");
    assert_eq!(all.code, 1);
    assert!(all.stderr.contains("pools[local].drained is all 3 addresses: expected fewer"));
    assert!(lab.ok("pool up local 10.0.0.250").contains("takes new conns"));
    // An address that is removed takes its state with it.
    lab.ok("pool remove-address local 10.0.0.250,10.0.0.251");
    assert_eq!(lab.json("pool show local")["drained"], Value::Null);
    assert_eq!(lab.json("pool show local")["addresses"], json!(["10.0.0.252"]));
    assert!(lab.ok("pool show local").contains("1 address\n  10.0.0.252"));

    assert_eq!(lab.run("pool remove-address local 10.9.9.9").code, 2);
    let last = lab.run("pool remove-address local 10.0.0.252");
    assert_eq!(last.code, 1);
    assert!(last.stderr.contains("pools[local].addresses is 0 addresses: expected 1 to"));
    assert_eq!(lab.json("pool show local")["addresses"], json!(["10.0.0.252"]));

    // Many at once: none is lost, as each writes only over what it has read.
    let adding: Vec<Child> = (1..=4)
        .map(|n| lab.command(&format!("pool add-address local 10.0.1.{n} --json")))
        .map(|mut command| command.stdout(Stdio::null()).spawn().unwrap())
        .collect();
    let codes: Vec<_> = adding.into_iter().map(|mut c| c.wait().unwrap().code()).collect();
    assert_eq!(codes, [Some(0); 4]);
    assert_eq!(lab.json("pool show local")["addresses"].as_array().unwrap().len(), 5);
}

/// A change that packets are not treated by yet has an exit code of its own.
#[test]
fn what_is_stored_but_not_applied_is_told() {
    let lab = Lab::without_dataplane().with_web_ending(7);
    let ran = lab.run("backend weight web 10.0.0.1:80 202");
    assert_eq!(ran.code, 7);
    assert_eq!(
        ran.stdout,
        "backend 10.0.0.1:80 of service web: weight is 202 (stored, not applied)\n"
    );
    assert!(
        ran.stderr.starts_with("error: stored, but not applied: dataplane unreachable: "),
        "{}",
        ran.stderr
    );
    // A host that new conns still come to is not waited for, and not told to be empty.
    let ran = lab.run("host drain 10.0.0.1 --force --deadline 5s");
    assert_eq!((ran.code, ran.stderr.contains("conns left")), (7, false), "{}", ran.stderr);
    let ran = lab.run("backend remove web 10.0.0.2:8080 --json");
    assert_eq!(ran.code, 7);
    let change: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(change["change"]["outcome"], "stored");
    let problem: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(problem["title"], "stored, not applied");

    let began = Instant::now();
    assert_eq!(lab.run("--wait 0.6 backend drain web 10.0.0.1:80").code, 7);
    assert!(began.elapsed() >= Duration::from_millis(600));
    for wrong in ["61", "-1", "x", "nan"] {
        let ran = lab.run(&format!("backend up web 10.0.0.1:80 --wait={wrong}"));
        assert_eq!(ran.code, 2, "{wrong}");
        assert!(ran.stderr.contains("expected 0 to 60 seconds"), "{}", ran.stderr);
    }

    // The data plane comes while the command waits.
    let waiting = lab.command("backend up web 10.0.0.1:80 --wait 20").spawn().unwrap();
    Dataplane::serve(&lab.dir.path().join("dp.sock"));
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(lab.run("backend weight web 10.0.0.1:80 5").code, 0);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let lab = Lab::without_dataplane().with_web_ending(7);
    let fails = |args: &str, code: i32, says: &str| {
        let ran = lab.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "sluice {args}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "sluice {args}: {}", ran.stderr);
    };
    // 1: refused, with field, value and what would be accepted.
    fails(
        "service set web --port 0 --maglev-slots 252",
        1,
        "Invalid request\n  services[web].port is 0: expected 1 to 65535\n  \
         services[web].maglev_slots is 252: expected a prime from 251 to 655373\n",
    );
    fails("service set web --port 0", 1, "services[web].port is 0: expected 1 to 65535");
    fails("service create x --vip 198.51.100.2 --port 80", 1, "services[x].pool is absent");
    fails("events --limit 0", 1, "expected 1 to");
    // 2: the command line.
    fails("service set web", 2, "nothing to set");
    fails("backend weight web 10.0.0.1:80 65536", 2, "65536");
    fails("backend weight web 10.0.0.1 5", 2, "ADDRESS:PORT");
    fails("backend add web [fe80::1%1]:80", 2, "expected ADDRESS:PORT without a zone");
    for args in ["service set web --vip", "pool drain local", "pool create p --address", "vip show"]
    {
        fails(&format!("{args} foo"), 2, "invalid IPv4 address syntax");
    }
    fails("service create web --file /none --port 80", 2, "cannot be used with");
    fails("service create web --file /none", 2, "/none: cannot be read");
    fails("frobnicate", 2, "unrecognized");
    fails("--api ftp://x status", 2, "expected a URL as http://127.0.0.1:9600");
    // 3: nobody there. Port 1 (tcpmux) is nobody's.
    fails("--api http://127.0.0.1:1 status", 3, "Is sluice-control running?");
    // 4: no such thing, and which there are.
    fails("service show wbe", 4, "expected one of web");
    fails("backend drain web 10.0.0.9:80", 4, "expected one of 10.0.0.1:80, 10.0.0.2:8080");
    fails("pool delete a/../b", 4, "a/../b");
    // 5: conflicts.
    fails("pool create local --address 10.0.0.9", 5, "exists already");
    fails("pool delete local", 5, "used by web");
    fails("backend add web 10.0.0.1:80", 5, "exists already");
    // 6: the data plane is not there.
    fails("stats", 6, "data plane");
    fails("neighbours", 6, "data plane");
    fails("port show", 6, "data plane");
    // All of it left everything as it was.
    assert_eq!(lab.json("service show web")["port"], 80);

    // For programs: one line of problem+json.
    let problem = |args: &str| -> Value {
        let ran = lab.run(args);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        serde_json::from_str(&ran.stderr).unwrap()
    };
    let refused = problem("--json service set web --port 0");
    assert_eq!((&refused["status"], &refused["problems"][0]["value"]), (&json!(422), &json!("0")));
    assert_eq!(problem("--json --api http://127.0.0.1:1 status")["title"], "API unreachable");

    let help = lab.ok("--help");
    for code in ["0  done", "3  the API cannot be reached", "6  server error"] {
        assert!(help.contains(code), "{help}");
    }
}

#[test]
fn statistics_in_all_views() {
    let lab = Lab::start().with_web();
    let until = Instant::now() + Duration::from_secs(10);
    while lab.json("stats")["services"].as_array().is_none_or(Vec::is_empty) {
        assert!(Instant::now() < until, "the snapshot reaches the data plane");
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = lab.ok("stats");
    assert!(text.contains("up for 2h 5m"), "{text}");
    let of_web = row(&text, "web");
    assert_eq!(of_web[1..3], ["1,234", "5,000"], "{text}");
    assert!(of_web[3].ends_with(",000,000"), "{text}");
    assert_eq!(row(&text, "10.0.0.2:8080")[1..3], ["1,234", "5,000"]);
    assert!(text.contains("9,007,199,254,740,993"), "not what a double makes of it: {text}");
    assert_eq!(lab.json("stats web")["bytes_out"], "9007199254740993");
    assert!(!lab.ok("stats web").contains("up for"));
    assert_eq!(lab.json("stats web")["name"], "web");
    assert_eq!(lab.run("stats nobody").code, 4);

    let drops = lab.ok("stats --drops");
    assert_eq!(row(&drops, "no_conn")[1], "12,345");
    assert!(drops.contains(DropReason::NoConn.meaning()), "{drops}");
    assert_eq!(row(&lab.ok("stats --workers"), "0")[1], "9,999");
    assert_eq!(row(&lab.ok("stats --ports"), "p0")[5], "77");
    assert_eq!(row(&lab.ok("stats --tables"), "conns")[1..5], ["250", "1,000", "25.0", "%"]);

    // The data plane played here counts a million packets per reading.
    let watch = lab.ok("stats --watch 1 --count 2");
    let rates: Vec<Vec<&str>> = watch
        .lines()
        .filter(|line| line.starts_with("web"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rates.len(), 2, "{watch}");
    assert_eq!(rates[0][2..], ["-", "-", "-", "-", "-"], "{watch}");
    assert_eq!(rates[1][2], "0", "{watch}");
    let rate: u64 = rates[1][3].replace(',', "").parse().unwrap();
    assert!(rate > 100_000, "{watch}");
    let lines = lab.ok("stats --watch 1 --count 2 --json");
    let boot_id = |line| serde_json::from_str::<Value>(line).unwrap()["boot_id"].clone();
    assert!(lines.lines().all(|line| boot_id(line) == 42), "{lines}");
    assert_eq!(lines.lines().count(), 2);
}

#[test]
fn events_status_and_neighbours() {
    let lab = Lab::start().with_web();
    let events = lab.json("events");
    let last = events["last_seq"].as_u64().unwrap();
    let table = lab.ok("events");
    assert!(table.trim_start().starts_with("SEQ"), "{table}");
    assert!(table.lines().any(|line| line.contains("-created") && line.contains("web")), "{table}");

    let mut following = lab
        .command(&format!("events --follow --json --since {last}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = following.stdout.take().unwrap();
    lab.ok("backend drain web 10.0.0.1:80");
    let event = BufReader::new(stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|event| event["backend"] == "10.0.0.1:80");
    following.kill().unwrap();
    following.wait().unwrap();
    let event = event.expect("the drained backend's event");
    assert!(event["seq"].as_u64().unwrap() > last, "{event}");
    assert!(lab.ok(&format!("events --since {last}")).contains("web 10.0.0.1:80"));

    let status = lab.json("status");
    assert_eq!(status["dataplane"]["boot_id"], 42);
    let text = lab.ok("status");
    assert!(text.contains("uptime") && text.contains("2h 5m"), "{text}");
    assert!(text.contains("control") && text.contains("dataplane"), "{text}");
    let table = lab.ok("neighbours");
    assert_eq!(
        row(&table, "10.0.0.1"),
        ["10.0.0.1", "02:00:00:00:00:01", "p0", "reachable", "12s", "ago"]
    );
}

#[test]
fn ports_show_how_their_packets_are_steered() {
    let lab = Lab::start().with_web();
    let until = Instant::now() + Duration::from_secs(10);
    while lab.run("port show").code != 0 {
        assert!(Instant::now() < until, "control reaches the data plane");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(row(&lab.ok("port show"), "p0")[4..7], ["1", "rss", "5"]);
    let one = lab.ok("port show p0");
    assert!(one.contains("rss: verified"), "{one}");
    assert_eq!(one.lines().last().unwrap().split_whitespace().collect::<Vec<_>>()[1], "1,234");
    assert_eq!(lab.json("port show p0")["counters"]["queues"][0]["mis_steered"], 5);
    assert_eq!(lab.json("port show")["ports"][0]["name"], "p0");
    let nobody = lab.run("port show p9");
    assert!(nobody.code == 4 && nobody.stderr.contains("expected one of p0"), "{}", nobody.stderr);
    let rates = lab.ok("port show p0 --rates 1");
    assert!(rates.contains("PACKETS/s"), "{rates}");
}

#[test]
fn vips_and_nodes_show_how_they_fare() {
    let lab = Lab::start().with_web();
    let until = Instant::now() + Duration::from_secs(10);
    while lab.run("port show").code != 0 {
        assert!(Instant::now() < until, "control reaches the data plane");
        std::thread::sleep(Duration::from_millis(50));
    }
    let address = lab.json("service show web")["vip"].as_str().unwrap().to_owned();
    let listed = lab.ok("vip list");
    let cells = row(&listed, &address);
    assert_eq!((cells[1], cells[3]), ("serving", "web"), "{listed}");
    let one = lab.json(&format!("vip show {address}"));
    assert_eq!((&one["services"], &one["observed"]["state"]), (&json!(["web"]), &json!("serving")));
    assert!(lab.ok(&format!("vip show {address}")).contains("services   web"));
    let nobody = lab.run("vip show 203.0.113.77");
    assert!(nobody.code == 4 && nobody.stderr.contains(&address), "{}", nobody.stderr);

    let name = lab.json("node list")["nodes"][0]["name"].as_str().unwrap().to_owned();
    assert!(lab.ok("node list").contains(&name));
    let node = lab.ok(&format!("node show {name}"));
    assert!(node.contains("p0 down") && node.contains("WORKER"), "{node}");
    let nobody = lab.run("node show nobody");
    assert!(nobody.code == 4 && nobody.stderr.contains(&name), "{}", nobody.stderr);
}

const FILE: &str = r#"
[[pool]]
name = "local"
addresses = ["10.0.0.250"]

[[service]]
name = "web"
vip = "198.51.100.1"
port = 80
protocol = "tcp"
mode = "full-nat"
pool = "local"
[service.health_check]
kind = "http"
[[service.backend]]
address = "10.0.0.1"
port = 80
"#;

/// In a flag, in a path, in a file: refused in the same words, with what it stands for.
#[test]
fn ipv6_is_refused_wherever_an_address_can_stand() {
    let lab = Lab::start();
    let refused = |args: &str, is: &str| {
        let ran = lab.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "sluice {args}: {}", ran.stderr);
        let says = format!("{is}: expected an IPv4 address, as IPv6 is not supported yet");
        assert!(ran.stderr.contains(&says), "sluice {args}: {}", ran.stderr);
    };
    assert_eq!(lab.run(&format!("apply {}", lab.file("a.toml", FILE).display())).code, 0);
    refused("service set web --vip fd00::1", "services[web].vip is fd00::1");
    let new = "service create x --vip 198.51.100.9 --port 80 --mode dr --backend [fd00::1]:80";
    refused(new, "services[x].backends[[fd00::1]:80].address is fd00::1");
    refused("pool create p --address fd00::1", "pools[p].addresses is fd00::1");
    refused("pool add-address local fd00::1", "pools[local].addresses is fd00::1");
    refused("pool drain local fd00::1", "address is fd00::1");
    refused("pool up local fd00::1", "address is fd00::1");
    refused("vip show fd00::1", "address is fd00::1");
    refused("backend add web [fd00::1]:80", "backends[[fd00::1]:80].address is fd00::1");
    refused("backend weight web [fd00::1]:80 5", "backend is [fd00::1]:80");
    for command in ["remove", "drain", "up", "down"] {
        refused(&format!("backend {command} web [fd00::1]:80"), "backend is [fd00::1]:80");
    }
    for (name, of, is) in [
        ("vip.toml", "198.51.100.1", "service[web].vip is fd00::1"),
        ("pool.toml", "10.0.0.250", "pool[local].addresses is fd00::1"),
        ("backend.toml", "10.0.0.1", "service[web].backend[[fd00::1]:80].address is fd00::1"),
    ] {
        let text = FILE.replace(&format!("\"{of}\""), "\"fd00::1\"");
        refused(&format!("apply {}", lab.file(name, &text).display()), is);
    }
}

#[test]
fn apply_makes_it_so_and_says_what_changed() {
    let lab = Lab::start();
    let apply = |name: &str, text: &str| {
        let file = lab.file(name, text);
        lab.run(&format!("apply {}", file.display()))
    };
    let first = apply("a.toml", FILE);
    assert_eq!((first.code, first.stderr.as_str()), (0, ""));
    assert_eq!(first.stdout, "pool local created\nservice web created\n");
    assert_eq!(apply("a.toml", FILE).stdout, "pool local unchanged\nservice web unchanged\n");

    let heavier = FILE.replace("address = \"10.0.0.1\"", "address = \"10.0.0.1\"\nweight = 5");
    assert_eq!(
        apply("a.toml", &heavier).stdout,
        "pool local unchanged\nservice web changed\n  backends[10.0.0.1:80].weight: 100 -> 5\n"
    );
    assert_eq!(lab.json("backend list web")["backends"][0]["weight"], 5);

    // Wrong files: all mistakes at once, by themselves (2) or with what is there (1); nothing done.
    let wrong = heavier.replace("= 5", "= 65536").replace("kind =", "kid =") + "colour = 1\n";
    let refused = apply("b.toml", &wrong.replace("\"local\"\naddr", "\"new\"\naddr"));
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    for part in [
        "service[web].backend[10.0.0.1:80].weight is 65536: expected 0 to 65535",
        "service[web].health_check.kid is \"http\": expected a known field",
        ".colour is 1: expected a known field",
    ] {
        assert!(refused.stderr.contains(part), "{part} is not in:\n{}", refused.stderr);
    }
    let overlap = FILE.replace("\"local\"", "\"new\"").replace("10.0.0.250", "198.51.100.1");
    let refused = apply("b.toml", &overlap);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("pool[new].addresses is 198.51.100.1"), "{}", refused.stderr);
    assert_eq!(lab.json("pool list")["pools"].as_array().unwrap().len(), 1);
    let syntax = apply("c.toml", "[[pool]\n");
    assert_eq!(syntax.code, 2);
    assert!(syntax.stderr.contains("line 1"), "{}", syntax.stderr);

    // An address moves to a pool that comes first in the file: right only as a whole.
    let moved = json!({"pools": [
        {"name": "first", "addresses": ["10.0.0.250"]}, {"name": "local", "addresses": ["10.0.0.9"]}
    ]});
    let mut child =
        lab.command("apply - --json").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(moved.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let changes: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(changes["changes"].as_array().unwrap().len(), 2, "{changes}");
    assert_eq!(lab.json("pool show first")["addresses"], json!(["10.0.0.250"]));

    // A file of one service.
    let dr = lab.file(
        "dr.json",
        r#"{"vip": "198.51.100.2", "port": 53, "protocol": "udp", "mode": "dr",
            "backends": [{"address": "10.0.0.3", "port": 53}]}"#,
    );
    lab.ok(&format!("service create dns --file {}", dr.display()));
    assert_eq!(lab.json("service show dns")["protocol"], "udp");
    let other = lab
        .run(&format!("service create x --file {}", lab.file("x.toml", "name = \"y\"").display()));
    assert_eq!(other.code, 2, "{}", other.stderr);
}

/// One change: what is right only as a whole, and what operators have set meanwhile.
#[test]
fn apply_is_one_change() {
    let lab = Lab::start().with_web();
    lab.ok("service create api --vip 198.51.100.2 --port 80 --pool local --backend 10.0.0.9:80");
    lab.ok("backend drain web 10.0.0.1:80");
    lab.ok("backend weight web 10.0.0.2:8080 7");
    let backend = |address: &str, port: u16, more: &str| {
        format!("[[service.backend]]\naddress = \"{address}\"\nport = {port}\n{more}")
    };
    let service = |name: &str, vip: u8, backends: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"198.51.100.{vip}\"\nport = 80\n\
             protocol = \"tcp\"\nmode = \"full-nat\"\npool = \"local\"\n{backends}"
        )
    };
    let api = service("api", 1, &backend("10.0.0.9", 80, ""));
    let web = |first: &str, more: &str| {
        let backends = backend("10.0.0.1", 80, first) + &backend("10.0.0.2", 8080, "") + more;
        service("web", 2, &format!("scheduler = \"wrr\"\n{backends}"))
    };
    let version = || lab.json("status")["control"]["state_version"].as_u64().unwrap();
    let before = version();
    let file = lab.file("swap.toml", &(web("", &backend("10.0.0.3", 80, "")) + &api));
    let web_changes =
        "  backends[10.0.0.3:80]: added\n  vip: \"198.51.100.1\" -> \"198.51.100.2\"\n";
    let api_changes = "  vip: \"198.51.100.2\" -> \"198.51.100.1\"\n";
    assert_eq!(
        lab.ok(&format!("apply {} --dry-run", file.display())),
        format!(
            "service web would be changed\n{web_changes}service api would be changed\n{api_changes}"
        )
    );
    assert_eq!(version(), before, "a dry run changes nothing");
    assert_eq!(
        lab.ok(&format!("apply {}", file.display())),
        format!("service web changed\n{web_changes}service api changed\n{api_changes}")
    );
    assert_eq!(version(), before + 1);
    let shown = lab.json("service show web");
    let of = |n: usize, name: &str| shown["backends"][n][name].clone();
    assert_eq!((of(0, "state"), of(1, "weight")), (json!("drain"), json!(7)), "they stay");
    assert_eq!(shown["vip"], "198.51.100.2");
    // A file that names the very field changes it.
    let file = lab.file("up.toml", &(web("state = \"up\"\n", "") + &api));
    let said = lab.ok(&format!("apply {}", file.display()));
    assert!(said.contains("backends[10.0.0.1:80].state: \"drain\" -> \"up\""), "{said}");
    assert!(said.contains("backends[10.0.0.3:80]: removed"), "{said}");
}

fn thousand() -> String {
    let service = |n: usize| {
        json!({
            "name": format!("s{n}"), "vip": format!("198.51.{}.{}", n / 250, n % 250 + 1), "port": 80,
            "protocol": "tcp", "mode": "dr", "scheduler": "wrr",
            "backends": [{"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 80}]
        })
    };
    json!({"services": (0..1_000).map(service).collect::<Vec<_>>()}).to_string()
}

#[test]
fn a_thousand_services_are_applied_at_once() {
    let lab = Lab::start();
    let file = lab.file("many.json", &thousand());
    let began = Instant::now();
    let said = lab.ok(&format!("apply {}", file.display()));
    let took = began.elapsed();
    eprintln!("1,000 services applied in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(said.lines().count(), 1_000);
    assert!(said.starts_with("service s0 created\n"), "{}", &said[..40]);
}

/// Ctrl-C at any moment leaves all or nothing.
#[test]
fn an_interrupted_apply_leaves_all_or_nothing() {
    let lab = Lab::start();
    let file = lab.file("many.json", &thousand());
    for round in 0..6_u64 {
        let mut applying = lab.command(&format!("apply {}", file.display()));
        let mut child = applying.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 12));
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
        // The request may be under way still.
        std::thread::sleep(Duration::from_millis(400));
        let services = lab.json("service list")["services"].as_array().unwrap().len();
        assert!(matches!(services, 0 | 1_000), "{services} services in round {round}");
    }
}

/// What `--json` prints is a file for `apply` and `create --file`.
#[test]
fn what_is_printed_can_be_fed_back() {
    let lab = Lab::start().with_web();
    lab.ok("service set web --check-kind http --max-conns 77");
    lab.ok("backend drain web 10.0.0.1:80");
    let printed = |args: &str| lab.json(args).to_string();
    let web = printed("service show web");
    for (list, says) in [("pool list", "pool local"), ("service list", "service web")] {
        let file = lab.file("list.json", &printed(list));
        assert_eq!(lab.ok(&format!("apply {}", file.display())), format!("{says} unchanged\n"));
    }
    let pools = printed("pool list");
    lab.ok("service delete web");
    lab.ok("pool delete local");
    lab.ok(&format!("apply {}", lab.file("pools.json", &pools).display()));
    lab.ok(&format!("service create --file {}", lab.file("web.json", &web).display()));
    let again = lab.json("service show web");
    let (mut again, mut before) = (again, serde_json::from_str::<Value>(&web).unwrap());
    for service in [&mut again, &mut before] {
        service.as_object_mut().unwrap().remove("observed");
        for backend in service["backends"].as_array_mut().unwrap() {
            backend.as_object_mut().unwrap().remove("observed");
        }
    }
    assert_eq!(again, before);
    assert_eq!(printed("pool list"), pools);
}

/// What is printed may have nowhere to go: no abort, and the exit code tells.
#[test]
fn outputs_that_are_closed_or_full_abort_nothing() {
    let lab = Lab::start().with_web();
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let code = |args: &str, stdout: Stdio, stderr: Stdio| {
        let status = lab.command(args).stdout(stdout).stderr(stderr).status().unwrap();
        status.code().unwrap_or_else(|| panic!("{args}: {status}"))
    };
    for args in ["service list", "service list --json", "status", "stats --tables", "events"] {
        assert_eq!(code(args, full(), Stdio::null()), 6, "{args}: not printed");
        assert_eq!(code(args, full(), full()), 6, "{args}");
        assert_eq!(code(args, gone(), gone()), 0, "{args}: who reads has seen enough");
    }
    for (args, expected) in
        [("service show nobody", 4), ("frobnicate", 2), ("--json pool show x", 4)]
    {
        for stderr in [full(), gone()] {
            assert_eq!(code(args, Stdio::null(), stderr), expected, "{args}");
        }
    }
    for closed in [">&-", "2>&-", ">&- 2>&-"] {
        let line = format!("exec \"$0\" --api {} service list {closed}", lab.api);
        let mut shell = Command::new("sh");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_sluice")]).stdout(Stdio::null());
        assert_eq!(shell.status().unwrap().code(), Some(0), "{closed}");
    }
}

#[test]
fn names_that_are_nearly_right_are_named() {
    let lab = Lab::start().with_web();
    lab.ok("service create dns --vip 198.51.100.2 --port 53 --protocol udp --mode dr");
    for (args, code, says) in [
        ("service show wbe", 4, "did you mean web? expected one of web, dns"),
        ("stats dnss", 4, "did you mean dns?"),
        ("pool show locl", 4, "did you mean local?"),
        ("backend drain web 10.0.0.1:8", 4, "did you mean 10.0.0.1:80?"),
        ("service show something-else", 4, "expected one of web, dns"),
        ("servce list", 2, "'service'"),
        ("service lst", 2, "'list'"),
        ("service list --jsn", 2, "'--json'"),
    ] {
        let ran = lab.run(args);
        assert_eq!(ran.code, code, "{args}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{args}: {}", ran.stderr);
    }
    assert!(!lab.run("service show something-else").stderr.contains("did you mean"));
}

#[test]
fn a_control_that_hangs_is_given_up_in_five_seconds() {
    let lab = Lab::start().with_web();
    let hangs = lab.control.hang();
    for args in ["status", "backend drain web 10.0.0.1:80"] {
        let started = Instant::now();
        let ran = lab.run(args);
        assert_eq!(ran.code, 3, "{args}: {}", ran.stderr);
        assert!(ran.stderr.contains("no sign of life within 5 s"), "{args}: {}", ran.stderr);
        let took = started.elapsed();
        assert!((4..6).contains(&took.as_secs()), "{args}: {took:?}");
    }
    drop(hangs);
    lab.ok("service list");
}

#[test]
fn completions_need_no_api() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let ran = Ran::of(command.args(["completions", shell]));
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("neighbours"), "{shell}");
    }
}

#[test]
fn the_doctor_needs_no_control() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let socket = dir.path().join("dp.sock");
    let dataplane = file(
        "dataplane.toml",
        &format!("[runtime]\nhugepages = false\n[control]\nsocket = \"{}\"\n", socket.display()),
    );
    let control = file("control.toml", "[control]\napi_listen = \"nowhere\"\n");
    // Beside it a stand-in for control's program, which the end-to-end tests run.
    let stand_in = file("stand-in", "#!/bin/sh\necho \"$3: a wrong field\" >&2; exit 78\n");
    let sluice = dir.path().join("sluice");
    // Not written by this process, which starts others meanwhile: they would hold it open.
    for (from, to) in [(env!("CARGO_BIN_EXE_sluice"), "sluice"), (&stand_in, "sluice-control")] {
        let to = dir.path().join(to);
        let mut install = Command::new("install");
        assert!(install.args(["-m", "755", from]).arg(to).status().unwrap().success());
    }
    let look = |more: &str| {
        let mut command = Command::new(&sluice);
        command.env("SLUICE_API", "http://127.0.0.1:9").args(["doctor", "--dataplane-file"]);
        Ran::of(
            command
                .arg(&dataplane)
                .arg("--control-file")
                .arg(&control)
                .args(more.split_whitespace()),
        )
    };
    let found = look("");
    assert_eq!((found.code, found.stderr.as_str()), (1, ""), "{}", found.stdout);
    assert!(found.stdout.contains("WRONG        control-file"), "{}", found.stdout);
    assert!(found.stdout.contains("none runs at"), "{}", found.stdout);
    Dataplane::serve(&socket);
    let json: Value = serde_json::from_str(&look("--json").stdout).unwrap();
    assert_eq!(json["ok"], false);
    let findings = json["findings"].as_array().unwrap();
    let of = |check: &str| findings.iter().find(|f| f["check"] == check).unwrap();
    assert_eq!(
        (&of("dataplane")["state"], &of("hugepages")["state"]),
        (&json!("ok"), &json!("ok"))
    );
    assert_eq!(of("control-file")["state"], "wrong");
    assert!(of("control-file")["fix"].as_str().unwrap().starts_with("edit "));
}
