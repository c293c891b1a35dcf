//! The thread that compiles snapshots, and does what else takes long: checks them, gives out slots,
//! frees what nobody holds any more, looks how full is what belongs to services
//! ([ADR 0014](../../../docs/adr/0014-compiling-beside-the-main-thread.md)).
//!
//! In come requests of control, from the main thread, which goes on. Out goes [`News`], in order: the
//! main thread has the workers go by what was compiled, and answers. A request that cannot be granted is
//! answered from here. Of those that wait while one is compiled, only the newest is compiled.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use sluice_api::message::Response;
use sluice_api::snapshot::MAX_GENERATION;
use sluice_api::stats::Limits;
use sluice_api::{Problem, Snapshot, SnapshotChange, validate};

use super::thresholds::{Crossing, SmallPools, Thresholds};
use super::usage;
use crate::control_socket::Reply;
use sluice_path::counters::WorkerCounters;
use sluice_path::ids::InterfaceId;
use sluice_path::slots::{Freed, Slots};
use sluice_path::snapshot::Compiled;
use sluice_path::table::route::RouteTable;

/// How often it looks at retired slots, and at what fills up.
const LOOK: Duration = Duration::from_secs(1);
/// Its nice value: it shares the main thread's CPU, and must not be in its way.
const NICE: i32 = 10;
/// Compiling that takes longer is told in the log.
const LONG: Duration = Duration::from_secs(1);

/// What it is to do.
enum Job {
    /// Forward by this from now on.
    Apply(Wanted, Reply),
    /// Reach backends by these routes from now on.
    Reroute(Arc<RouteTable>),
    /// Free this, unless somebody else still holds it.
    Free(Arc<Compiled>),
}

/// What control wants, whole or as a change of what is in force.
enum Wanted {
    Whole(Box<Snapshot>),
    Change(Box<SnapshotChange>),
}

impl Wanted {
    fn generation(&self) -> u64 {
        match self {
            Wanted::Whole(snapshot) => snapshot.generation,
            Wanted::Change(change) => change.generation,
        }
    }
}

/// What the main thread is to know and to do, in this order.
pub struct News {
    /// Slots that nothing refers to any more.
    pub freed: Vec<Freed>,
    /// How many services and backends hold slots.
    pub used: (usize, usize),
    /// What has happened.
    pub events: Vec<Crossing>,
    /// A snapshot for the workers, with the request for it. Without a snapshot it is the one handed
    /// out before that was asked for again.
    pub done: Option<(Option<Arc<Compiled>>, Reply)>,
}

/// What it is made of.
pub struct Parts {
    /// `[limits]`.
    pub limits: Limits,
    /// Addresses of the ports, with their ports.
    pub own_addresses: Vec<(Ipv4Addr, InterfaceId)>,
    /// Counters of the workers.
    pub workers: Vec<Arc<WorkerCounters>>,
}

/// The main thread's side. Without it the thread ends when it has compiled what it is at; nobody waits
/// for that.
pub struct Compiler {
    jobs: Sender<Job>,
    news: Receiver<News>,
}

impl Compiler {
    /// Start the thread; the workers forward by `first` before the first snapshot.
    ///
    /// # Errors
    /// The kernel does not give us a thread.
    pub fn start(parts: Parts, first: Arc<Compiled>) -> std::io::Result<Compiler> {
        let (to_thread, jobs) = channel();
        let (to_main, news) = channel();
        let work = move || {
            let me = rustix::thread::gettid();
            if let Err(error) = rustix::process::setpriority_process(Some(me), NICE) {
                tracing::warn!(%error, "compiling is as urgent as the main thread");
            }
            Work::new(parts, first, jobs, to_main).run();
        };
        std::thread::Builder::new().name("compiler".into()).spawn(work)?;
        Ok(Compiler { jobs: to_thread, news })
    }

    /// Have a snapshot compiled; whoever asked is answered when workers go by it, or when it is
    /// refused.
    pub fn apply(&self, snapshot: Snapshot, reply: Reply) {
        self.send(Job::Apply(Wanted::Whole(Box::new(snapshot)), reply));
    }

    /// The same with the snapshot that a change makes of the last one that was compiled.
    pub fn amend(&self, change: SnapshotChange, reply: Reply) {
        self.send(Job::Apply(Wanted::Change(Box::new(change)), reply));
    }

