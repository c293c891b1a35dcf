//! Load, seen by whoever drives it: a client in its namespace and what it has reported so far.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::error::{LabError, Result};
use super::process::{command, wait_until};
use super::site;
use crate::helper::record::Record;

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The small page of a backend.
    Page,
    /// The large file of a backend, which takes some seconds.
    Big,
    /// An echo over UDP.
    Udp,
}

/// How much load, and where to.
#[derive(Clone, Copy, Debug)]
pub struct LoadSpec {
    /// What to ask for.
    pub kind: Kind,
    /// Where to send it.
    pub target: SocketAddrV4,
    /// The address to send it from.
    pub source: Ipv4Addr,
    /// How many requests; without a number, until [`Load::stop`].
    pub requests: Option<u64>,
    /// How many at once, at most.
    pub concurrency: usize,
    /// How many per second; without a number, as fast as they end.
    pub rate: Option<u32>,
    /// After which time a request has failed, in ms.
    pub timeout_ms: u64,
    /// The source port of the first request.
    pub first_port: u16,
}

/// Load under way.
#[derive(Debug)]
pub struct Load {
    child: Child,
    records: Arc<Mutex<Vec<Record>>>,
    reader: Option<JoinHandle<()>>,
}

impl Load {
    /// Start a client in a namespace. `helper` is the `sluice-lab` binary.
    pub fn start(helper: &Path, netns: &str, spec: &LoadSpec) -> Result<Self> {
        let helper = helper.display().to_string();
        let mut argv = vec![helper];
        let add = |argv: &mut Vec<String>, words: &[&str]| {
            argv.extend(words.iter().map(|word| (*word).to_owned()));
        };
        match spec.kind {
            Kind::Page => add(&mut argv, &["http-load"]),
            Kind::Big => add(&mut argv, &["http-load", "--big"]),
            Kind::Udp => add(&mut argv, &["udp-load"]),
        }
        add(
            &mut argv,
            &["--target", &spec.target.to_string(), "--source", &spec.source.to_string()],
        );
        add(&mut argv, &["--concurrency", &spec.concurrency.to_string()]);
        add(&mut argv, &["--timeout-ms", &spec.timeout_ms.to_string()]);
        add(&mut argv, &["--first-port", &spec.first_port.to_string()]);
        if let Some(requests) = spec.requests {
            add(&mut argv, &["--requests", &requests.to_string()]);
        }
        if let Some(rate) = spec.rate {
            add(&mut argv, &["--rate", &rate.to_string()]);
        }
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let _permission = site::making();
        let mut child = command(netns, &argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(LabError::io("load"))?;
        let records = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stdout.take().map(|stdout| {
            let records = records.clone();
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                    if let Ok(record) = serde_json::from_str::<Record>(&line) {
                        records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
                    }
                }
            })
        });
        Ok(Load { child, records, reader })
    }

    /// What has been reported so far.
    pub fn so_far(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Start no more requests, wait for those under way.
    pub fn stop(mut self, within: Duration) -> Result<Outcome> {
        drop(self.child.stdin.take());
        self.finish(within)
    }

    /// Wait until all requests are done.
    pub fn finish(mut self, within: Duration) -> Result<Outcome> {
        let status = wait_until("the load ended", within, || {
            self.child.try_wait().map_err(LabError::io("load"))
        })?;
        if let Some(reader) = self.reader.take() {
            // The reader ends with the pipe, and does not panic.
            let _ = reader.join();
        }
        if !status.success() {
            let command = "the load client".to_owned();
            return Err(LabError::Command { command, reason: status.to_string() });
        }
        Ok(Outcome { records: self.so_far() })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Ends only what has not ended yet.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// All records, in the order of the requests' ends.
    pub records: Vec<Record>,
}

impl Outcome {
    /// Finished requests, good and bad.
    pub fn done(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.done)
    }

    /// Number of finished requests.
    pub fn total(&self) -> usize {
        self.done().count()
    }

    /// Requests that failed.
    pub fn failed(&self) -> Vec<&Record> {
        self.done().filter(|record| !record.ok()).collect()
    }

    /// Successful requests by backend.
    pub fn by_backend(&self) -> BTreeMap<String, u64> {
        count(self.done())
    }

    /// The errors and how often each came, the most frequent first.
    pub fn errors(&self) -> Vec<(String, usize)> {
        let mut errors: BTreeMap<&str, usize> = BTreeMap::new();
        for record in self.failed() {
            *errors.entry(record.error.as_deref().unwrap_or("unfinished")).or_default() += 1;
        }
        let mut errors: Vec<(String, usize)> =
            errors.into_iter().map(|(error, times)| (error.to_owned(), times)).collect();
        errors.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        errors
    }

    /// The median and the 99th percentile of the time that good requests took, in ms.
    pub fn latency_ms(&self) -> (f64, f64) {
        let mut took: Vec<u64> = self
            .done()
            .filter(|record| record.ok())
            .map(|record| record.end_us.saturating_sub(record.start_us))
            .collect();
        took.sort_unstable();
        let at = |share: f64| {
            let index = (took.len() as f64 * share) as usize;
            took.get(index.min(took.len().saturating_sub(1))).map_or(0.0, |us| *us as f64 / 1_000.0)
        };
        (at(0.5), at(0.99))
    }
}

/// Successful requests by backend.
pub fn count<'r>(records: impl Iterator<Item = &'r Record>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for backend in records.filter(|record| record.ok()).filter_map(|r| r.backend.clone()) {
        *counts.entry(backend).or_default() += 1;
    }
    counts
}
