//! The body of a request as a JSON value: declared as JSON, bounded, each key once.
//!
//! What clients send at a time is bounded in all: the bytes that are received, and the values that are
//! made of them, which may take many times as much. Reading values is not for the async threads.

use std::cell::Cell;
use std::fmt;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::body::Body as Incoming;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use sluice_api::problems::label;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::HttpProblem;

/// Longest body, in bytes: 100,000 backends.
pub const MAX_BODY: usize = 16 << 20;
/// Longest pause within a body.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Longest time for a whole body.
const MAX_TIME: Duration = Duration::from_secs(60);

/// What bodies are counted in, in bytes.
const UNIT: usize = 64 << 10;
/// Units of bodies that may be received at a time.
const RECEIVING: usize = 4 * UNITS_OF_LONGEST;
const UNITS_OF_LONGEST: usize = MAX_BODY / UNIT;
/// Memory for values, in MiB: that of the longest body.
const VALUES_MIB: usize = memory(MAX_BODY) >> 20;

/// Memory that the values of a body may take, in bytes. Backends of two fields need 23 times what they
/// are written in, other things a hundred times: that is for bodies of some 100 KiB.
const fn memory(bytes: usize) -> usize {
    const FOR_ODD_ONES: usize = 48 << 20;
    let odd = 64 * bytes;
    32 * bytes + if odd < FOR_ODD_ONES { odd } else { FOR_ODD_ONES } + (1 << 20)
}

static BYTES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(RECEIVING)));
static VALUES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(VALUES_MIB)));

type Job = Box<dyn FnOnce() + Send>;

/// A thread that makes values of bodies. One alone: each thread keeps memory that it has freed, for itself.
static READER: LazyLock<Option<Sender<Job>>> = LazyLock::new(|| {
    let (jobs, received) = channel::<Job>();
    let work = move || received.into_iter().for_each(|job| job());
    std::thread::Builder::new().name("bodies".into()).spawn(work).ok().map(|_| jobs)
});

/// The JSON body of a request.
pub struct Body(pub Value);

/// What a request holds of the memory for values, until it is answered.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

/// Lets a request hold memory for the values of its body as long as it is worked at.
pub async fn hold(mut request: Request, next: Next) -> Response {
    let held = Held::default();
    request.extensions_mut().insert(held.clone());
    let response = next.run(request).await;
    drop(held);
    response
}

/// Works at something that takes its time, such that other requests go on meanwhile.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        // As in tests: there is no other thread.
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = HttpProblem;

    async fn from_request(request: Request, _: &S) -> Result<Self, HttpProblem> {
        check_headers(request.headers())?;
        let held = request.extensions().get::<Held>().cloned().unwrap_or_default();
        let (bytes, _received) = receive(request.into_body()).await?;
        let memory = memory(bytes.len());
        let permit = VALUES.clone().acquire_many_owned((memory >> 20) as u32).await;
        // Nobody closes it.
        *held.0.lock().unwrap_or_else(|e| e.into_inner()) = permit.ok();
        let (reply, value) = oneshot::channel();
        let job = move || {
            // The client may have gone.
            let _ = reply.send(parse(&bytes, memory));
        };
        if let Some(reader) = &*READER {
            // Without a reader there is no reply either.
            let _ = reader.send(Box::new(job));
        }
        let lost = |_| HttpProblem::Internal("the thread that reads bodies is gone".to_owned());
        value.await.map_err(lost)?.map(Body)
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT).clamp(1, UNITS_OF_LONGEST)
}

/// The bytes of a body, and what they hold of the memory for bytes.
async fn receive(
    mut body: Incoming,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), HttpProblem> {
    let end = Instant::now() + MAX_TIME;
    let (mut bytes, mut held): (Vec<u8>, Option<OwnedSemaphorePermit>) = (Vec::new(), None);
    loop {
        let frame = timeout_at(end, timeout(MAX_PAUSE, body.frame())).await;
        let frame = match frame.map_err(|_| HttpProblem::Slow)?.map_err(|_| HttpProblem::Slow)? {
            None => return Ok((bytes, held)),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Err(HttpProblem::BadJson(format!("the body ended early: {error}")));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(HttpProblem::TooLarge(format!("a body may have at most {MAX_BODY} bytes")));
        }
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacks = units(bytes.len() + data.len()).saturating_sub(has);
        if lacks > 0 {
            // Who waits here would hold what others wait for.
            let more = BYTES.clone().try_acquire_many_owned(lacks as u32);
            let more = more.map_err(|_| HttpProblem::Busy)?;
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
        }
        bytes.extend_from_slice(&data);
    }
}

