use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::diff;
use crate::model::{HasName, Named};
use serde_json::json;
use sluice_api::{Backend, Pool, Service};

fn backend(n: u64) -> Backend {
    serde_json::from_value(json!({"address": format!("10.0.0.{n}"), "port": 80})).unwrap()
}

fn service(name: &str, backends: &[u64]) -> Service {
    let backends: Vec<Backend> = backends.iter().map(|n| backend(*n)).collect();
    serde_json::from_value(json!({
        "name": name, "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
        "health_check": {}, "backends": backends,
    }))
    .unwrap()
}

fn state(version: u64) -> State {
    let pools = vec![Pool::new("p", vec![[10, 9, 0, version as u8].into()])];
    let services = vec![service("a", &[1, 2]), service("b", &[3])];
    State { version, services: services.into(), pools: pools.into() }
}

fn step(old: &Arc<State>, new: State) -> Step {
    let revision = Revision {
        number: new.version,
        at_ms: now(),
        actor: Actor::HealthCheck,
        kind: "test".to_owned(),
        what: format!("version {}", new.version),
        reason: new.version.is_multiple_of(2).then(|| "even".to_owned()),
    };
    Step { old: old.clone(), new: Arc::new(new), revision }
}

fn now() -> u64 {
    sluice_api::clock::now_ms()
}

const PLAIN: Beside = Beside { file: None, generation: 3, unconfirmed: false };

/// A database of states 1 to `last`.
fn written(path: &Path, last: u64) -> Store {
    let mut store = Store::open(path, Keep::default()).unwrap();
    let file = FileRecord::default();
    let mut old = Arc::default();
    for version in 1..=last {
        let step = step(&old, state(version));
        old = step.new.clone();
        let file = (version == 1).then_some(&file);
        store.write(&[step], &Beside { file, ..PLAIN }).unwrap();
    }
    store
}

fn content(version: u64) -> Content {
    Content { state: state(version), file: Arc::default(), generation: 3, unconfirmed: false }
}

fn loaded(path: &Path) -> Result<Loaded, StoreError> {
    super::read(path, &path.with_extension("json"))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_written_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/state.db");
    let mut store = Store::open(&path, Keep::default()).unwrap();
    let former = path.with_extension("json");
    assert_eq!(store.load(&former).unwrap(), Loaded::Nothing);
    drop(store);
    let store = written(&path, 3);
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(content(3)));
    assert!(matches!(Store::open(&path, Keep::default()), Err(StoreError::Locked { .. })));
    drop(store);
    assert_eq!(names(path.parent().unwrap()), ["state.db", "state.db.lock"]);
    let mode = fs::metadata(&path).unwrap().mode() & 0o777;
    assert_eq!(mode & 0o027, 0, "{mode:o}");

    // Goes on after a restart, and what stands beside the state changes by itself.
    let mut store = Store::open(&path, Keep::default()).unwrap();
    assert_eq!(store.load(&former).unwrap(), Loaded::Good(content(3)));
    let file = FileRecord { pools: state(9).pools, ..FileRecord::default() };
    store.write(&[], &Beside { file: Some(&file), generation: 8, unconfirmed: true }).unwrap();
    let Loaded::Good(found) = loaded(&path).unwrap() else { panic!("nothing good") };
    assert_eq!((found.file.as_ref(), found.generation, found.unconfirmed), (&file, 8, true));
    assert_eq!(found.state, state(3));
}

