//! SIGHUP: the file is read again, by a thread of its own, as its disk may stall. What may change while
//! the data plane runs does, routes and what is logged, and the log says what; what is read at start only
//! is named. A file that is wrong changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use crate::config::{Config, ConfigError, Prefix, Route, Runtime};
use sluice_path::ids::InterfaceId;

/// Sets what is logged.
type LogBy = Box<dyn Fn(&str) -> Result<(), String>>;

/// What SIGHUP does.
pub struct Reload {
    path: PathBuf,
    is_asked_for: Arc<AtomicBool>,
    log_by: LogBy,
    reading: Option<Receiver<Result<Config, ConfigError>>>,
}

impl Reload {
    /// Of this file, when the flag is set; `log_by` sets what is logged.
    pub fn new(
        path: &Path,
        is_asked_for: Arc<AtomicBool>,
        log_by: impl Fn(&str) -> Result<(), String> + 'static,
    ) -> Self {
        let log_by = Box::new(log_by);
        Reload { path: path.to_owned(), is_asked_for, log_by, reading: None }
    }

    /// What has been read, once it is. One that is asked for while another is read comes after it.
    fn read(&mut self) -> Option<Result<Config, ConfigError>> {
        if self.reading.is_none() && self.is_asked_for.swap(false, Relaxed) {
            let (done, reading) = sync_channel(1);
            let path = self.path.clone();
            let read = move || {
                let _ = done.send(Config::load(&path));
            };
            match std::thread::Builder::new().name("reload".into()).spawn(read) {
                Ok(_) => self.reading = Some(reading),
                Err(error) => tracing::error!(%error, "SIGHUP: the file cannot be read"),
            }
        }
        let result = match self.reading.as_ref()?.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => None,
        };
        self.reading = None;
        result
    }
}

impl Reload {
    /// What SIGHUP leads to, once the file has been read: an event, and what is different from how we
    /// run, if anything may be. What is logged is set already.
    pub fn due(&mut self, running: &Config) -> Option<(&'static str, String, Option<Changes>)> {
        let result = self.read()?;
        let path = self.path.display();
        let refused = |reason: String| {
            ("config-refused", format!("SIGHUP: nothing is changed: {reason}"), None)
        };
        Some(match result.map(|new| Changes::between(running, &new)) {
            Err(error) => refused(error.to_string()),
            Ok(Err(reason)) => refused(format!("{path}: {reason}")),
            Ok(Ok(changes)) => match changes.log.as_ref().map(|text| (self.log_by)(text)) {
                Some(Err(reason)) => refused(format!("{path}: {reason}")),
                _ => {
                    let message = format!("SIGHUP: {path}: {}", changes.in_words());
                    ("config-reloaded", message, Some(changes))
                }
            },
        })
    }
}

/// What is different in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// What is logged from now on.
    pub log: Option<String>,
    /// All routes from now on.
    pub routes: Option<Vec<Route>>,
    /// Routes that are new, and that are gone.
    added: Vec<Route>,
    removed: Vec<Route>,
    /// What else is different, and is read at start only.
    at_start_only: Vec<String>,
}

impl Changes {
    /// # Errors
    /// A route for which the ports that run have no network.
    fn between(now: &Config, new: &Config) -> Result<Changes, String> {
        // The ports are those of the start, which the new file may name in another order.
        let networks: Vec<(InterfaceId, Prefix)> = now.networks().collect();
        let reach = |route: &Route| {
            let has_it = networks.iter().filter(|(_, network)| network.has_host(route.via));
            let (interface, _) = has_it.max_by_key(|(_, network)| network.prefix_len())?;
            Some(Route { interface: *interface, ..*route })
        };
        let routes: Vec<Route> = new
            .routes
            .iter()
            .map(|route| {
                reach(route).ok_or_else(|| {
                    format!(
                        "route[{}].via is {}: expected a host in a network of a port that runs, as \
                         ports are read at start only",
                        route.destination, route.via
                    )
                })
            })
            .collect::<Result<_, _>>()?;
        let added = routes.iter().filter(|route| !now.routes.contains(route)).copied().collect();
        let removed = now.routes.iter().filter(|route| !routes.contains(route)).copied().collect();
        let mut at_start_only = Vec::new();
        let runtime = Runtime { log: now.runtime.log.clone(), ..new.runtime.clone() };
        let sections = [
            (runtime != now.runtime, "[runtime]"),
            (new.control != now.control, "[control]"),
            (new.limits != now.limits, "[limits]"),
            (new.exception != now.exception, "[exception]"),
            (new.ports != now.ports, "[[port]]"),
        ];
        for (_, name) in sections.into_iter().filter(|(differs, _)| *differs) {
            at_start_only.push(name.to_owned());
        }
        Ok(Changes {
            log: (new.runtime.log != now.runtime.log).then(|| new.runtime.log.clone()),
            routes: (routes != now.routes).then_some(routes),
            added,
            removed,
            at_start_only,
        })
    }

