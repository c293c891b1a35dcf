//! SIGHUP: the TOML file is read again, and what is new in it is taken over in one change, by the
//! same merge as at a start. A file that is wrong changes nothing.

use crate::actor::{Actor, ReadOn};
use crate::config::{Config, ConfigError};
use crate::events::Event;
use crate::model::ApiProblem;
use crate::model::diff::Difference;
use crate::origin::FileRecord;
use crate::publish::{Fate, Patience};
use crate::server::Server;

impl Server {
    /// Take over what is new in the file, and say in log and events what that is, or why nothing is
    /// taken over.
    pub async fn reload(&self, read: Result<Config, ConfigError>) {
        let events = self.manager.events();
        let actor = Actor::File { read: ReadOn::Signal };
        let refuse = |why: String| {
            let message = format!("the TOML file changes nothing: {why}");
            events.push(Event::new("file-refused", message).by(&actor));
        };
        let config = match read {
            Ok(config) => config,
            Err(error) => return refuse(error.to_string()),
        };
        let fixed = self.config.fixed_at_start(&config);
        let file = FileRecord { services: config.services, pools: config.pools };
        let (manager, no_service) = (self.manager.clone(), config.no_service);
        let reload = tokio::task::spawn_blocking(move || manager.reload(file, no_service));
        let (changes, committed) = match reload.await {
            Ok(Ok(done)) => done,
            Ok(Err(ApiProblem::Invalid(problems))) => {
                let lines: Vec<String> = problems.lines().collect();
                return refuse(format!("it does not go with the state: {}", lines.join("; ")));
            }
            Ok(Err(problem)) => return refuse(problem.to_string()),
            Err(error) => return refuse(format!("internal error: {error}")),
        };
        for field in fixed {
            events.push(Event::new("file-needs-restart", field).by(&actor));
        }
        let lines = changes.iter().flat_map(Difference::lines).count();
        let outcome =
            self.publisher.dataplane.outcome(committed.revision, Patience::default()).await;
        let became = match (outcome.outcome, outcome.reason) {
            (Fate::Applied, _) => format!("applied as generation {}", outcome.generation),
            (Fate::Stored, reason) => {
                format!("stored, not applied: {}", reason.unwrap_or_default())
            }
        };
        let message = match lines {
            0 => "the TOML file was read again: nothing in it is new for services and pools"
                .to_owned(),
            _ => format!("the TOML file was read again: {lines} changes, {became}"),
        };
        events.push(Event::new("file-read", message).by(&actor));
    }
}
