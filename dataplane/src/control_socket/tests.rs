//! With real sockets, against peers that behave and peers that do not.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use std::{fs, thread};

use sluice_api::message::{MAX_FRAME, encode, read_frame, write_frame};

use super::*;

/// A directory of its own for each test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluice-control-socket-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("dataplane.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn connect(socket: &ControlSocket) -> UnixStream {
    let stream = UnixStream::connect(socket.path()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Poll until a number of requests are answered, each with its own words.
fn answer(socket: &ControlSocket, mut count: usize) {
    let end = Instant::now() + Duration::from_secs(5);
    while count > 0 {
        assert!(Instant::now() < end, "{count} requests did not arrive");
        count -= socket.poll(|request| Response::Error { message: format!("{request:?}") });
        thread::sleep(Duration::from_millis(1));
    }
}

fn error_of(stream: &mut UnixStream) -> String {
    match read_frame::<Response>(stream).unwrap() {
        Response::Error { message } => message,
        other => panic!("{other:?}"),
    }
}

/// Whether the other side closes without a further word, within the stream's read timeout.
fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        // What the kernel says when we wrote something that was never read, or were never accepted.
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Connect until there is a place, and get an answer.
fn insist(socket: &ControlSocket) {
    let end = Instant::now() + Duration::from_secs(5);
    let wanted = Response::Announced { addresses: vec![] };
    loop {
        let mut peer = connect(socket);
        let asking = thread::spawn(move || {
            // A peer that is refused may be closed before it has written.
            let _ = write_frame(&mut peer, &Request::Stats);
            read_frame::<Response>(&mut peer).ok()
        });
        while !asking.is_finished() {
            socket.poll(|_| wanted.clone());
            thread::sleep(Duration::from_millis(1));
        }
        let response = asking.join().unwrap();
        if response.as_ref() == Some(&wanted) {
            return;
        }
        assert!(Instant::now() < end, "there is no place: {response:?}");
    }
}

#[test]
fn requests_are_answered_in_order_on_several_connections() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    assert_eq!(socket.poll(|_| unreachable!()), 0);
    let mut first = connect(&socket);
    let mut second = connect(&socket);
    write_frame(&mut first, &Request::Status).unwrap();
    write_frame(&mut second, &Request::Stats).unwrap();
    answer(&socket, 2);
    assert_eq!(error_of(&mut first), "Status");
    assert_eq!(error_of(&mut second), "Stats");
    // Two requests at once on one connection wait for each other.
    write_frame(&mut first, &Request::Neighbours).unwrap();
    write_frame(&mut first, &Request::Events { since: 7 }).unwrap();
    answer(&socket, 2);
    assert_eq!(error_of(&mut first), "Neighbours");
    assert_eq!(error_of(&mut first), "Events { since: 7 }");
}

#[test]
fn an_answer_may_come_later() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let mut slow = connect(&socket);
    write_frame(&mut slow, &Request::GetSnapshot).unwrap();
    let pending = loop {
        match socket.next() {
            Some(pending) => break pending,
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    let (request, reply) = pending.into_parts();
    assert_eq!(request, Request::GetSnapshot);
    let mut quick = connect(&socket);
    write_frame(&mut quick, &Request::Status).unwrap();
    answer(&socket, 1);
    assert_eq!(error_of(&mut quick), "Status");
    reply.send(Response::Snapshot { snapshot: None });
    assert_eq!(read_frame::<Response>(&mut slow).unwrap(), Response::Snapshot { snapshot: None });
}

#[test]
fn garbage_gets_an_error_and_is_closed() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let version = br#"{"version":99,"message":{"request":"status"}}"#;
    let cases: [(&[u8], &str); 4] = [
        (&[0xff; 64], "frame of 4294967295 bytes"),
        (&[0, 0, 0, 3, b'x', b'y', b'z'], "unreadable message"),
        (&[0, 0, 0, 2, b'{', b'}'], "unreadable message"),
        (&[&[0, 0, 0, version.len() as u8][..], version].concat(), "protocol version 99"),
    ];
    for (bytes, expected) in cases {
        let mut stream = connect(&socket);
        stream.write_all(bytes).unwrap();
        let message = error_of(&mut stream);
        assert!(message.contains(expected), "{message}");
        assert!(is_closed(&mut stream));
    }
    assert_eq!(socket.poll(|_| unreachable!()), 0, "none of it reached the main thread");
    let mut good = connect(&socket);
    write_frame(&mut good, &Request::Status).unwrap();
    answer(&socket, 1);
    assert_eq!(error_of(&mut good), "Status");
}