/// Any sequence of changes, one or several at a time: each state is found again, and what differs between any
/// two is what the states themselves tell.
#[test]
fn every_state_is_found_again_and_so_is_what_differs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let mut store = Store::open(&path, Keep::default()).unwrap();
    let seed = now();
    let mut last = seed | 1;
    let mut random = |below: u64| {
        last ^= last << 13;
        last ^= last >> 7;
        last ^= last << 17;
        last % below
    };
    let mut states = vec![Arc::new(State::default())];
    while states.len() < 250 {
        let mut steps = Vec::new();
        for _ in 0..=random(3) {
            let old = states.last().unwrap().clone();
            let mut next = State::clone(&old);
            next.version += 1;
            for _ in 0..=random(3) {
                change(&mut next, &mut random);
            }
            steps.push(step(&old, next));
            states.push(steps.last().unwrap().new.clone());
        }
        let file = FileRecord::default();
        store.write(&steps, &Beside { file: Some(&file), ..PLAIN }).unwrap();
        let Loaded::Good(found) = loaded(&path).unwrap() else { panic!("seed {seed}") };
        assert_eq!(found.state, **states.last().unwrap(), "seed {seed}");
    }
    let history = store.history();
    let sorted = |mut all: Vec<diff::Difference>| {
        all.iter_mut().for_each(|d| d.fields.sort_by(|a, b| a.field.cmp(&b.field)));
        all.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        all
    };
    for _ in 0..100 {
        let [one, other] = [(); 2].map(|()| 1 + random(states.len() as u64 - 1));
        assert_eq!(history.state(one).unwrap(), *states[one as usize], "seed {seed}");
        let told = history.diff(one, other).unwrap();
        let expected = diff::diff(&states[one as usize], &states[other as usize]);
        assert_eq!(sorted(told), sorted(expected), "seed {seed}: {one} to {other}");
    }
}

fn change(state: &mut State, random: &mut impl FnMut(u64) -> u64) {
    let name = format!("s{}", random(4));
    match random(9) {
        0 => state.services.remove(&name),
        1 => state.pools.put(Pool::new(name, vec![[10, 9, 0, random(9) as u8].into()])),
        2 => state.pools.remove(&name),
        3 => {
            // In another order, as a file may have it.
            let mut all = state.services.to_vec();
            let place = random(4) as usize % all.len().max(1);
            all.rotate_left(place);
            state.services = Named::from(all);
        }
        _ if state.services.get(&name).is_none() => {
            let backends: Vec<u64> = (1..=random(5)).collect();
            state.services.put(service(&name, &backends));
        }
        how => {
            let Some(service) = state.services.get_mut(&name) else { return };
            let count = service.backends.len();
            let place = random(count.max(1) as u64) as usize;
            match how {
                4 => service.max_conns = std::num::NonZeroU32::new(random(3) as u32),
                5 if count > 0 => service.backends[place].weight = random(9) as u16,
                6 if count > 0 => drop(service.backends.remove(place)),
                7 => service.backends.rotate_left(place),
                _ => {
                    let new = backend(10 + random(9));
                    if service.backends.iter().all(|b| b.id() != new.id()) {
                        service.backends.insert(place, new);
                    }
                }
            }
        }
    }
}

/// A weight writes one row and ends one, whatever stands around it.
#[test]
fn a_change_writes_what_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let mut store = written(&path, 1);
    let old = Arc::new(state(1));
    let mut next = State::clone(&old);
    next.version = 2;
    next.services.get_mut("a").unwrap().backends[1].weight = 7;
    store.write(&[step(&old, next)], &PLAIN).unwrap();
    let connection = schema::open_to_read(&path).unwrap();
    let rows = "SELECT group_concat(line, ', ') FROM (
                SELECT kind || ' ' || holder || ' ' || name || ' ' || since || ' ' || ifnull(until, '-')
                AS line FROM item WHERE since = 2 OR until = 2 ORDER BY since)";
    let rows: String = connection.query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, "backend a 10.0.0.2:80 1 2, backend a 10.0.0.2:80 2 -");
}

