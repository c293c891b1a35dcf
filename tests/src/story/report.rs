//! What the story says while it goes, and what it leaves behind: a summary for programs.

use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::io::{self, Write};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use crate::lab::load::Outcome;
use crate::lab::site;

/// What a shell reports of a program that SIGPIPE has ended.
const EXIT_BROKEN_PIPE: i32 = 141;

/// Tells what happens, as it happens, to people; or to nobody.
#[derive(Debug)]
pub struct Narrator {
    start: Instant,
    silent: bool,
}

impl Narrator {
    /// A narrator; a silent one prints nothing.
    pub fn new(silent: bool) -> Self {
        Narrator { start: Instant::now(), silent }
    }

    /// Print a line, with the time since the start.
    pub fn say(&self, text: impl AsRef<str>) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.line(format_args!("[{seconds:6.1} s] {}", text.as_ref()));
    }

    /// Print a line that stands out.
    pub fn headline(&self, text: impl AsRef<str>) {
        self.line(format_args!("\n== {}", text.as_ref()));
    }

    fn line(&self, line: Arguments<'_>) {
        site::wait_if_abandoned();
        if !self.silent && writeln!(io::stdout(), "{line}").is_err() {
            // Whoever listened has gone, as in `scripts/demo | head`: the story is over.
            site::abandon();
            std::process::exit(EXIT_BROKEN_PIPE);
        }
    }
}

/// One step's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its number, from 1.
    pub step: u8,
    /// What it shows.
    pub name: &'static str,
    /// Whether all held that should.
    pub passed: bool,
    /// What was measured; units are in the names.
    pub figures: BTreeMap<String, Value>,
    /// What did not hold.
    pub failures: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// The story's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The steps that ran.
    pub steps: Vec<StepReport>,
    /// Whether all passed.
    pub passed: bool,
    /// Versions of what took part.
    pub versions: BTreeMap<String, String>,
    /// What it ran on.
    pub machine: BTreeMap<String, Value>,
    /// How long all of it took, the lab's making included.
    pub seconds: f64,
}

/// A step under way: it collects figures and what does not hold.
#[derive(Debug)]
pub struct Step<'n> {
    narrator: &'n Narrator,
    start: Instant,
    report: StepReport,
    /// Whether to be content with fewer requests and shorter measurements.
    pub quick: bool,
}

impl<'n> Step<'n> {
    /// Begin a step.
    pub fn begin(narrator: &'n Narrator, step: u8, name: &'static str, quick: bool) -> Self {
        narrator.headline(format!("Step {step}: {name}"));
        let report = StepReport {
            step,
            name,
            passed: false,
            figures: BTreeMap::new(),
            failures: Vec::new(),
            seconds: 0.0,
        };
        Step { narrator, start: Instant::now(), report, quick }
    }

    /// Tell what happens.
    pub fn say(&self, text: impl AsRef<str>) {
        self.narrator.say(text);
    }

    /// Note a measurement.
    pub fn figure(&mut self, name: impl Into<String>, value: impl Serialize) {
        // Figures are numbers, strings and maps of them: these always serialise.
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.report.figures.insert(name.into(), value);
    }

    /// Something that must hold; `claim` says what, with the figures that show it.
    pub fn expect(&mut self, holds: bool, claim: impl Into<String>) {
        let claim = claim.into();
        if holds {
            self.narrator.say(format!("  ok: {claim}"));
        } else {
            self.narrator.say(format!("  FAILED: {claim}"));
            self.report.failures.push(claim);
        }
    }

    /// No request of a load may have failed.
    pub fn expect_none_failed(&mut self, service: &str, outcome: &Outcome) {
        let failed = outcome.failed().len();
        let total = outcome.total();
        self.figure(format!("{service}_requests"), total);
        self.figure(format!("{service}_failed"), failed);
        let mut claim = format!("{service}: {failed} of {total} requests failed");
        for (error, times) in outcome.errors().into_iter().take(3) {
            claim.push_str(&format!("; {times} x {error}"));
        }
        self.expect(failed == 0 && total > 0, claim);
    }

    /// End the step.
    pub fn end(mut self) -> StepReport {
        self.report.seconds = round(self.start.elapsed().as_secs_f64(), 1);
        self.report.passed = self.report.failures.is_empty();
        let word = if self.report.passed { "passed" } else { "FAILED" };
        self.narrator.say(format!("step {} {word}", self.report.step));
        self.report
    }
}

/// A number with so many digits behind the point.
pub fn round(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

/// The summary as people read it.
pub fn print(summary: &Summary) {
    println!("\n== Summary");
    for step in &summary.steps {
        let word = if step.passed { "passed" } else { "FAILED" };
        println!("step {}: {word} in {:5.1} s: {}", step.step, step.seconds, step.name);
        for failure in &step.failures {
            println!("          {failure}");
        }
    }
    let passed = summary.steps.iter().filter(|step| step.passed).count();
    let failed = summary.steps.len() - passed;
    println!("{passed} passed, {failed} failed, in {:.0} s", summary.seconds);
}
