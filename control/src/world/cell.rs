//! The one place of the world: who reads takes the newest, who changes it makes the next.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::World;

/// Holds the newest [`World`]. Changes come one after another, under a lock that no reader takes; a
/// reader waits for nothing but the exchange of a pointer.
#[derive(Debug)]
pub struct WorldCell {
    /// Held while the next world is made. What a change calls takes no other lock of control's.
    changing: Mutex<()>,
    newest: watch::Sender<Arc<World>>,
}

impl WorldCell {
    /// With the first one.
    pub fn new(world: World) -> Self {
        WorldCell { changing: Mutex::default(), newest: watch::Sender::new(Arc::new(world)) }
    }

    /// The newest.
    pub fn get(&self) -> Arc<World> {
        self.newest.borrow().clone()
    }

    /// Tells of each one that follows.
    pub fn watch(&self) -> watch::Receiver<Arc<World>> {
        self.newest.subscribe()
    }

    /// Make the next world, unless `change` says that nothing has changed. Returns what it says.
    pub fn change_if(&self, change: impl FnOnce(&mut World) -> bool) -> bool {
        // A panic in another thread leaves a whole world behind: the one before.
        let _changing = self.changing.lock().unwrap_or_else(|e| e.into_inner());
        let mut next = World::clone(&self.get());
        let has_changed = change(&mut next);
        if has_changed {
            self.newest.send_replace(Arc::new(next));
        }
        has_changed
    }

    /// Make the next world, and return it.
    pub fn change(&self, change: impl FnOnce(&mut World)) -> Arc<World> {
        let _changing = self.changing.lock().unwrap_or_else(|e| e.into_inner());
        let mut next = World::clone(&self.get());
        change(&mut next);
        let next = Arc::new(next);
        self.newest.send_replace(next.clone());
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;

    #[test]
    fn changes_come_one_after_another_and_wait_for_no_reader() {
        let cell = WorldCell::new(World::new(State::default(), 0));
        let (first, mut worlds) = (cell.get(), cell.watch());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let made = cell.change(|world| world.generation += 1);
                        assert!(cell.get().generation >= made.generation);
                    }
                });
            }
        });
        assert_eq!((cell.get().generation, first.generation), (2_000, 0), "none was lost");
        assert!(worlds.has_changed().unwrap());
        worlds.mark_unchanged();
        assert!(!cell.change_if(|_| false));
        assert!(!worlds.has_changed().unwrap(), "no news");
        assert!(cell.change_if(|world| !std::mem::replace(&mut world.unconfirmed, true)));
        assert!(worlds.has_changed().unwrap() && cell.get().unconfirmed);
    }
}
