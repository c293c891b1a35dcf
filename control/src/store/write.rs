//! What changed, as rows: nothing is written of what stays as it was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Transaction, named_params};
use serde::Serialize;
use sluice_api::clock::now_ms;
use sluice_api::{Backend, Service};

use super::schema::sum;
use super::{Keep, Revision};
use crate::model::{Changed, HasName, Named, State};

/// One revision: the state before, and the one with it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The state before.
    pub old: Arc<State>,
    /// The state with it, one version on.
    pub new: Arc<State>,
    /// Who, when, what and why.
    pub revision: Revision,
}

/// Of the kinds of rows.
pub(super) const POOL: &str = "pool";
pub(super) const SERVICE: &str = "service";
pub(super) const BACKEND: &str = "backend";

/// Revisions that stay whatever their age: a clock that jumps ahead does not end history.
const LEAST: u64 = 100;

/// Writes the rows of one revision.
pub(super) struct Writer<'t> {
    transaction: &'t Transaction<'t>,
    number: i64,
    /// Places that this revision has given.
    placed: i64,
}

/// A row's holder and name.
type At<'a> = (&'static str, &'a str, &'a str);

pub(super) fn step(transaction: &Transaction, step: &Step) -> rusqlite::Result<()> {
    let Revision { number, at_ms, actor, kind, what, reason } = &step.revision;
    transaction.prepare_cached(
        "INSERT INTO revision(number, at_ms, actor, kind, what, reason) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((*number as i64, *at_ms as i64, json(actor)?, kind, what, reason))?;
    let mut writer = Writer { transaction, number: *number as i64, placed: 0 };
    writer.all(POOL, &step.old.pools, &step.new.pools, |writer, change| {
        writer.part((POOL, "", name(change)), change.before.map(|p| &**p), change.now.map(|p| &**p))
    })?;
    writer.all(SERVICE, &step.old.services, &step.new.services, Writer::service)
}

fn name<'s, T: HasName>(change: &Changed<'s, T>) -> &'s str {
    change.now.or(change.before).map_or("", |one| one.name())
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

/// A service without its backends, which have rows of their own.
fn head(service: &Service) -> Service {
    Service { backends: Vec::new(), ..service.clone() }
}

fn backends(of: Option<&Arc<Service>>) -> &[Backend] {
    of.map_or(&[], |service| &service.backends)
}

