//! Tells how services fare: an event for each one that fares otherwise than was told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::compose;
use crate::derived::{ServiceState, Told};
use crate::events::{Event, EventLog};
use crate::manager::Manager;
use crate::world::World;

/// Least time between two looks at how services fare.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Most time between them: some things become news by waiting.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Look whenever something may have changed, until control stops.
pub async fn tell(manager: Arc<Manager>, mut stopped: watch::Receiver<bool>) {
    let mut worlds = manager.watch();
    let mut told = Told::default();
    loop {
        let world = worlds.borrow_and_update().clone();
        tell_news(&world, &mut told, manager.events());
        // Bursts of changes are looked at together.
        let next = async {
            sleep(TELL_EVERY).await;
            let is_other = |other: &Arc<World>| other.revision != world.revision;
            let _ = timeout(LOOK_AGAIN, worlds.wait_for(is_other)).await;
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = next => {}
        }
    }
}

fn tell_news(world: &World, told: &mut Told, events: &EventLog) {
    told.retain(|name| world.state.service(name).is_some());
    for (service, derived) in compose::services(world) {
        if !told.is_news(&service.name, &derived, Instant::now()) {
            continue;
        }
        let kind = match derived.state {
            ServiceState::Serving => "service-serving",
            ServiceState::Degraded => "service-degraded",
            ServiceState::Down => "service-down",
        };
        let mut message = format!("service {} is {}", service.name, derived.state.word());
        if let Some(reason) = &derived.reason {
            message += &format!(": {reason}");
        }
        events.push(Event::new(kind, message).about(Some(&service.name), None));
    }
}