    /// Have the snapshot in force go by other routes.
    pub fn reroute(&self, routes: Arc<RouteTable>) {
        self.send(Job::Reroute(routes));
    }

    /// Have a former one freed: it may be hundreds of megabytes.
    pub fn free(&self, compiled: Arc<Compiled>) {
        self.send(Job::Free(compiled));
    }

    fn send(&self, job: Job) {
        // It ends only with us, or with the process.
        let _ = self.jobs.send(job);
    }

    /// What it has done. Never waits.
    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

/// The thread's side.
struct Work {
    parts: Parts,
    jobs: Receiver<Job>,
    news: Sender<News>,
    slots: Slots,
    /// The last one handed out.
    latest: Arc<Compiled>,
    waiting: Waiting,
    pools: Thresholds,
    small_pools: SmallPools,
    limits: Thresholds,
    next_look: Instant,
    /// Slots that are free, and nobody has been told yet.
    freed: Vec<Freed>,
}

impl Work {
    fn new(parts: Parts, first: Arc<Compiled>, jobs: Receiver<Job>, news: Sender<News>) -> Work {
        Work {
            slots: Slots::new(parts.limits.services, parts.limits.backends),
            latest: first,
            parts,
            jobs,
            news,
            waiting: Waiting::default(),
            pools: Thresholds::of_tables(),
            small_pools: SmallPools::default(),
            limits: Thresholds::of_limits(),
            next_look: Instant::now() + LOOK,
            freed: Vec::new(),
        }
    }

