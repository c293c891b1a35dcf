//! A program that makes a lab is told to stop, or panics: the lab goes first.

use super::error::{LabError, Result};
use super::site;

/// On SIGINT, SIGTERM, SIGHUP and on a panic, remove the lab, then end. `program` is who says so.
///
/// # Errors
/// Signals cannot be watched.
pub fn clean_up(program: &'static str) -> Result<()> {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default_hook(info);
        site::abandon();
        std::process::exit(101);
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::io("signals"))?;
    let signals = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        Ok([
            (130, signal(SignalKind::interrupt())?),
            (143, signal(SignalKind::terminate())?),
            (129, signal(SignalKind::hangup())?),
        ])
    });
    let [mut int, mut term, mut hup] = signals.map_err(LabError::io("signals"))?;
    std::thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = int.1.recv() => int.0,
                _ = term.1.recv() => term.0,
                _ = hup.1.recv() => hup.0,
            }
        });
        eprintln!("\n{program}: interrupted, removing the lab");
        site::abandon();
        std::process::exit(code);
    });
    Ok(())
}