/// What can be refused before the body is read.
fn check_headers(headers: &HeaderMap) -> Result<(), HttpProblem> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let declared = text(header::CONTENT_TYPE).unwrap_or("absent");
    if !is_json(declared) {
        return Err(HttpProblem::MediaType(declared.to_owned()));
    }
    let length = text(header::CONTENT_LENGTH).and_then(|l| l.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(HttpProblem::TooLarge(format!("a body may have at most {MAX_BODY} bytes")));
    }
    Ok(())
}

/// Whether a content type declares a body as JSON.
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "application/merge-patch+json")
}

/// JSON with each key once per object: which of two would be meant, nobody knows. Its values may take
/// so many bytes of memory.
fn parse(bytes: &[u8], memory: usize) -> Result<Value, HttpProblem> {
    if bytes.is_empty() {
        return Err(HttpProblem::BadJson("the body is empty: expected a JSON object".to_owned()));
    }
    let left = Cell::new(memory);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(&left).deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| {
        if left.get() == 0 {
            let mib = memory >> 20;
            HttpProblem::TooLarge(format!(
                "the values of the body take more than {mib} MiB of memory: send fewer at a time"
            ))
        } else {
            HttpProblem::BadJson(error.to_string())
        }
    })
}

/// Reads a value; holds how many bytes of memory it may still take.
#[derive(Clone, Copy)]
struct Strict<'m>(&'m Cell<usize>);

impl Strict<'_> {
    fn take<E: Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().saturating_sub(bytes);
        self.0.set(left);
        if left == 0 { Err(E::custom("too much")) } else { Ok(()) }
    }
}

/// Of an element of an array, which grows by doubling.
const ELEMENT: usize = 2 * size_of::<Value>();
/// Of an allocation, beside what is asked for.
const ALLOCATION: usize = 16;
/// Of a node of an object's tree, which has room for eleven entries.
const NODE: usize = 11 * (size_of::<Value>() + size_of::<String>()) + ALLOCATION;

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number out of range"))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.take(text.len() + ALLOCATION)?;
        Ok(Value::from(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            self.take(ELEMENT)?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let key = label(&key);
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            // Nodes that are split are half full.
            if map.len().is_multiple_of(5) {
                self.take(NODE)?;
            }
            self.take(key.len() + ALLOCATION)?;
            map.insert(key, entries.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_column() {
        let text = |body: &str| match parse(body.as_bytes(), 1 << 20) {
            Err(HttpProblem::BadJson(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(text("{\n  \"weight\": }").contains("line 2 column 13"));
        assert!(text("{\"a\": 1, \"a\": 2}").contains("\"a\" stands twice"));
        assert!(text("{} {}").contains("trailing"));
        assert!(text("").contains("empty"));
        let long = format!("{{\"{0}\": 1, \"{0}\": 2}}", "k".repeat(100_000));
        assert!(text(&long).len() < 200);
        let same = r#"{"a":[1,-2,2.5,"x",null,true,{}]}"#;
        assert_eq!(parse(same.as_bytes(), 1 << 20).unwrap().to_string(), same);
    }

    /// What is written in few bytes may take hundreds each.
    #[test]
    fn values_take_no_more_memory_than_they_may() {
        let repeated =
            |what: &str| format!("[{}]", vec![what; MAX_BODY / (what.len() + 1)].join(","));
        for dense in ["{\"\":0}", "{\"\":{\"\":0}}"] {
            match parse(repeated(dense).as_bytes(), memory(MAX_BODY)) {
                Err(HttpProblem::TooLarge(text)) => assert!(text.contains("561 MiB"), "{text}"),
                other => panic!("{dense}: {}", other.is_ok()),
            }
        }
        // 100,000 backends are welcome, also when they say little.
        let backend = r#"{"address":"10.0.0.1","port":80}"#;
        let backends = format!("{{\"backends\":[{}]}}", vec![backend; 100_000].join(","));
        assert!(parse(backends.as_bytes(), memory(backends.len())).is_ok());
    }
}
