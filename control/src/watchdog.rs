//! The supervisor's watchdog: told that all is well only while control gets on.
//!
//! What is looked at: the main task, which asks; the publisher's task, which must come round, also
//! while it waits for a data plane that does not answer; and the manager, whose locks must be free in
//! time. A hung data plane or disk is nothing that a restart of control would mend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Time between two beats of a heart.
const BEAT: Duration = Duration::from_millis(100);

/// Beats while its task comes round.
#[derive(Clone, Debug)]
pub struct Heart {
    made: Instant,
    /// When it beat last, in ms since it was made.
    last_ms: Arc<AtomicU64>,
}

impl Default for Heart {
    fn default() -> Self {
        Heart { made: Instant::now(), last_ms: Arc::default() }
    }
}

impl Heart {
    /// Beat as often as the task that polls this comes round. Never ends.
    pub async fn beat(&self) {
        loop {
            let now_ms = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_ms.store(now_ms, Ordering::Relaxed);
            sleep(BEAT).await;
        }
    }

    /// How long ago it beat last.
    fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.made.elapsed().saturating_sub(last)
    }
}

/// Call `tell` thrice within `limit`, the supervisor's patience, while `heart` beats and `probe`, which
/// may block, comes back. Never ends.
pub async fn watch(
    limit: Duration,
    heart: &Heart,
    probe: impl Fn() + Clone + Send + 'static,
    mut tell: impl FnMut(),
) {
    let every = limit / 3;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_told = false;
    loop {
        ticks.tick().await;
        let silence = heart.silence();
        let stuck = if silence > every.max(5 * BEAT) {
            Some(format!("the publisher has not come round for {} ms", silence.as_millis()))
        } else {
            let probed = timeout(every, tokio::task::spawn_blocking(probe.clone())).await;
            (!matches!(probed, Ok(Ok(())))).then(|| "the manager does not answer".to_owned())
        };
        match stuck {
            None => {
                is_told = false;
                tell();
            }
            Some(what) if !is_told => {
                is_told = true;
                tracing::error!("{what}: the supervisor's watchdog is not told that all is well");
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const LIMIT: Duration = Duration::from_millis(300);

    /// How often the supervisor is told within ten times its patience.
    async fn told(
        heart: &Heart,
        is_beating: bool,
        probe: impl Fn() + Clone + Send + 'static,
    ) -> u32 {
        let mut told = 0;
        let watching = watch(LIMIT, heart, probe, || told += 1);
        let beating =
            async { if is_beating { heart.beat().await } else { std::future::pending().await } };
        let _ = timeout(10 * LIMIT, async { tokio::join!(watching, beating) }).await;
        told
    }

    #[tokio::test]
    async fn all_is_well_only_while_everybody_gets_on() {
        let often = told(&Heart::default(), true, || ()).await;
        assert!((20..=31).contains(&often), "{often}");
        // The publisher's task hangs: not told once more after the silence is noticed.
        let at_first = told(&Heart::default(), false, || ()).await;
        assert!(at_first <= 7, "{at_first}");
        // The manager's lock is held by somebody who does not get on.
        let is_held = Arc::new(AtomicBool::new(true));
        let probe = {
            let is_held = is_held.clone();
            move || {
                while is_held.load(Ordering::Relaxed) {
                    std::thread::sleep(BEAT / 10);
                }
            }
        };
        assert_eq!(told(&Heart::default(), true, probe.clone()).await, 0);
        is_held.store(false, Ordering::Relaxed);
        assert!(told(&Heart::default(), true, probe).await >= 20, "it is told again");
    }
}