#[test]
fn a_peer_that_leaves_in_the_middle_harms_nobody() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let frame = encode(&Request::Status).unwrap();
    for length in 0..frame.len() {
        // Refused when those before it have not been seen leaving yet: that is fine as well.
        let _ = connect(&socket).write_all(&frame[..length]);
    }
    insist(&socket);
    // One leaves before its answer.
    connect(&socket).write_all(&frame).unwrap();
    answer(&socket, 1);
    insist(&socket);
}

#[test]
fn a_ninth_connection_is_refused_while_all_others_are_asking() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let mut peers: Vec<UnixStream> = (0..MAX_CONNECTIONS).map(|_| connect(&socket)).collect();
    for peer in &mut peers {
        write_frame(peer, &Request::Status).unwrap();
    }
    // All of them have arrived, and wait.
    let mut waiting = Vec::new();
    while waiting.len() < MAX_CONNECTIONS {
        waiting.extend(socket.next());
    }
    let message = error_of(&mut connect(&socket));
    assert!(message.contains("8 connections are open and busy"), "{message}");
    drop(waiting);
    peers.pop();
    insist(&socket);
}

/// Eight connections that say nothing locked control out for as long as they liked.
#[test]
fn who_has_asked_nothing_for_longest_gives_way() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let mut silent: Vec<UnixStream> = (0..MAX_CONNECTIONS)
        .map(|_| {
            thread::sleep(Duration::from_millis(5));
            connect(&socket)
        })
        .collect();
    // The first of them asks something: the second has been silent for longest then.
    write_frame(&mut silent[0], &Request::Status).unwrap();
    answer(&socket, 1);
    read_frame::<Response>(&mut silent[0]).unwrap();
    let mut control = connect(&socket);
    write_frame(&mut control, &Request::Stats).unwrap();
    answer(&socket, 1);
    assert_eq!(error_of(&mut control), "Stats");
    let message = error_of(&mut silent[1]);
    assert!(message.contains("has asked nothing for longest"), "{message}");
    for peer in [0, 2, 7] {
        write_frame(&mut silent[peer], &Request::Neighbours).unwrap();
        answer(&socket, 1);
        assert_eq!(error_of(&mut silent[peer]), "Neighbours", "{peer} is still there");
    }
}

/// A crowd that says nothing does not put out who speaks, though that is silent between two requests.
#[test]
fn who_has_never_asked_gives_way_first() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let mut control = connect(&socket);
    let mut ask = || {
        write_frame(&mut control, &Request::Status).unwrap();
        answer(&socket, 1);
        assert_eq!(error_of(&mut control), "Status");
    };
    ask();
    let silent: Vec<UnixStream> = (0..5 * MAX_CONNECTIONS).map(|_| connect(&socket)).collect();
    thread::sleep(Duration::from_millis(100));
    ask();
    drop(silent);
}

/// As after a SIGKILL: the kernel takes its time to free the memory of a process that still listens.
#[test]
fn a_holder_who_goes_within_a_second_is_waited_for() {
    let directory = Directory::new();
    let holder = UnixListener::bind(directory.socket()).unwrap();
    let goes = thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        drop(holder);
    });
    let began = std::time::Instant::now();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    goes.join().unwrap();
    write_frame(&mut connect(&socket), &Request::Status).unwrap();
    answer(&socket, 1);
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody_and_is_closed() {
    let directory = Directory::new();
    let limit = Duration::from_millis(500);
    let socket = ControlSocket::bind_with(&directory.socket(), limit).unwrap();
    let mut lazy = connect(&socket);
    write_frame(&mut lazy, &Request::Status).unwrap();
    // More than the kernel keeps for a reader.
    let long = Response::Error { message: "x".repeat(2 << 20) };
    while socket.poll(|_| long.clone()) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let mut other = connect(&socket);
    write_frame(&mut other, &Request::Stats).unwrap();
    answer(&socket, 1);
    assert_eq!(error_of(&mut other), "Stats");
    thread::sleep(limit * 6);
    let mut rest = Vec::new();
    let got = lazy.read_to_end(&mut rest);
    assert!(got.is_ok() && rest.len() < 2 << 20, "closed: {} bytes and {got:?}", rest.len());
}

