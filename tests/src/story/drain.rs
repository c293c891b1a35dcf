//! Step 3: a backend is drained: running downloads finish, new ones go elsewhere.

use std::thread::sleep;
use std::time::Duration;

use crate::helper::record::{Record, now_us};
use crate::lab::Lab;
use crate::lab::error::Result;
use crate::lab::load::Kind;
use crate::lab::process::wait_until;
use crate::lab::servers::BIG_SECONDS;
use crate::lab::topology::backend_address;
use crate::story::report::Step;

const DRAINED: &str = "b1";
const DOWNLOADS: usize = 16;
/// The API answers when the change is stored; the workers follow it within this time.
const ADOPTED_WITHIN: Duration = Duration::from_millis(250);

/// Run the step.
pub fn run(lab: &mut Lab, step: &mut Step) -> Result<()> {
    let id = format!("{}:80", backend_address(1));
    step.say(format!("{DOWNLOADS} downloads through web, each about {BIG_SECONDS} s long …"));
    let mut spec = lab.load_spec("web", Kind::Big);
    (spec.requests, spec.concurrency) = (Some(DOWNLOADS as u64), DOWNLOADS);
    spec.timeout_ms = 60_000;
    let downloads = lab.start_load(&spec)?;
    let on_drained = wait_until("all downloads have begun", Duration::from_secs(10), || {
        let begun = downloads.so_far();
        let here = begun.iter().filter(|record| is_on_drained(record)).count();
        Ok((begun.len() >= DOWNLOADS).then_some(here))
    })?;
    let mut spec = lab.load_spec("web", Kind::Page);
    (spec.rate, spec.concurrency) = (Some(200), 1_000);
    let pages = lab.start_load(&spec)?;
    sleep(Duration::from_secs(1));

    step.say(format!("{on_drained} downloads come from {DRAINED}; sluice backend drain web {id}"));
    lab.cli(&["backend", "drain", "web", &id])?;
    let drained = now_us();
    let outcome = downloads.finish(Duration::from_secs(60))?;
    let undrained = now_us();
    step.say(format!("all downloads have ended; sluice backend up web {id}"));
    lab.cli(&["backend", "up", "web", &id])?;
    let back = wait_until(&format!("{DRAINED} serves again"), Duration::from_secs(5), || {
        let served = pages.so_far().into_iter().filter(is_on_drained);
        Ok(served.map(|record| record.start_us).filter(|start| *start > undrained).min())
    });
    let pages = pages.stop(Duration::from_secs(10))?;

    step.expect_none_failed("downloads", &outcome);
    let finished = outcome
        .done()
        .filter(|record| is_on_drained(record) && record.ok() && record.end_us > drained)
        .count();
    step.figure("downloads_on_drained_backend", on_drained);
    step.figure("downloads_finished_after_drain", finished);
    step.expect(
        on_drained > 0 && finished == on_drained,
        format!(
            "{finished} of {on_drained} downloads from {DRAINED} finished whole after the drain"
        ),
    );
    step.expect_none_failed("web", &pages);
    let window = drained + ADOPTED_WITHIN.as_micros() as u64..undrained;
    let new: Vec<&Record> = pages.done().filter(|r| window.contains(&r.start_us)).collect();
    let strays = new.iter().filter(|record| is_on_drained(record)).count();
    step.figure("new_requests_while_drained", new.len());
    step.figure("new_requests_to_drained_backend", strays);
    step.expect(
        strays == 0 && new.len() > 100,
        format!("{strays} of {} new requests went to {DRAINED} while it was drained", new.len()),
    );
    let back_ms = back?.saturating_sub(undrained) / 1_000;
    step.figure("back_after_ms", back_ms);
    step.expect(true, format!("{DRAINED} took new requests {back_ms} ms after the order"));
    Ok(())
}

fn is_on_drained(record: &Record) -> bool {
    record.backend.as_deref() == Some(DRAINED)
}
