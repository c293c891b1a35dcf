//! What a supervisor is told (sd_notify(3)), from a thread of its own: a supervisor that does not read
//! its socket, as systemd while it is stopped or starts itself anew, holds up nobody.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

/// Messages that wait for one that is on its way; more are lost, as the next one says more.
const WAITING: usize = 4;
/// How long the last ones are waited for at the end.
const FAREWELL: Duration = Duration::from_millis(100);

/// The way to the supervisor, if there is one.
pub struct Supervisor {
    /// Absent only while it is dropped.
    messages: Option<SyncSender<NotifyState<'static>>>,
    /// Disconnected once all is said.
    done: Receiver<()>,
}

impl Supervisor {
    /// Start the thread. `failed` hears of each message that could not be sent.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(failed: impl Fn(io::Error) + Send + 'static) -> io::Result<Supervisor> {
        let (messages, to_say) = mpsc::sync_channel::<NotifyState<'static>>(WAITING);
        let (ending, done) = mpsc::channel::<()>();
        thread::Builder::new().name("supervisor".into()).spawn(move || {
            // Its end is told by its being dropped.
            let _ending = ending;
            for state in to_say {
                if let Err(error) = sd_notify::notify(&[state]) {
                    failed(error);
                }
            }
        })?;
        Ok(Supervisor { messages: Some(messages), done })
    }

    /// Tell it, without waiting for anything.
    pub fn tell(&self, state: NotifyState<'static>) {
        if let Some(messages) = &self.messages {
            // When it does not read, the next message says more than this one.
            let _ = messages.try_send(state);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.messages = None;
        // Either way it ends: all is said, or nobody listens.
        let _ = self.done.recv_timeout(FAREWELL);
    }
}