    fn run(mut self) {
        loop {
            let patience = self.next_look.saturating_duration_since(Instant::now());
            match self.jobs.recv_timeout(patience) {
                Ok(job) => take(job, &mut self.waiting),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turn();
            if Instant::now() >= self.next_look {
                self.look();
            }
        }
    }

    /// Do what waits.
    fn turn(&mut self) {
        loop {
            while let Ok(job) = self.jobs.try_recv() {
                take(job, &mut self.waiting);
            }
            if let Some(routes) = self.waiting.routes.take() {
                self.reroute(routes);
            }
            self.refuse_all_but_the_newest();
            let Some((wanted, reply)) = self.waiting.snapshots.pop_front() else { return };
            match self.whole(wanted) {
                Some(snapshot) => self.apply(&snapshot, reply),
                None => reply.send(Response::OtherBase { generation: self.latest.generation }),
            }
        }
    }

    /// The snapshot that is wanted; none for a change of another one than the last.
    fn whole(&self, wanted: Wanted) -> Option<Snapshot> {
        match wanted {
            Wanted::Whole(snapshot) => Some(*snapshot),
            Wanted::Change(change) if change.base == self.latest.generation => {
                change.apply(self.latest.snapshot()?)
            }
            Wanted::Change(_) => None,
        }
    }

    /// Control says all of what it wants: with a newer snapshot, older ones are of no interest.
    fn refuse_all_but_the_newest(&mut self) {
        let snapshots = &mut self.waiting.snapshots;
        let newest = snapshots.iter().map(|(wanted, _)| wanted.generation()).max();
        let Some(newest) = newest.filter(|_| snapshots.len() > 1) else { return };
        for (wanted, reply) in std::mem::take(snapshots) {
            if wanted.generation() == newest {
                snapshots.push_back((wanted, reply));
            } else {
                let expected =
                    format!("at least {newest}, which was sent before this was compiled");
                refuse(reply, vec![Problem::new("generation", wanted.generation(), expected)]);
            }
        }
    }

    /// Compile a snapshot and hand it out, or say what is wrong with it and change nothing.
    fn apply(&mut self, snapshot: &Snapshot, reply: Reply) {
        match self.prepare(snapshot) {
            Ok(compiled) => self.tell(Vec::new(), Some((compiled, reply))),
            Err(problems) => {
                refuse(reply, problems);
                self.tell(Vec::new(), None);
            }
        }
    }

    /// The same snapshot by other routes.
    fn reroute(&mut self, routes: Arc<RouteTable>) {
        let rerouted =
            Compiled::rerouted(&self.latest, &self.slots, &self.parts.own_addresses, routes);
        self.latest = Arc::new(rerouted);
        self.tell(Vec::new(), Some((Some(Arc::clone(&self.latest)), Reply::to_nobody())));
    }

    fn prepare(&mut self, snapshot: &Snapshot) -> Result<Option<Arc<Compiled>>, Vec<Problem>> {
        let current = Arc::clone(&self.latest);
        let is_last = current.generation == MAX_GENERATION;
        if snapshot.generation <= current.generation && (!is_last || current.is_of(snapshot)) {
            if current.is_of(snapshot) {
                return Ok(None);
            }
            let expected = format!("above {}, which is in force", current.generation);
            return Err(vec![Problem::new("generation", snapshot.generation, expected)]);
        }
        let start = Instant::now();
        let differs_in_degree = current.differing_in_degree(snapshot).is_some();
        let problems = if differs_in_degree {
            validate::generation(snapshot.generation)
        } else {
            let own: Vec<_> = self.parts.own_addresses.iter().map(|(a, _)| (*a).into()).collect();
            validate::snapshot(snapshot, &self.parts.limits, &own)
        };
        if !problems.is_empty() {
            return Err(problems.into_vec());
        }
        // Slots of removed backends whose conns have ended since are free for the new ones.
        self.reclaim();
        if !differs_in_degree {
            self.slots.assign(snapshot).map_err(|problem| vec![problem])?;
        }
        let Work { parts, jobs, waiting, .. } = self;
        let compiled =
            Compiled::in_pieces(snapshot, &self.slots, &parts.own_addresses, &current, || {
                while let Ok(job) = jobs.try_recv() {
                    take(job, waiting);
                }
            });
        let (took, changed) = (start.elapsed(), compiled.changes());
        let (generation, all, took_ms) =
            (snapshot.generation, snapshot.services.len(), took.as_millis());
        if took > LONG {
            tracing::info!(generation, "{changed} of {all} services compiled in {took_ms} ms");
        } else {
            tracing::debug!(generation, "{changed} of {all} services compiled in {took_ms} ms");
        }
        self.latest = Arc::new(compiled);
        Ok(Some(Arc::clone(&self.latest)))
    }

    /// Free slots that nothing refers to, once all workers forward by what was handed out last.
    fn reclaim(&mut self) {
        let workers = &self.parts.workers;
        let latest = self.latest.generation;
        let is_adopted = workers.iter().all(|worker| worker.generation.observe() == latest);
        if is_adopted && self.slots.has_retired() {
            let freed = &mut self.freed;
            self.slots
                .reclaim(|slot| sluice_path::ledger::references(workers, slot), |f| freed.push(f));
        }
    }

    /// The regular look.
    fn look(&mut self) {
        self.next_look = Instant::now() + LOOK;
        self.reclaim();
        self.latest.port_spaces.look_at_reuse();
        let mut events = self.pools.check(&usage::local_ports(&self.latest));
        events.extend(self.small_pools.check(&usage::pools(&self.latest)));
        events.extend(self.limits.check(&usage::limits(&self.latest, &self.parts.workers)));
        self.tell(events, None);
    }

    fn tell(&mut self, events: Vec<Crossing>, done: Option<(Option<Arc<Compiled>>, Reply)>) {
        let freed = std::mem::take(&mut self.freed);
        if freed.is_empty() && events.is_empty() && done.is_none() {
            return;
        }
        let ((services, _), (backends, _)) = self.slots.usage();
        // The main thread ends before us only when the process ends.
        let _ = self.news.send(News { freed, used: (services, backends), events, done });
    }
}

/// What waits for its turn.
#[derive(Default)]
struct Waiting {
    snapshots: VecDeque<(Wanted, Reply)>,
    routes: Option<Arc<RouteTable>>,
}

fn take(job: Job, waiting: &mut Waiting) {
    match job {
        Job::Apply(wanted, reply) => waiting.snapshots.push_back((wanted, reply)),
        Job::Reroute(routes) => waiting.routes = Some(routes),
        Job::Free(compiled) => drop(compiled),
    }
}

fn refuse(reply: Reply, problems: Vec<Problem>) {
    reply.send(Response::Rejected { problems });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_socket::Receipt;
    use sluice_api::{Mode, Protocol, Scheduler, SnapshotService};
    use sluice_path::testkit::{self, test_limits};

    fn parts() -> Parts {
        let (services, backends) = (192, 8_256);
        let workers =
            (0..2).map(|_| Arc::new(WorkerCounters::new(services, backends, 2))).collect();
        let own_addresses = testkit::own_addresses();
        Parts { limits: test_limits(), own_addresses, workers }
    }

    fn first() -> Arc<Compiled> {
        Arc::new(testkit::nothing_compiled())
    }

    /// So many services, each with three backends of its own port.
    fn services(count: u16) -> Vec<SnapshotService> {
        let service = |port: u16| {
            testkit::service(&format!("s{port}"), 1_000 + port, Protocol::Tcp, Mode::Dr, 3)
        };
        (0..count).map(service).collect()
    }

    fn snapshot(generation: u64, services: Vec<SnapshotService>) -> Snapshot {
        testkit::snapshot(generation, services)
    }

    /// The thread without a thread: what it makes of these requests when all of them wait already.
    fn work(work: &mut Option<Work>, snapshots: Vec<Snapshot>) -> (Vec<Receipt>, Vec<News>) {
        let (to_thread, jobs) = channel();
        let (to_main, news) = channel();
        let mut receipts = Vec::new();
        for snapshot in snapshots {
            let (reply, receipt) = Reply::channel();
            to_thread.send(Job::Apply(Wanted::Whole(Box::new(snapshot)), reply)).unwrap();
            receipts.push(receipt);
        }
        let mut one = match work.take() {
            None => Work::new(parts(), first(), jobs, to_main),
            Some(before) => Work { jobs, news: to_main, ..before },
        };
        one.turn();
        *work = Some(one);
        (receipts, news.try_iter().collect())
    }

    fn refusal(receipt: &mut Receipt) -> String {
        match receipt.response() {
            Some(Response::Rejected { problems }) => problems[0].to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_backend_that_fails_costs_its_services_only() {
        let mut thread = None;
        let (mut receipts, mut news) = work(&mut thread, vec![snapshot(1, services(20))]);
        let (Some(before), reply) = news.remove(0).done.unwrap() else { panic!("not compiled") };
        assert_eq!((before.changes(), before.generation), (20, 1));
        assert!(receipts[0].response().is_none(), "workers do not go by it yet");
        reply.send(Response::Applied { generation: 1 });
        assert_eq!(receipts[0].response(), Some(Response::Applied { generation: 1 }));

        let mut second = services(20);
        second[7].backends[1].healthy = false;
        second.remove(3);
        let (_, mut news) = work(&mut thread, vec![snapshot(2, second)]);
        let (Some(after), _) = news.remove(0).done.unwrap() else { panic!("not compiled") };
        let changed: Vec<&str> = after.changed(0).map(|s| s.source().name.as_str()).collect();
        assert_eq!(changed, ["s7"]);
        assert_eq!(after.left(), [before.services()[3].slot]);
        let same = |name: &str| {
            let of = |c: &Arc<Compiled>| {
                Arc::clone(c.services().iter().find(|s| s.source().name == name).unwrap())
            };
            Arc::ptr_eq(&of(&before), &of(&after))
        };
        assert!(same("s0") && same("s19") && !same("s7"));
    }

    #[test]
    fn of_those_that_wait_the_newest_is_compiled_and_all_are_answered() {
        let mut thread = None;
        let all = [4, 6, 5, 6].map(|generation| snapshot(generation, services(2)));
        let (mut receipts, news) = work(&mut thread, all.to_vec());
        let expected = "at least 6, which was sent before this was compiled";
        assert_eq!(refusal(&mut receipts[0]), format!("generation is 4: expected {expected}"));
        assert_eq!(refusal(&mut receipts[2]), format!("generation is 5: expected {expected}"));
        let done: Vec<_> = news.into_iter().filter_map(|news| news.done).collect();
        // Asked for twice, compiled once: both are answered when it is in force.
        let compiled: Vec<_> = done.iter().map(|(c, _)| c.as_ref().map(|c| c.generation)).collect();
        assert_eq!(compiled, [Some(6), None]);
        assert!(receipts[1].response().is_none() && receipts[3].response().is_none());
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut thread = None;
        work(&mut thread, vec![snapshot(3, services(2))]);
        let mut refused = |snapshot| {
            let (mut receipts, news) = work(&mut thread, vec![snapshot]);
            assert!(news.iter().all(|news| news.done.is_none()));
            refusal(&mut receipts[0])
        };
        let text = refused(snapshot(2, services(2)));
        assert_eq!(text, "generation is 2: expected above 3, which is in force");
        assert!(refused(snapshot(3, services(1))).contains("expected above 3"));
        let mut bad = services(2);
        bad[1].port = 0;
        assert!(refused(snapshot(4, bad)).contains("expected 1 to 65535"));
        assert!(refused(snapshot(5, services(65))).contains("at most 64 in all"));
        assert_eq!(thread.unwrap().latest.generation, 3);
    }

    #[test]
    fn the_largest_generation_is_followed_by_any_and_none_is_larger() {
        let mut thread = None;
        let mut refused = |snapshot| refusal(&mut work(&mut thread, vec![snapshot]).0[0]);
        let text = refused(snapshot(u64::MAX, services(1)));
        assert_eq!(
            text,
            "generation is 18446744073709551615: expected at most 9007199254740992, which is 2^53"
        );
        work(&mut thread, vec![snapshot(MAX_GENERATION, services(2))]);
        let (_, news) = work(&mut thread, vec![snapshot(MAX_GENERATION, services(2))]);
        assert!(matches!(&news[0].done, Some((None, _))), "asked for again");
        let (_, news) = work(&mut thread, vec![snapshot(1, services(1))]);
        assert!(matches!(&news[0].done, Some((Some(c), _)) if c.generation == 1));
        let (mut receipts, _) = work(&mut thread, vec![snapshot(1, services(2))]);
        assert_eq!(
            refusal(&mut receipts[0]),
            "generation is 1: expected above 1, which is in force"
        );
    }

    #[test]
    fn other_routes_are_the_same_snapshot() {
        let mut thread = None;
        let (_, mut news) = work(&mut thread, vec![snapshot(3, services(2))]);
        let (Some(before), _) = news.remove(0).done.unwrap() else { panic!("not compiled") };
        let mut work = thread.unwrap();
        let (to_main, news) = channel();
        work.news = to_main;
        assert_eq!(before.backend_hops.unreachable(&[]), []);
        work.waiting.routes = Some(Arc::new(RouteTable::new([], &[])));
        work.turn();
        let (Some(after), _) = news.recv().unwrap().done.unwrap() else { panic!("not compiled") };
        assert_eq!((after.generation, after.changes(), after.left()), (3, 0, &[][..]));
        assert_eq!(after.snapshot(), before.snapshot());
        assert!(Arc::ptr_eq(&after.services()[0], &before.services()[0]));
        assert!(!after.backend_hops.unreachable(&[]).is_empty(), "no route leads to any backend");
    }

    #[test]
    fn slots_are_freed_when_all_workers_have_left_them_and_their_conns_ended() {
        let mut thread = None;
        work(&mut thread, vec![snapshot(1, services(2))]);
        let (_, news) = work(&mut thread, vec![snapshot(2, services(1))]);
        assert!(news.iter().all(|news| news.freed.is_empty()));
        let mut look = |generations: [u64; 2], conns: u64| {
            let mut work = thread.take().unwrap();
            let (to_main, news) = channel();
            work.news = to_main;
            let slot = work.slots.retired_backends().map(|(_, slot)| slot).min();
            for (worker, generation) in work.parts.workers.iter().zip(generations) {
                worker.generation.set(generation);
                slot.iter().for_each(|slot| worker.backend(*slot).conns.set(conns));
            }
            work.look();
            thread = Some(work);
            news.try_iter().flat_map(|news| news.freed).count()
        };
        assert_eq!(look([2, 1], 0), 0, "a worker may still make conns on them");
        assert_eq!(look([2, 2], 5), 2, "one backend has conns, and so its service keeps its slot");
        assert_eq!(look([2, 2], 0), 2);
    }

    /// On its own thread, with the largest tables: whoever hands a snapshot over does not wait for it.
    #[test]
    fn handing_a_snapshot_over_takes_no_time() {
        let compiler = Compiler::start(parts(), first()).unwrap();
        let mut large = services(20);
        for service in &mut large {
            (service.scheduler, service.maglev_slots) = (Scheduler::Maglev, 655_373);
        }
        let large = snapshot(1, large);
        let (reply, mut receipt) = Reply::channel();
        let start = Instant::now();
        compiler.apply(large, reply);
        let handed_over = start.elapsed();
        let news = loop {
            if let Some(news) = compiler.news() {
                break news;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let compiled = start.elapsed();
        println!("handed over in {handed_over:?}, compiled in {compiled:?}");
        assert!(handed_over < compiled / 4, "{handed_over:?} of {compiled:?}");
        let (Some(done), reply) = news.done.unwrap() else { panic!("not compiled") };
        assert_eq!(done.changes(), 20);
        reply.send(Response::Applied { generation: done.generation });
        assert_eq!(receipt.response(), Some(Response::Applied { generation: 1 }));
    }
}
