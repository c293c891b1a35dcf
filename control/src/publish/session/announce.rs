//! Who is around is told of new addresses.

use std::net::IpAddr;

use sluice_api::message::{Request, Response};

use super::{Session, SessionError};

impl Session<'_> {
    pub(super) async fn announce(&mut self, announced: &[IpAddr]) -> Result<(), SessionError> {
        let done = self.announcer.done(announced);
        if !done.is_empty() {
            let message = format!("announced {}", listed(&done));
            self.publisher.manager.events().note("announced", message);
        }
        let missing = self.announcer.missing(announced);
        if missing.is_empty() {
            return Ok(());
        }
        let taken = self.send_announce(missing.clone()).await?;
        let refused = self.announcer.asked(&missing, taken);
        if !refused.is_empty() {
            let message = format!("the data plane would not announce {}", listed(&refused));
            self.publisher.manager.events().note("announce-refused", message);
        }
        Ok(())
    }

    async fn send_announce(&mut self, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, SessionError> {
        match self.ask(&Request::Announce { addresses }).await? {
            Response::Announced { addresses } => Ok(addresses),
            _ => Err(SessionError::Confused("announce")),
        }
    }
}

/// Addresses as a sentence of bounded length.
fn listed(addresses: &[IpAddr]) -> String {
    const MOST: usize = 16;
    let first: Vec<String> = addresses.iter().take(MOST).map(IpAddr::to_string).collect();
    match addresses.len().saturating_sub(MOST) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