#[test]
fn a_request_that_does_not_end_is_given_up() {
    let directory = Directory::new();
    let limit = Duration::from_millis(300);
    let socket = ControlSocket::bind_with(&directory.socket(), limit).unwrap();
    let mut idle = connect(&socket);
    for begun in [&[0u8, 0][..], &[0, 0, 0, 9, b'{']] {
        let mut slow = connect(&socket);
        slow.write_all(begun).unwrap();
        assert!(is_closed(&mut slow), "without a word");
    }
    // Silence between requests is no fault.
    write_frame(&mut idle, &Request::Status).unwrap();
    answer(&socket, 1);
    assert_eq!(error_of(&mut idle), "Status");
}

#[test]
fn a_long_request_arrives_whole() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let addresses: Vec<_> = (0..400_000).map(|n| std::net::Ipv4Addr::from_bits(n).into()).collect();
    let request = Request::Announce { addresses: addresses.clone() };
    assert!(encode(&request).unwrap().len() > 1 << 20 && MAX_FRAME > 8 << 20);
    let mut peer = connect(&socket);
    let sender = thread::spawn(move || {
        write_frame(&mut peer, &request).unwrap();
        read_frame::<Response>(&mut peer).unwrap()
    });
    let end = Instant::now() + Duration::from_secs(20);
    while 0
        == socket.poll(|request| match request {
            Request::Announce { addresses } => Response::Announced { addresses },
            other => panic!("{other:?}"),
        })
    {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(sender.join().unwrap(), Response::Announced { addresses });
}

#[test]
fn a_stale_file_is_replaced_and_a_missing_directory_made() {
    let directory = Directory::new();
    let path = directory.0.join("run/sluice/dataplane.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o660);
    assert_eq!(mode(path.parent().unwrap()) & !0o750, 0, "less if the umask says so");
    drop(socket);
    assert!(!path.exists(), "removed at the end");

    // std leaves the file behind, as a process that is killed does.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = ControlSocket::bind(&path).unwrap();
    write_frame(&mut connect(&socket), &Request::Status).unwrap();
    answer(&socket, 1);
}

#[test]
fn a_socket_in_use_is_an_error_that_names_its_holder() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let error = ControlSocket::bind(&directory.socket()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "control.socket is {}: in use by process {}: expected a path on which no other data \
             plane listens",
            directory.socket().display(),
            std::process::id()
        )
    );
    assert!(socket.path().exists(), "the holder keeps its file");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let directory = Directory::new();
    let path = directory.socket();
    fs::write(&path, "precious").unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(error.to_string().contains("a file that is no socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    let below = path.join("dataplane.sock");
    let error = ControlSocket::bind(&below).unwrap_err();
    assert!(matches!(&error, SocketError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("dataplane.sock, which cannot be made"), "{error}");

    fs::remove_file(&path).unwrap();
    let socket = ControlSocket::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists(), "another process has the name now");
    drop(other);
}

#[test]
fn it_ends_while_peers_are_connected() {
    let directory = Directory::new();
    let socket = ControlSocket::bind(&directory.socket()).unwrap();
    let mut idle = connect(&socket);
    let mut waiting = connect(&socket);
    write_frame(&mut waiting, &Request::Status).unwrap();
    let began = Instant::now();
    drop(socket);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(is_closed(&mut idle));
    assert!(read_frame::<Response>(&mut waiting).is_err());
}
