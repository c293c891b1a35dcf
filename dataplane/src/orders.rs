//! What the main thread wants of the workers: to forward, to pause while a port is set up anew, to stop.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backoff::nap;

const FORWARD: u8 = 0;
const PAUSE: u8 = 1;
const STOP: u8 = 2;

/// How often who waits for the other side looks again.
const LOOK: Duration = Duration::from_micros(100);

/// The orders, shared by the main thread and all workers.
#[derive(Debug, Default)]
pub struct Orders {
    order: AtomicU8,
    paused: AtomicUsize,
}

impl Orders {
    /// Whether a worker is to do another round; while the order is to pause, it waits in here. Call it
    /// between rounds, when nothing is polled.
    #[inline]
    pub fn go_on(&self) -> bool {
        // Relaxed: in a round, nothing depends on who has stored it.
        self.order.load(Ordering::Relaxed) == FORWARD || self.wait()
    }

    #[cold]
    fn wait(&self) -> bool {
        // Release: whoever sees the number also sees that the last round is over.
        self.paused.fetch_add(1, Ordering::Release);
        // Acquire: what the main thread did meanwhile comes before the next round.
        while self.order.load(Ordering::Acquire) == PAUSE {
            nap(LOOK);
        }
        self.paused.fetch_sub(1, Ordering::Release);
        self.order.load(Ordering::Acquire) != STOP
    }

    /// Have all workers end.
    pub fn stop(&self) {
        self.order.store(STOP, Ordering::Release);
    }

    /// Have all workers pause, and wait until they do; none when one of them has not `within` this
    /// time, or they are to stop. They go on when the pause is dropped.
    pub fn pause(&self, workers: usize, within: Duration) -> Option<Pause<'_>> {
        let (relaxed, release) = (Ordering::Relaxed, Ordering::Release);
        self.order.compare_exchange(FORWARD, PAUSE, release, relaxed).ok()?;
        let pause = Pause { orders: self };
        let deadline = Instant::now() + within;
        while self.paused.load(Ordering::Acquire) < workers {
            if Instant::now() > deadline {
                return None;
            }
            nap(LOOK);
        }
        Some(pause)
    }
}

/// As long as it lives no worker polls a queue.
#[derive(Debug)]
pub struct Pause<'o> {
    orders: &'o Orders,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.orders.order.store(FORWARD, Ordering::Release);
        // One that is still on its way out must not count as paused the next time.
        while self.orders.paused.load(Ordering::Acquire) > 0 {
            nap(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn no_round_runs_during_a_pause() {
        let (orders, rounds) = (Orders::default(), [const { AtomicU64::new(0) }; 3]);
        let count = || rounds.each_ref().map(|rounds| rounds.load(Ordering::SeqCst));
        std::thread::scope(|scope| {
            for rounds in &rounds {
                scope.spawn(|| {
                    while orders.go_on() {
                        rounds.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                    }
                });
            }
            for _ in 0..20 {
                let pause = orders.pause(3, Duration::from_secs(10)).unwrap();
                let before = count();
                nap(Duration::from_millis(2));
                assert_eq!(count(), before);
                drop(pause);
                while count().iter().zip(before).any(|(now, before)| *now == before) {
                    nap(LOOK);
                }
            }
            orders.stop();
        });
        assert!(orders.pause(0, Duration::ZERO).is_none(), "they are to stop");
    }

    #[test]
    fn a_worker_that_does_not_pause_is_not_waited_for_without_end() {
        let orders = Orders::default();
        assert!(orders.pause(1, Duration::from_millis(5)).is_none());
        assert!(orders.go_on(), "the pause was called off");
    }
}
