//! The main thread's loop: a round at least every 2 ms. Each part of it is a file; here they meet.

use sluice_api::stats::PortStatus;
use sluice_wire::arp;
use sluice_wire::ether::MacAddr;

use super::RunError;
use super::announce::Announcements;
use super::crew::Crew;
use super::forwarding::Forwarding;
use super::kernel_path::KernelPath;
use super::outgoing::Outgoing;
use super::ports::{LinkChange, Lost, Ports};
use super::reload::{Changes, Reload};
use super::rounds::{Rounds, Step};
use super::thresholds::Thresholds;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::control_socket::ControlSocket;
use crate::dpdk::{Clock, Eal};
use crate::events::EventLog;
use sluice_path::ids::InterfaceId;
use sluice_path::next_hop::NextHop;
use sluice_path::pipeline::ToMain;
use sluice_path::resolver::{Action, Resolver};
use sluice_path::table::route::RouteTable;

/// How often links are looked at, in ms: a VF's may be down for a moment only when its PF is reset.
const LINK_CHECK_MS: u64 = 100;
/// How often counters and table fill are looked at, in ms.
const SLOW_CHECK_MS: u64 = 1_000;
/// What workers say and a round listens to, at most: the resolver's time must not starve the rest.
const MESSAGES_PER_ROUND: usize = 1_024;

/// What is known since the start.
pub struct Started {
    /// Random per start.
    pub boot_id: u64,
    /// When this process started, by the clock, in ms.
    pub at_ms: u64,
    /// Memory that the workers' conn tables take, in bytes.
    pub conn_table_bytes: u64,
}

/// The main thread.
pub struct MainLoop {
    /// The file.
    pub config: Config,
    /// What is known since the start.
    pub started: Started,
    /// The workers.
    pub crew: Crew,
    /// The ports.
    pub ports: Ports,
    /// The kernel behind them.
    pub kernel: KernelPath,
    /// Frames of ours and of the kernel that wait to be sent.
    pub outgoing: Outgoing,
    /// Next hops.
    pub resolver: Resolver,
    /// What the workers forward by.
    pub forwarding: Forwarding,
    /// What the networks around are told of our addresses.
    pub announcements: Announcements,
    /// What happened.
    pub events: EventLog,
    /// Tables that fill up.
    pub thresholds: Thresholds,
    /// The clock.
    pub clock: Clock,
    /// When links are looked at next, in ms.
    pub link_check_at_ms: u64,
    /// When counters and tables are looked at next, in ms.
    pub slow_check_at_ms: u64,
    /// The control socket.
    pub server: ControlSocket,
    /// What to do between rounds.
    pub backoff: Backoff,
    /// How long rounds take.
    pub rounds: Rounds,
    /// Dropped last: DPDK itself.
    pub _eal: Eal,
}

impl MainLoop {
    /// One round.
    pub fn round(&mut self) {
        let now_ms = self.now_ms();
        self.step(Step::Messages);
        self.crew.look(now_ms, &mut self.events);
        self.resolver.doubt_silence(self.crew.some_is_stuck());
        let mut work = self.listen(now_ms);
        self.step(Step::Kernel);
        work += self.kernel.carry(now_ms, &mut self.crew, &mut self.outgoing);
        self.step(Step::NextHops);
        self.resolver.tick(now_ms);
        self.act();
        self.announcements.send(now_ms, &self.ports, &self.crew, &mut self.outgoing);
        self.outgoing.flush(&mut self.crew);
        self.crew.flush();
        self.step(Step::Control);
        work += self.answer_control();
        self.step(Step::Snapshot);
        work += self.go_on_with_snapshots(now_ms);
        self.step(Step::Tally);
        self.forwarding.count(now_ms);
        if now_ms >= self.link_check_at_ms {
            self.link_check_at_ms = now_ms + LINK_CHECK_MS;
            self.step(Step::Links);
            self.look_at_links(now_ms);
        }
        if now_ms >= self.slow_check_at_ms {
            self.slow_check_at_ms = now_ms + SLOW_CHECK_MS;
            self.step(Step::Ports);
            self.mend_ports(now_ms);
            self.step(Step::Tables);
            self.slow_checks();
        }
        self.step(Step::Nap);
        self.backoff.after_round(work);
    }