#[test]
fn history_is_bounded_by_number_and_by_age() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let keep = |revisions, age| Keep { revisions, age: Duration::from_millis(age) };
    let mut store = Store::open(&path, keep(5, 3_600_000)).unwrap();
    let mut old = Arc::new(State::default());
    let numbers = |store: &Store| {
        let page = store.history().page(None, 1_000).unwrap();
        page.iter().map(|revision| revision.number).collect::<Vec<_>>()
    };
    let file = FileRecord::default();
    let mut write = |store: &mut Store, count: u64| {
        for _ in 0..count {
            let version = old.version + 1;
            let step = step(&old, state(version));
            old = step.new.clone();
            store.write(&[step], &Beside { file: Some(&file), ..PLAIN }).unwrap();
        }
    };
    write(&mut store, 12);
    assert_eq!(numbers(&store), [12, 11, 10, 9, 8]);
    let history = store.history();
    for number in 8..=12 {
        assert_eq!(history.state(number).unwrap(), state(number));
    }
    assert_eq!(history.revision(7).unwrap(), None);
    let rows: i64 = schema::open_to_read(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM item WHERE kind = 'pool'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 5, "one for each that is kept");
    let page = history.page(Some(11), 2).unwrap();
    assert_eq!(page.iter().map(|r| r.number).collect::<Vec<_>>(), [10, 9]);
    assert_eq!((page[0].reason.as_deref(), page[1].reason.as_deref()), (Some("even"), None));
    drop(store);

    // By age, but for the last hundred.
    let mut store = Store::open(&path, keep(1_000, 0)).unwrap();
    store.load(&path.with_extension("json")).unwrap();
    write(&mut store, 200);
    assert_eq!(numbers(&store).len(), 205, "not looked at more often than needs be");
    store.aged = None;
    write(&mut store, 1);
    assert_eq!(numbers(&store).len(), 100);
}

/// Of a link, and of one whose target is yet to be made; by a link to its directory, too.
#[test]
fn a_link_stays_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let [there, here] = ["there", "here"].map(|name| directory.path().join(name));
    fs::create_dir(&there).unwrap();
    fs::create_dir(&here).unwrap();
    let (file, link) = (there.join("real.db"), here.join("state.db"));
    std::os::unix::fs::symlink("../there/real.db", &link).unwrap();
    std::os::unix::fs::symlink("there", directory.path().join("door")).unwrap();
    let store = written(&link, 2);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../there/real.db"));
    assert_eq!(loaded(&link).unwrap(), Loaded::Good(content(2)));
    assert_eq!(loaded(&file).unwrap(), Loaded::Good(content(2)));
    for other in [&file, &directory.path().join("door/real.db")] {
        assert!(matches!(Store::open(other, Keep::default()), Err(StoreError::Locked { .. })));
    }
    drop(store);
    assert_eq!(names(&there), ["real.db", "real.db.lock"]);
    assert_eq!(names(&here), ["state.db"]);
    fs::set_permissions(&here, Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(loaded(&link), Err(StoreError::Exposed { .. })), "others may lead it away");
}

/// By another name, it would have another lock and another log.
#[test]
fn a_file_of_two_names_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [path, other] = ["state.db", "other.db"].map(|name| directory.path().join(name));
    drop(written(&path, 1));
    fs::hard_link(&path, &other).unwrap();
    for name in [&path, &other] {
        let refused = Store::open(name, Keep::default());
        assert!(matches!(refused, Err(StoreError::Linked { names: 2, .. })));
    }
    fs::remove_file(&other).unwrap();
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(content(1)));
    assert!(Store::open(&path, Keep::default()).is_ok());
}

