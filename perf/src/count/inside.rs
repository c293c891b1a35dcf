//! The part that runs under callgrind: make a scenario ready, then run what is counted.

use crate::pieces::PIECES;

use super::CountError;
use super::packets::SCENARIOS;

/// The function whose instructions are counted, as callgrind names it.
pub const COUNTED: &str = "sluice_perf::count::inside::counted";

/// All names: scenarios of whole packets, then pieces.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|(name, ..)| *name).chain(PIECES.iter().map(|(name, _)| *name))
}

/// Callgrind counts from here to its end, with all that it calls, and nothing else.
// Never inlined: callgrind looks for its symbol.
#[inline(never)]
pub fn counted(run: &mut dyn FnMut()) {
    run();
}

/// Run a scenario; how many operations were counted, and what an operation is.
pub fn run(name: &str) -> Result<(u64, &'static str), CountError> {
    if let Some((_, unit, run)) = SCENARIOS.iter().find(|(scenario, ..)| *scenario == name) {
        return Ok((run(), unit));
    }
    let Some((_, prepare)) = PIECES.iter().find(|(piece, _)| *piece == name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(CountError::NoScenario { name: name.to_owned(), known });
    };
    let mut piece = prepare();
    (piece.run)(); // as warm as it will ever be: what is touched for the first time is not counted
    counted(&mut piece.run);
    Ok((u64::from(piece.operations), piece.unit))
}
