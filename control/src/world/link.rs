//! How far publishing has come: what is known of the data plane at the other end of the socket.

use sluice_api::Problem;
use sluice_api::stats::{DataplaneStatus, WorkerStatus};

/// What is known of the data plane.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Whether it answers now.
    pub connected: bool,
    /// Why not, when it does not.
    pub error: Option<String>,
    /// Its last status.
    pub status: Option<DataplaneStatus>,
    /// Generation of the last snapshot that control published or found in force; 0 before.
    pub published: u64,
    /// Revision of the world that was compared last with what is in force, over this connection;
    /// what came of it is told by the other fields. 0 before.
    pub revision: u64,
    /// Why it refused the last snapshot; empty when it did not.
    pub rejected: Vec<Problem>,
    /// Why the desired snapshot is not published at all; see `compose::withheld`.
    pub held: Option<String>,
    /// Whether nobody is to wait for more: control is stopping.
    pub is_over: bool,
}

impl Link {
    /// Why new changes would not reach packets now; `None` when they would.
    pub fn unready(&self) -> Option<String> {
        if !self.connected {
            let why = self.error.as_deref().unwrap_or("not connected yet");
            return Some(format!("dataplane unreachable: {why}"));
        }
        if let Some(reason) = self.refusal().or_else(|| self.held.clone()) {
            return Some(reason);
        }
        match &self.status {
            Some(status) if status.generation > 0 => None,
            _ => Some("the data plane has no snapshot yet".to_owned()),
        }
    }

    /// Why it refused the last snapshot, as a sentence.
    pub fn refusal(&self) -> Option<String> {
        let problem = self.rejected.first()?;
        Some(format!("the data plane refused the last snapshot: {problem}"))
    }
}

/// Which workers have not taken the newest snapshot over.
pub fn pending(status: &DataplaneStatus) -> Option<String> {
    let behind = |worker: &&WorkerStatus| worker.generation < status.generation;
    let behind: Vec<String> = status
        .workers
        .iter()
        .filter(behind)
        .map(|worker| format!("worker {} forwards by {}", worker.worker, worker.generation))
        .collect();
    (!behind.is_empty())
        .then(|| format!("generation {} is pending: {}", status.generation, behind.join(", ")))
}