impl Writer<'_> {
    /// All resources of a kind, and their order.
    fn all<T: HasName>(
        &mut self,
        kind: &'static str,
        old: &Named<T>,
        new: &Named<T>,
        write: impl Fn(&mut Self, &Changed<T>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        for change in old.changes(new) {
            write(self, &change)?;
        }
        if old.has_order_of(new) {
            return Ok(());
        }
        let names = |all: &Named<T>| all.iter().map(|one| one.name().to_owned()).collect();
        self.order(kind, "", names(old), names(new))
    }

    fn service(&mut self, change: &Changed<Service>) -> rusqlite::Result<()> {
        let name = name(change);
        let [before, now] = [change.before, change.now].map(|s| s.map(|s| head(s)));
        self.part((SERVICE, "", name), before.as_ref(), now.as_ref())?;
        self.backends(name, backends(change.before), backends(change.now))
    }

    fn backends(
        &mut self,
        service: &str,
        old: &[Backend],
        new: &[Backend],
    ) -> rusqlite::Result<()> {
        let has_same_order = old.iter().map(Backend::id).eq(new.iter().map(Backend::id));
        if has_same_order {
            for (before, now) in old.iter().zip(new).filter(|(before, now)| before != now) {
                let id = now.id().to_string();
                self.part((BACKEND, service, &id), Some(before), Some(now))?;
            }
            return Ok(());
        }
        let by_id = |all: &'_ [Backend]| -> HashMap<String, Backend> {
            all.iter().map(|backend| (backend.id().to_string(), backend.clone())).collect()
        };
        let (before, now) = (by_id(old), by_id(new));
        let ids = |all: &[Backend]| -> Vec<String> {
            all.iter().map(|backend| backend.id().to_string()).collect()
        };
        let (old_ids, new_ids) = (ids(old), ids(new));
        for id in old_ids.iter().filter(|id| !now.contains_key(*id)).chain(&new_ids) {
            self.part((BACKEND, service, id), before.get(id), now.get(id))?;
        }
        self.order(BACKEND, service, old_ids, new_ids)
    }

    /// One row's content, behind all others if it is new.
    fn part<T: Serialize + PartialEq>(
        &mut self,
        at: At,
        before: Option<&T>,
        now: Option<&T>,
    ) -> rusqlite::Result<()> {
        match (before, now) {
            (before, now) if before == now => Ok(()),
            (_, None) => self.end(at).map(|_| ()),
            (None, Some(now)) => {
                let place = self.next_place();
                self.begin(at, place, &json(now)?)
            }
            (Some(_), Some(now)) => {
                let (place, _) = self.end(at)?;
                self.begin(at, place, &json(now)?)
            }
        }
    }

    /// Bring rows into another order: those from the first on that stands otherwise than before get places
    /// behind all others. Most often what is new stands last already, and nothing is to be done.
    fn order(
        &mut self,
        kind: &'static str,
        holder: &str,
        old: Vec<String>,
        new: Vec<String>,
    ) -> rusqlite::Result<()> {
        let (was, is): (HashSet<&String>, HashSet<&String>) =
            (old.iter().collect(), new.iter().collect());
        let stayed = old.iter().filter(|name| is.contains(name));
        // As the places are now: what stayed in its order, then what is new in the order of `new`.
        let placed = stayed.chain(new.iter().filter(|name| !was.contains(name)));
        let as_wanted = placed.zip(&new).take_while(|(placed, wanted)| placed == wanted).count();
        for name in &new[as_wanted..] {
            let at = (kind, holder, name.as_str());
            let (_, body) = self.end(at)?;
            let place = self.next_place();
            self.begin(at, place, &body)?;
        }
        Ok(())
    }

    /// Behind all that earlier revisions, and this one, have placed.
    fn next_place(&mut self) -> i64 {
        const PLACES: u32 = 22;
        self.placed += 1;
        (self.number << PLACES) + self.placed
    }

    fn begin(&self, (kind, holder, name): At, place: i64, body: &str) -> rusqlite::Result<()> {
        let mut begin = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO item(kind, holder, name, place, since, body, sum)
             VALUES(:kind, :holder, :name, :place, :since, :body, :sum)",
        )?;
        let since = self.number;
        begin.execute(named_params! {
            ":kind": kind, ":holder": holder, ":name": name, ":place": place, ":since": since,
            ":body": body, ":sum": sum(&[kind, holder, name, &place.to_string(), body]),
        })?;
        Ok(())
    }

    /// End the row that is there now. Returns its place and its content.
    fn end(&self, (kind, holder, name): At) -> rusqlite::Result<(i64, String)> {
        // One that this very revision began was never there, and is replaced.
        let mut end = self.transaction.prepare_cached(
            "UPDATE item SET until = ?4 WHERE kind = ?1 AND holder = ?2 AND name = ?3 AND since = (
                 SELECT max(since) FROM item WHERE kind = ?1 AND holder = ?2 AND name = ?3
             ) RETURNING place, body",
        )?;
        end.query_row((kind, holder, name, self.number), |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

/// Set what is known beside the state.
pub(super) fn meta(transaction: &Transaction, name: &str, value: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO meta(name, value, sum) VALUES(?1, ?2, ?3)")?
        .execute((name, value, sum(&[name, value])))?;
    Ok(())
}

/// Forget revisions beyond what is to be kept, the newest being `number`; by their age too, if asked for, as
/// that takes longer.
pub(super) fn prune(
    transaction: &Transaction,
    keep: Keep,
    number: u64,
    by_age: bool,
) -> rusqlite::Result<()> {
    let mut oldest = (number + 1).saturating_sub(keep.revisions.max(1));
    if by_age {
        let age = u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX);
        let young = transaction.query_row(
            "SELECT min(number) FROM revision WHERE at_ms >= ?1",
            [now_ms().saturating_sub(age) as i64],
            |row| row.get::<_, Option<i64>>(0),
        )?;
        let young = young.map_or(number, |young| young as u64);
        oldest = oldest.max(young.min((number + 1).saturating_sub(LEAST)));
    }
    let oldest = oldest as i64;
    transaction.prepare_cached("DELETE FROM revision WHERE number < ?1")?.execute([oldest])?;
    transaction.prepare_cached("DELETE FROM item WHERE until <= ?1")?.execute([oldest])?;
    Ok(())
}
