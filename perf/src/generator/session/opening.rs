//! Opening the connections of all flows before a run.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Session, slot_of};
use crate::generator::GenError;
use crate::generator::handler::ClientTcp;
use crate::generator::opener::Opener;
use crate::generator::plan::Traffic;
use crate::generator::template::{CLIENT_ISN, Kind, Template};

/// Without an answer for so long, handshakes are tried again.
const OPEN_RETRY: Duration = Duration::from_millis(20);

impl Session {
    /// Open the connections of all flows, where the plan has such. How many are open, and how long
    /// it took.
    ///
    /// # Errors
    /// Some are not open in time.
    pub fn open_connections(&mut self) -> Result<Option<(u32, Duration)>, GenError> {
        if self.plan.traffic != Traffic::Established {
            return Ok(None);
        }
        let syn = Template::new(Kind::TcpSyn, &self.target, 64);
        self.handler.tcp = ClientTcp::Opening(Opener::new(self.plan.flows.len()));
        let start = dpdk_sys::rdtsc();
        let (within, retry) = (self.cycles(self.plan.open_within), self.cycles(OPEN_RETRY));
        let (mut last_open, mut progress_at) = (0, start);
        let (open, elapsed) = loop {
            let now = dpdk_sys::rdtsc();
            let ClientTcp::Opening(opener) = &mut self.handler.tcp else {
                unreachable!("set above")
            };
            let open = opener.open();
            if opener.is_done() || now - start > within || self.stop.load(Relaxed) {
                break (open, Duration::from_secs_f64((now - start) as f64 / self.hz as f64));
            }
            if open > last_open {
                (last_open, progress_at) = (open, now);
            } else if now - progress_at > retry {
                opener.retry();
                progress_at = now;
            }
            while !self.sender.is_full()
                && let Some(flow) = opener.next()
            {
                let slot = slot_of(&self.plan, flow);
                if !self.sender.push(&syn, slot, (CLIENT_ISN, 0), None) {
                    break;
                }
            }
            self.sender.flush_uncounted(&mut self.client.tx);
            self.poll();
        };
        self.drain(Duration::from_millis(50));
        self.handler.tcp = ClientTcp::Passive;
        let flows = self.plan.flows.len();
        if open < flows && self.is_stopped() {
            return Err(GenError::Interrupted);
        }
        if open < flows {
            let seconds = self.plan.open_within.as_secs();
            return Err(GenError::NotOpened { opened: open, flows, seconds });
        }
        Ok(Some((open, elapsed)))
    }
}
