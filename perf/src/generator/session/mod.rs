//! One generator on its ports: finds its next hop, opens connections, runs the load.

mod churn;
mod opening;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sluice_dataplane::dpdk::{Clock, Eal};
use sluice_wire::arp;
use sluice_wire::ether::MacAddr;

use super::GenError;
use super::handler::Handler;
use super::link::Link;
use super::order::Slot;
use super::plan::Plan;
use super::sender::Sender;
use super::template::Target;

/// Between two ARP requests for the next hop.
const ARP_EVERY: Duration = Duration::from_millis(200);
/// Longest that the next hop may take to answer.
const ARP_WITHIN: Duration = Duration::from_secs(3);

/// A generator, ready to send.
pub struct Session {
    plan: Plan,
    client: Link,
    server: Option<Link>,
    handler: Handler,
    sender: Sender,
    target: Target,
    hz: u64,
    stop: Arc<AtomicBool>,
}

impl Session {
    /// Open the ports of a plan; [`Session::connect`] comes next. `name` is unique in this process.
    /// Once `stop` is set, everything ends as soon as it can.
    ///
    /// # Errors
    /// There is no such device, or no memory.
    pub fn open(
        eal: &Eal,
        clock: Clock,
        name: &str,
        plan: &Plan,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, GenError> {
        let pool = Link::zeroed_pool(eal, name)?;
        let other = plan.server.as_ref().and_then(|server| server.device.as_ref());
        let behind = (true, other.is_none());
        let client = Link::open(eal, &format!("{name}-client"), &plan.device, behind)?;
        let server = match other {
            Some(device) => {
                Some(Link::open(eal, &format!("{name}-server"), device, (false, true))?)
            }
            None => None,
        };
        let target = Target {
            next_hop: plan.gateway_mac.unwrap_or(MacAddr::ZERO),
            own: client.mac,
            address: *plan.target.ip(),
            port: plan.target.port(),
        };
        Ok(Session {
            handler: Handler::new(plan, clock.hz()),
            // Made anew once the next hop is known.
            sender: Sender::new(plan, &target, pool),
            plan: plan.clone(),
            client,
            server,
            target,
            hz: clock.hz(),
            stop,
        })
    }

    /// Wait until the links are up, and find the next hop.
    ///
    /// # Errors
    /// No link, no answer to ARP, or a rate that is a share of a line of unknown speed.
    pub fn connect(&mut self) -> Result<(), GenError> {
        for link in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            link.wait_up(|| self.stop.load(Relaxed))?;
        }
        // The rate must make sense before anything is sent.
        self.rate_pps()?;
        self.resolve()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn cycles(&self, duration: Duration) -> u64 {
        (duration.as_secs_f64() * self.hz as f64) as u64
    }

    /// Ask for the next hop until it answers.
    fn resolve(&mut self) -> Result<(), GenError> {
        let start = dpdk_sys::rdtsc();
        let (every, within) = (self.cycles(ARP_EVERY), self.cycles(ARP_WITHIN));
        let mut ask_at = 0;
        while self.handler.next_hop.is_none() {
            let elapsed = dpdk_sys::rdtsc() - start;
            if self.is_stopped() {
                return Err(GenError::Interrupted);
            }
            if elapsed > within {
                return Err(GenError::Unresolved {
                    address: self.plan.gateway,
                    device: self.client.device().to_owned(),
                    seconds: ARP_WITHIN.as_secs(),
                });
            }
            if elapsed >= ask_at {
                ask_at = elapsed + every;
                self.ask();
            }
            self.poll();
        }
        self.target.next_hop = self.handler.next_hop.unwrap_or_default();
        let pool = self.sender.pool().clone();
        self.sender = Sender::new(&self.plan, &self.target, pool);
        Ok(())
    }

    fn ask(&mut self) {
        let (mac, from) = (self.client.mac, self.plan.flows.first_address());
        let (zero, all) = (MacAddr::ZERO, MacAddr::BROADCAST);
        let frame = arp::build_arp(arp::OP_REQUEST, mac, from, zero, self.plan.gateway, all);
        // The device may be full: the next request comes soon.
        self.client.send(self.sender.pool(), &frame);
    }

    /// Take what came in by all ports.
    #[inline]
    fn poll(&mut self) -> usize {
        let mut got = self.client.poll(&mut self.handler);
        if let Some(server) = &mut self.server {
            got += server.poll(&mut self.handler);
        }
        got
    }

    /// MAC address of the next hop.
    pub fn next_hop(&self) -> MacAddr {
        self.target.next_hop
    }

    /// Device and driver of each port.
    pub fn devices(&self) -> Vec<String> {
        [Some(&self.client), self.server.as_ref()]
            .into_iter()
            .flatten()
            .map(Link::describe)
            .collect()
    }

    /// The plan's rate in packets per second; none for as fast as it goes.
    ///
    /// # Errors
    /// A share of a line of unknown speed.
    pub fn rate_pps(&self) -> Result<Option<f64>, GenError> {
        let speed = self.client.port.link_speed_mbps();
        self.plan.rate.pps(&self.plan.sizes, speed, self.client.device())
    }

    /// Packets per second that fill the line; none when its speed is unknown.
    pub fn line_pps(&self) -> Option<f64> {
        self.client.port.link_speed_mbps().map(|mbps| self.plan.sizes.line_rate_pps(mbps))
    }

    /// Go on with another plan on the same ports, which must be those of the first: other flows,
    /// sizes or rates.
    pub fn replan(&mut self, plan: &Plan) {
        let next_hop = self.handler.next_hop;
        self.handler = Handler::new(plan, self.hz);
        self.handler.next_hop = next_hop;
        self.plan = plan.clone();
        self.sender = Sender::new(plan, &self.target, self.sender.pool().clone());
    }

    /// Keep taking what comes in for a while.
    pub fn drain(&mut self, duration: Duration) {
        let end = dpdk_sys::rdtsc() + self.cycles(duration);
        while dpdk_sys::rdtsc() < end {
            self.poll();
        }
    }
}

fn slot_of(plan: &Plan, flow: u32) -> Slot {
    let client = plan.flows.client(flow);
    Slot { address: client.address, port: client.port, template: 0 }
}
