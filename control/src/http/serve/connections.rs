//! Which connections there are, and which of them makes room for the next.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::Notify;

use super::Patience;

/// A connection, as the others see it.
#[derive(Debug)]
pub(super) struct Entry {
    started: Instant,
    /// When it last began or ended to work at a request, or to wait for the body of one, since it
    /// started.
    since_ms: AtomicU64,
    /// Its request is there, as far as it is needed, and not answered yet.
    pub(super) is_busy: AtomicBool,
    pub(super) close: Notify,
}

impl Entry {
    pub(super) fn mark(&self, is_busy: bool) {
        self.since_ms.store(self.started.elapsed().as_millis() as u64, Relaxed);
        self.is_busy.store(is_busy, Relaxed);
    }

    pub(super) fn for_how_long(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.since_ms.load(Relaxed)))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Connections {
    entries: Arc<Mutex<Vec<Arc<Entry>>>>,
    patience: Patience,
}

impl Connections {
    pub(super) fn new(patience: Patience) -> Self {
        Connections { entries: Arc::default(), patience }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// One more, for which another may have to go; none when all are at work.
    pub(super) fn enter(&self) -> Option<Arc<Entry>> {
        let mut entries = self.entries();
        if entries.len() >= self.patience.connections {
            let may_go = |entry: &Entry| {
                !entry.is_busy.load(Relaxed) || entry.for_how_long() > self.patience.request
            };
            let waits_longest = entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| may_go(entry))
                .max_by_key(|(_, entry)| entry.for_how_long())
                .map(|(index, _)| index)?;
            entries.swap_remove(waits_longest).close.notify_one();
        }
        let entry = Arc::new(Entry {
            started: Instant::now(),
            since_ms: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
            close: Notify::new(),
        });
        entries.push(entry.clone());
        Some(entry)
    }

    pub(super) fn leave(&self, entry: &Arc<Entry>) {
        self.entries().retain(|other| !Arc::ptr_eq(other, entry));
    }
}

/// The body of a request. Until it is whole, or nobody wants the rest, its connection waits for the
/// client.
pub(super) struct Watched {
    body: Incoming,
    entry: Arc<Entry>,
    is_waited_for: bool,
}

impl Watched {
    pub(super) fn new(body: Incoming, entry: Arc<Entry>) -> Self {
        let is_waited_for = !body.is_end_stream();
        entry.mark(!is_waited_for);
        Watched { body, entry, is_waited_for }
    }

    fn no_more(&mut self) {
        if std::mem::take(&mut self.is_waited_for) {
            self.entry.mark(true);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.no_more();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.no_more();
    }
}
