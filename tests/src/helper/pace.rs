//! When requests start: as fast as a number of them at a time allows, or at a steady rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::record::{self, Record};

/// First source port that the load takes; ports below are left to others.
pub const FIRST_SOURCE_PORT: u16 = 10_000;

/// How many requests, and how fast.
#[derive(Args, Clone, Debug)]
pub struct Pace {
    /// Requests to make; without it, until stdin is closed.
    #[arg(long)]
    pub requests: Option<u64>,
    /// Requests that may be under way at once.
    #[arg(long, default_value_t = 32)]
    pub concurrency: usize,
    /// Requests to start per second; without it, one starts when another ends.
    #[arg(long)]
    pub rate: Option<u32>,
    /// Source port of the first request; each later one takes the next port.
    #[arg(long, default_value_t = FIRST_SOURCE_PORT)]
    pub first_port: u16,
}

impl Pace {
    /// Start `request` with a new source port each time, as long as the pace says, print what
    /// becomes of each, and wait for those under way.
    pub async fn run<F, R>(self, request: F) -> std::io::Result<()>
    where
        F: Fn(u16, mpsc::UnboundedSender<Record>) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::unbounded_channel();
        let printer = tokio::spawn(record::print(receiver));
        let stop = stop_when_stdin_closes();
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let mut under_way = JoinSet::new();
        let mut ticks = self.rate.map(|rate| {
            let mut ticks = interval_at(Instant::now(), Duration::from_secs(1) / rate.max(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ticks
        });
        let mut port = self.first_port.max(FIRST_SOURCE_PORT);
        for _ in 0..self.requests.unwrap_or(u64::MAX) {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let Ok(slot) = slots.clone().acquire_owned().await else { break };
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let work = request(port, sender.clone());
            port = next_port(port);
            under_way.spawn(async move {
                work.await;
                drop(slot);
            });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
        drop(sender);
        printer.await.map_err(std::io::Error::other)?
    }
}

/// The source port after this one; after the last it starts again at [`FIRST_SOURCE_PORT`].
pub fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(FIRST_SOURCE_PORT)
}

fn stop_when_stdin_closes() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // A thread of its own: reading stdin cannot be cancelled, and must not hold up the end.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        flag.store(true, Ordering::Relaxed);
    });
    stop
}