/// Who can open the lock file can hold it; who can write in the directory can replace it.
#[test]
fn nobody_else_can_hold_the_lock() {
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/state.db");
    let open = || Store::open(&path, Keep::default());
    drop(open().unwrap());
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let lock = beside(&path, ".lock");
    assert_eq!(mode(&lock), 0o600);
    fs::set_permissions(&lock, Permissions::from_mode(0o644)).unwrap();
    drop(open().unwrap());
    assert_eq!(mode(&lock), 0o600, "one that a former version has made");

    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&lock, Some(65_534), None).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("lock file belongs to user 65534"), "{error}");
        fs::remove_file(&lock).unwrap();
    }
    fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o1777)).unwrap();
    for error in [open().unwrap_err(), loaded(&path).unwrap_err()] {
        assert!(error.to_string().contains("every user may write in"), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    drop(written(&path, 2));
    let newer = schema::open(&path, Access::Write).unwrap();
    newer.pragma_update(None, "user_version", 9).unwrap();
    drop(newer);
    for error in [loaded(&path).unwrap_err(), repair(&path).unwrap_err()] {
        assert!(matches!(error, StoreError::Newer { format: 9, .. }), "{error}");
        assert!(error.to_string().contains("format 9, this program reads format 1"), "{error}");
    }
    let other = schema::open(&path, Access::Write).unwrap();
    other.pragma_update(None, "application_id", 7).unwrap();
    drop(other);
    assert!(loaded(&path).unwrap_err().to_string().contains("another program"));
}

/// A file that is not what was written is told of, or reads as it was written: never anything else.
#[test]
fn damage_is_never_read_as_a_state() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    drop(written(&path, 20));
    let good = fs::read(&path).unwrap();
    let mut told = 0;
    let mut tried = 0;
    let mut look = |bytes: &[u8], what: String| {
        fs::write(&path, bytes).unwrap();
        tried += 1;
        match loaded(&path) {
            Ok(Loaded::Good(found)) => assert_eq!(found, content(20), "{what}"),
            Ok(other) => panic!("{what}: {other:?}"),
            Err(StoreError::Damaged { .. }) => told += 1,
            Err(StoreError::Newer { .. }) => assert!(what.contains("at 6"), "{what}"),
            Err(error) => panic!("{what}: {error}"),
        }
    };
    for cut in (1..good.len()).step_by(4_099) {
        look(&good[..cut], format!("cut at {cut}"));
    }
    for at in (0..good.len()).step_by(331) {
        let mut bad = good.clone();
        bad[at..(at + 3).min(good.len())].fill(0xa5);
        look(&bad, format!("garbled at {at}"));
    }
    // Texts are full of digits: one bit makes another weight of one.
    let text = b"\"weight\":100";
    let texts = good.windows(text.len()).enumerate().filter(|(_, bytes)| bytes == text);
    for (at, _) in texts {
        let mut bad = good.clone();
        bad[at + text.len() - 2] ^= 1;
        look(&bad, format!("one bit at {at}"));
    }
    look(&[0; 8192], "zeroes".to_owned());
    look(b"{\"sluice_state\": 1}", "no database".to_owned());
    assert!(told > tried / 8, "{told} of {tried}");
    fs::write(&path, &good).unwrap();
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(content(20)));
}

#[test]
fn what_is_damaged_or_lost_comes_back_from_the_backup() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = written(&path, 3);
    let copy = backup(&path, None).unwrap();
    assert_eq!(copy, beside(&path, BACKUP));
    let found = check(&path).unwrap();
    assert_eq!((found.newest, found.oldest, found.services, found.backends), (3, 1, 2, 3));
    assert!(matches!(repair(&path), Err(StoreError::Locked { .. })), "it is in use");
    drop(store);
    assert_eq!(repair(&path).unwrap(), care::Mended::Whole(found.clone()));

    fs::write(&path, "torn").unwrap();
    let error = loaded(&path).unwrap_err().to_string();
    assert!(error.contains("it is damaged") && error.contains("db repair"), "{error}");
    let care::Mended::Restored { found: restored, aside: Some(aside) } = repair(&path).unwrap()
    else {
        panic!("not restored");
    };
    assert_eq!(restored, found);
    assert_eq!(fs::read(aside).unwrap(), b"torn", "kept for a post-mortem");
    let doubtful = Content { unconfirmed: true, ..content(3) };
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(doubtful.clone()));

    // Lost is no first start.
    fs::remove_file(&path).unwrap();
    let error = loaded(&path).unwrap_err().to_string();
    assert!(error.contains("it is missing, and a backup is there"), "{error}");
    assert!(matches!(repair(&path).unwrap(), care::Mended::Restored { aside: None, .. }));
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(doubtful));

    fs::write(&path, "torn").unwrap();
    fs::write(beside(&path, BACKUP), "torn").unwrap();
    let error = repair(&path).unwrap_err().to_string();
    assert!(error.contains("no good backup is there"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"torn", "nothing was changed");
    fs::remove_file(&path).unwrap();
    fs::remove_file(beside(&path, BACKUP)).unwrap();
    assert_eq!(loaded(&path).unwrap(), Loaded::Nothing);
}

