//! States and revisions as rows tell them.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, Row, ToSql};
use serde::de::DeserializeOwned;
use sluice_api::{Backend, Pool, Service};

use super::Revision;
use super::schema::sum;
use super::write::{BACKEND, POOL, SERVICE};
use crate::model::State;

/// Of the rows that are to be read: all that were there at a revision.
const AT: &str = "since <= ?1 AND (until IS NULL OR until > ?1)";

/// Columns of a row that says what something is.
const ROW: &str = "kind, holder, name, place, body, sum";
const HOLDER: usize = 1;
const PLACE: usize = 3;
const BODY: usize = 4;

/// What a row of [`ROW`] says, if it is what was written.
fn body<T: DeserializeOwned>(row: &Row) -> rusqlite::Result<T> {
    let text = |column| -> rusqlite::Result<&str> { Ok(row.get_ref(column)?.as_str()?) };
    let place = row.get::<_, i64>(PLACE)?.to_string();
    let parts = [text(0)?, text(HOLDER)?, text(2)?, &place, text(BODY)?];
    check_sum(row.get(BODY + 1)?, &parts)?;
    read(row, BODY)
}

fn check_sum(written: i64, parts: &[&str]) -> rusqlite::Result<()> {
    if written == sum(parts) {
        return Ok(());
    }
    let wrong = format!("the checksum of {} does not match", parts[..parts.len().min(3)].join(" "));
    Err(rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, wrong.into()))
}

fn read<T: DeserializeOwned>(row: &Row, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}

/// The number of the newest revision; none in a database without any.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let number = "SELECT max(number) FROM revision";
    let number = connection.query_row(number, [], |row| row.get::<_, Option<i64>>(0))?;
    Ok(number.map(|number| number as u64))
}

/// The whole state as it was with a revision.
pub(super) fn state(connection: &Connection, number: u64) -> rusqlite::Result<State> {
    let at = [number as i64];
    let rows =
        |kind| format!("SELECT {ROW} FROM item WHERE kind = '{kind}' AND {AT} ORDER BY place");
    let mut pools = connection.prepare(&rows(POOL))?;
    let pools = pools.query_map(at, body::<Pool>)?.collect::<Result<Vec<_>, _>>()?;
    let mut services = connection.prepare(&rows(SERVICE))?;
    let mut services = services.query_map(at, body::<Service>)?.collect::<Result<Vec<_>, _>>()?;
    let mut places: HashMap<String, usize> = HashMap::with_capacity(services.len());
    for (place, service) in services.iter().enumerate() {
        places.insert(service.name.clone(), place);
    }
    let mut backends = connection.prepare(&rows(BACKEND))?;
    let mut backends = backends.query(at)?;
    while let Some(row) = backends.next()? {
        if let Some(place) = places.get(row.get_ref(HOLDER)?.as_str()?) {
            services[*place].backends.push(body::<Backend>(row)?);
        }
    }
    services.iter_mut().for_each(|service| service.backends.shrink_to_fit());
    Ok(State { version: number, services: services.into(), pools: pools.into() })
}

/// Two states less what is the same in both: of services that differ, only the backends that do. It takes as
/// long as there are differences.
pub(super) fn differing(
    connection: &Connection,
    one: u64,
    other: u64,
) -> rusqlite::Result<(State, State)> {
    let (first, last) = (one.min(other) as i64, one.max(other) as i64);
    let mut changed = connection.prepare(
        "SELECT DISTINCT kind, holder, name FROM item WHERE since > ?1 AND since <= ?2
         UNION SELECT kind, holder, name FROM item WHERE until > ?1 AND until <= ?2",
    )?;
    let mut changed = changed.query([first, last])?;
    let (mut pools, mut services, mut backends) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    while let Some(row) = changed.next()? {
        let (kind, holder, name): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        match kind.as_str() {
            POOL => {
                pools.insert(name);
            }
            SERVICE => {
                services.insert(name);
            }
            _ => {
                services.insert(holder.clone());
                backends.insert((holder, name));
            }
        }
    }
    let at = |number: u64| -> rusqlite::Result<State> {
        let part = Part { connection, number: number as i64 };
        let mut of: HashMap<&str, Vec<(i64, Backend)>> = HashMap::new();
        for (service, id) in &backends {
            if let Some(found) = part.one(BACKEND, service, id)? {
                of.entry(service).or_default().push(found);
            }
        }
        let mut found = Vec::new();
        for name in &services {
            let Some((place, mut service)) = part.one::<Service>(SERVICE, "", name)? else {
                continue;
            };
            let mut own = of.remove(name.as_str()).unwrap_or_default();
            own.sort_by_key(|(place, _)| *place);
            service.backends = own.into_iter().map(|(_, backend)| backend).collect();
            found.push((place, service));
        }
        found.sort_by_key(|(place, _)| *place);
        let services: Vec<Service> = found.into_iter().map(|(_, service)| service).collect();
        let pools = pools.iter().map(|name| part.one::<Pool>(POOL, "", name));
        let mut pools: Vec<_> = pools.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        pools.sort_by_key(|(place, _)| *place);
        let pools: Vec<Pool> = pools.into_iter().map(|(_, pool)| pool).collect();
        Ok(State { version: number, services: services.into(), pools: pools.into() })
    };
    Ok((at(one)?, at(other)?))
}

/// Rows as they were with a revision.
struct Part<'c> {
    connection: &'c Connection,
    number: i64,
}

impl Part<'_> {
    /// One row with its place, if it was there.
    fn one<T: DeserializeOwned>(
        &self,
        kind: &str,
        holder: &str,
        name: &str,
    ) -> rusqlite::Result<Option<(i64, T)>> {
        let mut one = self.connection.prepare_cached(&format!(
            "SELECT {ROW} FROM item WHERE {AT} AND kind = ?2 AND holder = ?3 AND name = ?4"
        ))?;
        let at: [&dyn ToSql; 4] = [&self.number, &kind, &holder, &name];
        one.query_row(&at[..], |row| Ok((row.get(PLACE)?, body(row)?))).optional()
    }
}

/// Revisions before one, newest first.
pub(super) fn revisions(
    connection: &Connection,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<Vec<Revision>> {
    let mut page = connection.prepare_cached(
        "SELECT number, at_ms, actor, kind, what, reason FROM revision WHERE number < ?1
         ORDER BY number DESC LIMIT ?2",
    )?;
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    page.query_map((before, limit as i64), revision_of)?.collect()
}

/// One revision, if it is kept.
pub(super) fn revision(connection: &Connection, number: u64) -> rusqlite::Result<Option<Revision>> {
    let Ok(number) = i64::try_from(number) else { return Ok(None) };
    let mut one = connection.prepare_cached(
        "SELECT number, at_ms, actor, kind, what, reason FROM revision WHERE number = ?1",
    )?;
    one.query_row([number], revision_of).optional()
}

fn revision_of(row: &Row) -> rusqlite::Result<Revision> {
    Ok(Revision {
        number: row.get::<_, i64>(0)? as u64,
        at_ms: row.get::<_, i64>(1)? as u64,
        actor: read(row, 2)?,
        kind: row.get(3)?,
        what: row.get(4)?,
        reason: row.get(5)?,
    })
}

/// What is known beside the state.
pub(super) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let mut value = connection.prepare_cached("SELECT value, sum FROM meta WHERE name = ?1")?;
    let value = value.query_row([name], |row| {
        let value: String = row.get(0)?;
        check_sum(row.get(1)?, &[name, &value])?;
        Ok(value)
    });
    value.optional()
}
