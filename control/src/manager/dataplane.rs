//! What the data plane tells, and how far publishing to it has come.

use std::sync::Arc;

use sluice_api::clock::now_ms;
use sluice_api::{Problem, Snapshot};

use crate::compose;
use crate::derived::Surroundings;
use crate::model::Environment;
use crate::world::{Link, World};

use super::Manager;

impl Manager {
    /// What the data plane has, for the validation of requests and for what it would not take.
    pub fn set_environment(&self, environment: Environment) {
        self.world.change_if(|world| world.set_environment(environment));
    }

    /// Another data plane judges anew.
    pub fn forget_told_problems(&self) {
        self.world.change_if(World::forget_told_problems);
    }

    /// The data plane told these problems of a snapshot of a version of the state: leave out whose they
    /// are, until the state or the data plane changes. Returns whether the next snapshot has less in it.
    pub fn leave_out(&self, version: u64, problems: &[Problem]) -> bool {
        self.world.change_if(|world| world.leave_out(version, problems))
    }

    /// What is around the data plane changes.
    pub fn set_surroundings(&self, change: impl FnOnce(&mut Surroundings)) {
        self.world.change_if(|world| world.set_surroundings(change));
    }

    /// Take over the health of backends of which nothing is known yet.
    pub fn seed_health(&self, snapshot: &Snapshot) {
        if self.world.change_if(|world| world.seed_health(snapshot, now_ms())) {
            self.set_targets();
        }
    }

    /// Publishing has come on, or was held up.
    pub fn update_link(&self, change: impl FnOnce(&mut Link)) {
        self.world.change(|world| change(Arc::make_mut(&mut world.link)));
    }

    /// Note the generation of a snapshot that is being published; it is stored with the next
    /// commit. The data plane's own generation covers what happens in between.
    pub fn set_generation(&self, generation: u64) {
        self.world.change(|world| world.generation = generation);
    }

    /// Why `wanted`, composed of `world`, must not replace the snapshot in force, if it must not. Once
    /// nothing is lacking, a state of doubtful origin is as good as any: what it takes away from then on
    /// was taken away by somebody.
    pub fn withheld(
        &self,
        world: &World,
        in_force: &Snapshot,
        wanted: &Snapshot,
    ) -> Option<String> {
        if !world.unconfirmed {
            return None;
        }
        let reason = compose::withheld(in_force, wanted);
        if reason.is_none() {
            self.world.change_if(|world| std::mem::take(&mut world.unconfirmed));
        }
        reason
    }
}
