//! What became of a change: in force in the data plane, or stored and why not.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::world::{Link, World, pending};

/// How long a change is waited for unless the client says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(2_000);

/// What became of a change, as `change` in the API's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outcome {
    /// Which of the two.
    pub outcome: Fate,
    /// Generation of the snapshot in force, as far as known; it has the change when applied.
    pub generation: u64,
    /// Why it is not applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Outcome {
    /// What is in force does not have the part that was changed, for this reason if there is one.
    pub fn unless(&mut self, left_out: Option<&str>) {
        if let (Fate::Applied, Some(reason)) = (self.outcome, left_out) {
            self.outcome = Fate::Stored;
            self.reason = Some(reason.to_owned());
        }
    }
}

/// Whether packets are treated by a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// All workers of the data plane forward by it.
    Applied,
    /// It is on disk only.
    Stored,
}

/// How long a client waits to learn what became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// At most so long.
    pub wait: Duration,
    /// Also for a data plane that cannot be reached.
    pub for_unreachable: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { wait: DEFAULT_WAIT, for_unreachable: false }
    }
}

/// What became of all changes up to a revision of the world; `None` while that is open.
fn known(link: &Link, revision: u64) -> Option<Outcome> {
    if !link.connected || link.revision < revision {
        return None;
    }
    if let Some(reason) = link.held.clone().or_else(|| link.refusal()) {
        return Some(stored(link, reason));
    }
    let status = link.status.as_ref()?;
    let is_everywhere = status.workers_generation >= link.published;
    is_everywhere.then_some(Outcome {
        outcome: Fate::Applied,
        generation: link.published,
        reason: None,
    })
}

fn stored(link: &Link, reason: String) -> Outcome {
    Outcome { outcome: Fate::Stored, generation: link.published, reason: Some(reason) }
}

/// Why a change is not applied after so long.
fn overdue(link: &Link, revision: u64, waited: Duration) -> String {
    let late = link.status.as_ref().and_then(pending);
    match link.unready() {
        Some(reason) if !link.connected => reason,
        _ if link.revision < revision => {
            format!("the data plane has not taken it over within {} ms", waited.as_millis())
        }
        Some(reason) => reason,
        None => late.unwrap_or_else(|| "not all workers have taken it over".to_owned()),
    }
}

/// Wait until it is known what became of a revision, as long as `patience` says.
pub async fn outcome(
    mut worlds: watch::Receiver<Arc<World>>,
    revision: u64,
    patience: Patience,
) -> Outcome {
    let end = Instant::now() + patience.wait;
    let is_known = |world: &Arc<World>| {
        let link = &world.link;
        // Without an error it was not looked for yet.
        let is_unreachable = !link.connected && link.error.is_some();
        let is_vain = link.is_over || (is_unreachable && !patience.for_unreachable);
        is_vain || known(link, revision).is_some()
    };
    // Too late, or control is stopping: what is known now is the answer.
    let _ = timeout_at(end, worlds.wait_for(is_known)).await;
    let link = &worlds.borrow().link;
    known(link, revision).unwrap_or_else(|| stored(link, overdue(link, revision, patience.wait)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;
    use sluice_api::Problem;
    use sluice_api::stats::{DataplaneStatus, Limits, WorkerStatus};

    /// A link over which revision 7 has come into force as generation 3.
    fn link() -> Link {
        let worker = WorkerStatus { worker: 1, cpu: 2, generation: 2, stuck_ms: 0 };
        let status = DataplaneStatus {
            version: "test".into(),
            boot_id: 1,
            uptime_ms: 1,
            pid: 1,
            generation: 3,
            workers_generation: 3,
            doubt: None,
            unreachable_changes: 0,
            announced: vec![],
            ports: vec![],
            workers: vec![worker],
            limits: Limits::default(),
        };
        Link { connected: true, status: Some(status), published: 3, revision: 7, ..Link::default() }
    }

    async fn of(link: Link, revision: u64, patience: Patience) -> (Fate, u64, String) {
        // The sender stays, as it does while control runs.
        let world = World { link: Arc::new(link), ..World::new(State::default(), 0) };
        let sender = watch::Sender::new(Arc::new(world));
        let outcome = outcome(sender.subscribe(), revision, patience).await;
        (outcome.outcome, outcome.generation, outcome.reason.unwrap_or_default())
    }

    #[tokio::test]
    async fn a_change_is_applied_once_all_workers_have_it_and_stored_else() {
        let wait = Patience { wait: Duration::from_millis(200), for_unreachable: false };
        assert_eq!(of(link(), 7, wait).await, (Fate::Applied, 3, String::new()));

        let began = Instant::now();
        let late = of(link(), 8, wait).await;
        let expected = "the data plane has not taken it over within 200 ms";
        assert_eq!(late, (Fate::Stored, 3, expected.to_owned()));
        assert!(began.elapsed() >= wait.wait);

        let mut behind = link();
        behind.status.as_mut().unwrap().workers_generation = 2;
        let expected = "generation 3 is pending: worker 1 forwards by 2";
        assert_eq!(of(behind, 7, wait).await, (Fate::Stored, 3, expected.to_owned()));

        let began = Instant::now();
        let refused = Link { rejected: vec![Problem::new("x", 1, "2")], ..link() };
        let expected = "the data plane refused the last snapshot: x is 1: expected 2";
        assert_eq!(of(refused, 7, wait).await, (Fate::Stored, 3, expected.to_owned()));
        let held = Link { held: Some("held".to_owned()), ..link() };
        assert_eq!(of(held, 7, wait).await, (Fate::Stored, 3, "held".to_owned()));
        let gone = Link { connected: false, error: Some("gone".to_owned()), ..link() };
        let expected = (Fate::Stored, 3, "dataplane unreachable: gone".to_owned());
        assert_eq!(of(gone.clone(), 7, wait).await, expected);
        let over = Link { is_over: true, ..link() };
        assert_eq!(of(over, 8, wait).await.0, Fate::Stored);
        assert!(began.elapsed() < wait.wait, "there is nothing to wait for");

        let began = Instant::now();
        assert_eq!(of(gone, 7, Patience { for_unreachable: true, ..wait }).await, expected);
        assert!(began.elapsed() >= wait.wait);
    }
}
