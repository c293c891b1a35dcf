//! A question and its answer, and what it means that one takes long.

use std::pin::pin;
use std::time::Duration;

use sluice_api::message::{Request, Response};
use tokio::time::{Instant, timeout};

use super::{Session, SessionError};
use crate::publish::Answer;

/// After so long without an answer the data plane may hang, and health checks wait for it.
const ANSWERING: Duration = Duration::from_millis(300);
/// The same while it applies a snapshot; behind it, it counts as unreachable until it answers.
const APPLYING: Duration = Duration::from_secs(3);

impl Session<'_> {
    pub(super) async fn pass_on(
        &mut self,
        request: Request,
        answer: tokio::sync::oneshot::Sender<Answer>,
    ) -> Result<(), SessionError> {
        if answer.is_closed() {
            return Ok(());
        }
        // Who asked may have given up meanwhile: nobody needs the answer then.
        match self.ask(&request).await {
            Ok(response) => {
                let _ = answer.send(Ok(response));
                Ok(())
            }
            Err(error) => {
                let _ = answer.send(Err(error.to_string()));
                Err(error)
            }
        }
    }

    pub(super) async fn ask(&mut self, request: &Request) -> Result<Response, SessionError> {
        // A snapshot takes its time; all else is answered within a round of the main thread.
        let applying = match request {
            Request::Apply { snapshot } => Some(snapshot.generation),
            Request::Amend { change } => Some(change.generation),
            _ => None,
        };
        let patience = if applying.is_some() { APPLYING } else { ANSWERING };
        let asked = Instant::now();
        let mut is_overdue = false;
        let answer = {
            let mut answer = pin!(self.connection.ask(request));
            match timeout(patience, &mut answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    is_overdue = true;
                    match applying {
                        Some(generation) => self.publisher.is_unreachable(&format!(
                            "has not answered for {} s while it takes generation {generation} over",
                            patience.as_secs()
                        )),
                        None => {
                            let silent = format!("no answer for {} ms", patience.as_millis());
                            self.publisher.is_away(&silent);
                        }
                    }
                    answer.await
                }
            }
        }?;
        if is_overdue && applying.is_some() {
            self.publisher.answers_again(asked.elapsed());
        }
        self.publisher.alive_at = asked;
        match answer {
            Response::Error { message } => Err(SessionError::Refused(message)),
            response => Ok(response),
        }
    }
}