/// Damage of what follows from the rest takes nothing away.
#[test]
fn a_damaged_index_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    drop(written(&path, 50));
    let connection = schema::open(&path, Access::Write).unwrap();
    let page: i64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'item_since'", [], |r| r.get(0))
        .unwrap();
    drop(connection);
    let mut bytes = fs::read(&path).unwrap();
    // An entry points to another row.
    let end = page as usize * 4_096;
    bytes[end - 3] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(check(&path), Err(StoreError::Damaged { .. })));
    let care::Mended::Rebuilt(found) = repair(&path).unwrap() else { panic!("not rebuilt") };
    assert_eq!(found.newest, 50);
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(content(50)));
}

/// A write that fails leaves all as it was, and the next one is tried anew.
#[test]
fn a_refused_write_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let mut store = written(&path, 2);
    let old = Arc::new(state(2));
    let next = || step(&old, state(3));

    // Two steps, of which the last cannot be: no half of them is there.
    let error = store.write(&[next(), next()], &PLAIN).unwrap_err();
    assert!(matches!(error, StoreError::Sqlite { .. }), "{error}");
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(content(2)));

    // A full disk, as SQLite tells of it.
    store.connect().unwrap();
    let full = store.connection.as_ref().unwrap();
    full.query_row("PRAGMA max_page_count = 1", [], |_| Ok(())).unwrap();
    let mut large = state(3);
    for n in 0..400 {
        large.pools.put(Pool::new(format!("p{n}"), vec![[10, 9, 1, 1].into()]));
    }
    let error = store.write(&[step(&old, large)], &PLAIN).unwrap_err().to_string();
    assert!(error.contains("cannot write it: database or disk is full"), "{error}");
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(content(2)));

    // Taken away, and put back: what is written to a file that nobody finds is not kept.
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    for _ in 0..2 {
        let error = store.write(&[next()], &PLAIN).unwrap_err().to_string();
        assert!(error.contains("removed or replaced while sluice-control uses it"), "{error}");
        assert!(!path.exists(), "not made anew");
    }
    fs::rename(&elsewhere, &path).unwrap();
    store.write(&[next()], &PLAIN).unwrap();
    assert_eq!(loaded(&path).unwrap(), Loaded::Good(content(3)));
}

/// The names of all that is in a state, oldest first.
#[test]
fn the_order_of_the_state_survives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let mut store = Store::open(&path, Keep::default()).unwrap();
    let all: Vec<Service> = ["z", "a", "m"].iter().map(|name| service(name, &[9, 1, 5])).collect();
    let first =
        step(&Arc::default(), State { version: 1, services: all.into(), ..State::default() });
    let file = FileRecord::default();
    store.write(&[first], &Beside { file: Some(&file), ..PLAIN }).unwrap();
    let Loaded::Good(found) = loaded(&path).unwrap() else { panic!("nothing good") };
    let order: Vec<&str> = found.state.services.iter().map(HasName::name).collect();
    assert_eq!(order, ["z", "a", "m"]);
    let ports: Vec<String> =
        found.state.services[1].backends.iter().map(|b| b.id().to_string()).collect();
    assert_eq!(ports, ["10.0.0.9:80", "10.0.0.1:80", "10.0.0.5:80"]);
}