    /// This thread's time, in ms.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ns() / 1_000_000
    }

    /// Note what is done next, and tell of a round that took long.
    fn step(&mut self, step: Step) {
        if let Some(message) = self.rounds.step(step) {
            self.events.add("main-thread-late", message);
        }
    }

    /// Hear what workers say; how much.
    fn listen(&mut self, now_ms: u64) -> usize {
        let mut count = 0;
        while count < MESSAGES_PER_ROUND
            && let Some(message) = self.crew.message()
        {
            count += 1;
            match message {
                ToMain::Want { hop, purpose } => {
                    self.resolver.want(now_ms, hop, purpose);
                }
                ToMain::Arp { sender, mac, conflict: true, .. } => {
                    self.claimed(now_ms, sender, mac);
                }
                ToMain::Arp { sender, mac, is_reply, for_us, conflict: false } => {
                    let name = self.ports.name(sender.interface.port());
                    self.forwarding.let_go_of(sender.ip(), mac, name, &mut self.events);
                    self.resolver.seen(now_ms, sender, mac, is_reply, for_us);
                }
            }
        }
        count
    }

    /// Another host claims one of our addresses: defend it, and tell the operator.
    fn claimed(&mut self, now_ms: u64, of: NextHop, mac: MacAddr) {
        let (interface, address) = (of.interface, of.ip());
        let defended = self.announcements.claimed(now_ms, interface, address);
        let name = self.ports.name(interface.port());
        let also = self.resolver.addresses_of(interface, mac);
        let known_as = match also.as_slice() {
            [] => String::new(),
            [first, ..] => format!(
                " (it has {first}: a backend in DR must not speak ARP for its VIP, see arp_ignore \
                 and arp_announce)"
            ),
        };
        let then = if defended { "; it was announced again" } else { "" };
        let message =
            format!("{mac} on port {name} claims {address}, which is ours{known_as}{then}");
        self.events.add_about("address-conflict", &format!("{address} {interface}"), message);
    }

    /// Do what the resolver asks for.
    fn act(&mut self) {
        let actions: Vec<Action> = self.resolver.take_actions().collect();
        for action in actions {
            match action {
                Action::Request { target, unicast_to } => self.ask_for(target, unicast_to),
                Action::Publish(update) => self.crew.tell(update),
                Action::TellKernel { hop, mac } => {
                    self.kernel.tell(hop, mac, &self.outgoing);
                }
                Action::Event { kind, subject, message } => {
                    self.events.add_about(kind, &subject, message);
                }
            }
        }
    }

    /// Send an ARP request.
    fn ask_for(&mut self, target: NextHop, unicast_to: Option<MacAddr>) {
        // The sender's address is the one in the target's network: others may not answer it.
        let addresses = &self.config.ports[target.interface.port().index()].addresses;
        let source = addresses
            .iter()
            .find(|a| a.network().contains(target.ip()))
            .or(addresses.first())
            .map(|a| a.address());
        let Some(source) = source else { return };
        let (mac, to) =
            (self.ports.mac(target.interface.port()), unicast_to.unwrap_or(MacAddr::BROADCAST));
        let frame = arp::build_arp(arp::OP_REQUEST, mac, source, MacAddr::ZERO, target.ip(), to);
        self.outgoing.send(target.interface, &frame);
    }

    fn answer_control(&mut self) -> usize {
        let mut count = 0;
        while let Some(pending) = self.server.next() {
            let (request, reply) = pending.into_parts();
            self.handle(request, reply);
            count += 1;
        }
        count
    }

    fn go_on_with_snapshots(&mut self, now_ms: u64) -> usize {
        let (work, adopted) = self.forwarding.go_on(&mut self.events);
        if let Some(adopted) = adopted {
            let compiled = &adopted.compiled;
            self.announcements.retain(|address| compiled.is_announced(address));
            self.resolver.watch(now_ms, compiled.backend_hops.clone());
            adopted.answer();
        }
        self.forwarding.free_former();
        work
    }

    fn look_at_links(&mut self, now_ms: u64) {
        for change in self.ports.look_at_links(now_ms, &self.crew, &mut self.events) {
            self.link_has_changed(now_ms, change);
        }
        self.kernel.tell_of_losses(&mut self.events);
    }

    fn mend_ports(&mut self, now_ms: u64) {
        let clock = || self.clock.now_ns() / 1_000_000;
        for change in self.ports.mend(&mut self.crew, &mut self.events, clock) {
            self.link_has_changed(now_ms, change);
        }
    }

    /// A port's link came up, or it was set up anew; or its link went down.
    fn link_has_changed(&mut self, now_ms: u64, change: LinkChange) {
        let interface = InterfaceId::of(change.port);
        if change.is_up {
            self.resolver.link_up(now_ms, interface);
        }
        self.announcements.link(now_ms, interface, change.is_up);
    }

    fn slow_checks(&mut self) {
        self.ports.look_at_steering(&self.crew, &mut self.events);
        let tables = self.tables();
        for (kind, message) in self.thresholds.check(&tables) {
            self.events.add(kind, message);
        }
        self.forwarding.release_empty(&mut self.events);
        self.events.tell_left_out();
    }

    /// Do what SIGHUP asks for.
    pub fn reload(&mut self, reload: &mut Reload) {
        let Some((kind, message, changes)) = reload.due(&self.config) else { return };
        if let Some(changes) = changes {
            self.adopt_changes(changes);
        }
        self.events.add_about(kind, "", message);
    }

    fn adopt_changes(&mut self, changes: Changes) {
        if let Some(log) = changes.log {
            self.config.runtime.log = log;
        }
        if let Some(routes) = changes.routes {
            self.forwarding.reroute(RouteTable::new(self.config.networks(), &routes));
            self.kernel.reroute(&routes);
            self.config.routes = routes;
        }
    }

    /// The first port that cannot go on.
    pub fn lost_port(&self) -> Option<RunError> {
        let Lost { port, is_exception, fault } = self.ports.lost()?;
        let port = &self.config.ports[port.index()];
        let device = match &port.exception {
            Some(interface) if is_exception => format!("exception port {interface}"),
            _ => port.device.clone(),
        };
        Some(RunError::Port { port: port.name.clone(), device, fault })
    }

    /// The ports as they are now.
    pub fn port_statuses(&self) -> Vec<PortStatus> {
        self.ports.statuses(&self.config.ports, &self.crew)
    }

    /// Stop the workers and the ports, and print what was done.
    pub fn stop(mut self) {
        self.rounds.end();
        self.crew.stop();
        let stats = self.stats();
        self.crew.join();
        self.ports.stop();
        for port in &stats.ports {
            println!(
                "port {}: received {} packets, {} bytes; transmitted {} packets, {} bytes; missed {}",
                port.name,
                port.rx_packets,
                port.rx_bytes,
                port.tx_packets,
                port.tx_bytes,
                port.rx_missed
            );
        }
        let created: u64 = stats.workers.iter().map(|w| w.conns_created).sum();
        let dropped: u64 = stats.drops.values().sum();
        println!("conns made {created}; packets dropped {dropped}");
        for (reason, count) in &stats.drops {
            println!("  {reason} {count}");
        }
        println!("STOPPED");
    }
}