    /// For people.
    fn in_words(&self) -> String {
        const MOST: usize = 16;
        let route =
            |sign, route: &Route| format!("{sign} route {} via {}", route.destination, route.via);
        let mut words: Vec<String> = self.removed.iter().map(|r| route('-', r)).collect();
        words.extend(self.added.iter().map(|r| route('+', r)));
        let more = words.len().saturating_sub(MOST);
        words.truncate(MOST);
        if more > 0 {
            words.push(format!("and {more} more routes"));
        }
        if let Some(log) = &self.log {
            let instead = if sluice_log::is_from_environment() {
                ", but RUST_LOG says otherwise"
            } else {
                ""
            };
            words.push(format!("runtime.log is {log:?}{instead}"));
        }
        if words.is_empty() {
            words.push("nothing is changed".to_owned());
        }
        if !self.at_start_only.is_empty() {
            let sections = self.at_start_only.join(", ");
            words.push(format!("{sections} differs, which takes a restart"));
        }
        words.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [runtime]
        log = "info"
        [[port]]
        name = "lan"
        device = "d0"
        addresses = ["10.0.0.1/24"]
        [[port]]
        name = "wan"
        device = "d1"
        addresses = ["192.0.2.1/24"]
        [[route]]
        destination = "0.0.0.0/0"
        via = "192.0.2.254"
        [[route]]
        destination = "172.16.0.0/12"
        via = "10.0.0.254"
    "#;

    fn changes(from: &str, to: &str) -> Result<Changes, String> {
        assert!(FILE.contains(from), "{from}");
        let parse = |text: &str| Config::parse(text, &[0]).unwrap();
        Changes::between(&parse(FILE), &parse(&FILE.replacen(from, to, 1)))
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let same = changes("info", "info").unwrap();
        assert_eq!((same.log.clone(), same.routes.clone()), (None, None));
        assert_eq!(same.in_words(), "nothing is changed");
    }

    #[test]
    fn routes_and_log_are_told_as_a_diff() {
        let routes = changes("172.16.0.0/12", "172.20.0.0/16").unwrap();
        assert_eq!(routes.routes.as_ref().unwrap().len(), 2);
        assert_eq!(
            routes.in_words(),
            "- route 172.16.0.0/12 via 10.0.0.254; + route 172.20.0.0/16 via 10.0.0.254"
        );
        let log = changes("info", "debug").unwrap();
        assert_eq!((log.log.as_deref(), log.routes.as_ref()), (Some("debug"), None));
        assert!(log.in_words().starts_with("runtime.log is \"debug\""));
    }

    #[test]
    fn what_is_read_at_start_only_is_named_and_left() {
        let limits = changes("[runtime]", "[limits]\nservices = 7\n[runtime]").unwrap();
        assert_eq!(
            limits.in_words(),
            "nothing is changed; [limits] differs, which takes a restart"
        );
        // A port that is not there yet, and a route by it.
        let moved = changes("10.0.0.1/24", "10.0.0.1/16").unwrap();
        assert_eq!((moved.routes, moved.at_start_only), (None, vec!["[[port]]".to_owned()]));
    }

    #[test]
    fn a_route_by_a_network_that_no_port_has_yet_changes_nothing() {
        let from = "addresses = [\"10.0.0.1/24\"]";
        let text = FILE.replacen(from, "addresses = [\"10.0.0.1/24\", \"10.9.0.1/24\"]", 1);
        let text = text.replacen("10.0.0.254", "10.9.0.254", 1);
        let parse = |text: &str| Config::parse(text, &[0]).unwrap();
        let error = Changes::between(&parse(FILE), &parse(&text)).unwrap_err();
        assert!(
            error.starts_with("route[172.16.0.0/12].via is 10.9.0.254: expected a host"),
            "{error}"
        );
    }
}
