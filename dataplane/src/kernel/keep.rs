//! The thread that sets the kernel's side up and keeps it so: what somebody else takes away is put back
//! within a second, and told.
//!
//! It compares, rather than wait for the kernel's notifications: those of a host with a full BGP table
//! would come by the hundred thousand, and may be lost. Who keeps taking things away is not fought
//! without end: after [`PATIENT_LOOKS`] looks in a row that found something missing, it looks every 10 s.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use rtnetlink::Handle;

use super::{KernelError, KernelPort, disable_ipv6, interface, route_message, set_up};
use crate::config::Route;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often while something else undoes what it does.
const LOOK_SELDOM: Duration = Duration::from_secs(10);
/// Looks in a row that find something missing before it looks seldom.
const PATIENT_LOOKS: u32 = 20;
/// Routes that are looked at each time; of more of them, some the next time.
const ROUTES_PER_LOOK: usize = 512;

/// What has become of the kernel's side of a port.
#[derive(Debug)]
pub struct News {
    interface: String,
    /// What was not there any more, and is again.
    put_back: Vec<String>,
    /// What cannot be put back.
    error: Option<KernelError>,
    /// Whether it looks seldom from now on.
    is_fought: bool,
}

impl News {
    /// Kind, subject and sentence of an event.
    pub fn told(&self) -> (&'static str, String, String) {
        const MOST: usize = 8;
        let News { interface, put_back, error, is_fought } = self;
        if let Some(error) = error {
            return ("interface-not-restored", interface.clone(), error.to_string());
        }
        let first = put_back.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
        let more = match put_back.len().saturating_sub(MOST) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let then = if *is_fought {
            format!(
                "; that happens again and again: looked at every {} s now",
                LOOK_SELDOM.as_secs()
            )
        } else {
            String::new()
        };
        let message = format!(
            "{interface}: put back, as something else had taken it away: {first}{more}{then}"
        );
        ("interface-restored", interface.clone(), message)
    }
}

/// The kernel's side of all ports, set up and kept so for as long as this lives.
#[derive(Debug)]
pub struct Keeper {
    news: Receiver<News>,
    routes: Sender<Vec<Route>>,
}

impl Keeper {
    /// Set everything up, and keep it so from then on; none when there is nothing to keep.
    ///
    /// # Errors
    /// The first interface or setting that the kernel refuses.
    pub fn start(
        ports: Vec<KernelPort>,
        routes: Vec<Route>,
    ) -> Result<Option<Keeper>, KernelError> {
        if ports.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(KernelError::Socket)?;
        let (to_main, news) = channel();
        let (to_thread, new_routes) = channel();
        let (first, is_set_up) = sync_channel(1);
        let kept = Kept { ports, routes, from: 0, to_main, new_routes };
        std::thread::Builder::new()
            .name("kernel".to_owned())
            .spawn(move || runtime.block_on(kept.keep(&first)))
            .map_err(KernelError::Socket)?;
        let gone = |_| Err(KernelError::Socket(std::io::ErrorKind::BrokenPipe.into()));
        is_set_up.recv().unwrap_or_else(gone)?;
        Ok(Some(Keeper { news, routes: to_thread }))
    }

    /// What has happened. Never waits.
    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Keep these routes from now on, and take away those that are not among them any more.
    pub fn reroute(&self, routes: Vec<Route>) {
        // It ends only with us, or with the process.
        let _ = self.routes.send(routes);
    }
}

/// The thread's side.
struct Kept {
    ports: Vec<KernelPort>,
    routes: Vec<Route>,
    /// The route that is looked at next.
    from: usize,
    to_main: Sender<News>,
    new_routes: Receiver<Vec<Route>>,
}

impl Kept {
    async fn keep(mut self, first: &SyncSender<Result<(), KernelError>>) {
        let handle = match rtnetlink::new_connection() {
            Ok((connection, handle, _)) => {
                tokio::spawn(connection);
                handle
            }
            Err(error) => return first.send(Err(KernelError::Socket(error))).unwrap_or(()),
        };
        let result = self.set_all_up(&handle).await;
        let is_over = result.is_err();
        if first.send(result).is_err() || is_over {
            return;
        }
        let mut pace = Pace::default();
        loop {
            tokio::time::sleep(pace.until_next()).await;
            match self.new_routes.try_recv() {
                Ok(routes) => self.reroute(&handle, routes).await,
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
            let all = self.look(&handle).await;
            let is_fought = pace.looked(all.iter().any(|news| !news.put_back.is_empty()));
            for news in all {
                if self.to_main.send(News { is_fought, ..news }).is_err() {
                    return;
                }
            }
        }
    }

    async fn set_all_up(&self, handle: &Handle) -> Result<(), KernelError> {
        for port in &self.ports {
            // It has to be there, and not to be up: the kernel speaks IPv6 to neighbours at once, who
            // get no answer through us.
            interface(handle, &port.interface).await?;
            disable_ipv6(&port.interface);
            set_up(handle, port, &self.routes, &mut Vec::new()).await?;
        }
        Ok(())
    }

    /// Put back what is missing; what is to be told.
    async fn look(&mut self, handle: &Handle) -> Vec<News> {
        let to = self.routes.len().min(self.from + ROUTES_PER_LOOK);
        let mut routes = &self.routes[self.from..to];
        let mut all = Vec::new();
        for port in &self.ports {
            let mut put_back = Vec::new();
            let mut error = set_up(handle, port, routes, &mut put_back).await.err();
            if !put_back.is_empty() && error.is_none() {
                // Routes go with the link or with the address that they went by: all of them are due.
                routes = &self.routes;
                error = set_up(handle, port, routes, &mut put_back).await.err();
            }
            if !put_back.is_empty() || error.is_some() {
                let interface = port.interface.clone();
                all.push(News { interface, put_back, error, is_fought: false });
            }
        }
        self.from = if to == self.routes.len() { 0 } else { to };
        all
    }

    async fn reroute(&mut self, handle: &Handle, routes: Vec<Route>) {
        let former = std::mem::replace(&mut self.routes, routes);
        self.from = 0;
        for port in &self.ports {
            let Ok(link) = interface(handle, &port.interface).await else { continue };
            let index = link.header.index;
            let ours = |route: &&Route| super::reaches(port, route.via);
            for route in former.iter().filter(ours).filter(|r| !self.routes.contains(r)) {
                // What is gone already is as it should be.
                let _ = handle.route().del(route_message(route, index)).execute().await;
            }
            let mut set = Vec::new();
            if let Err(error) = set_up(handle, port, &self.routes, &mut set).await {
                let interface = port.interface.clone();
                let news = News { interface, put_back: set, error: Some(error), is_fought: false };
                let _ = self.to_main.send(news);
            }
        }
    }
}

/// When to look next.
#[derive(Debug, Default)]
struct Pace {
    found_in_a_row: u32,
}

impl Pace {
    fn until_next(&self) -> Duration {
        if self.found_in_a_row >= PATIENT_LOOKS { LOOK_SELDOM } else { LOOK_EVERY }
    }

    /// A look has found something missing, or not; whether the next ones are seldom because of it.
    fn looked(&mut self, found: bool) -> bool {
        self.found_in_a_row = if found { self.found_in_a_row.saturating_add(1) } else { 0 };
        self.found_in_a_row == PATIENT_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_away_without_end_is_not_fought_without_end() {
        let mut pace = Pace::default();
        assert!((1..PATIENT_LOOKS).all(|_| !pace.looked(true)));
        assert_eq!(pace.until_next(), LOOK_EVERY);
        assert!(pace.looked(true), "told once");
        assert!(!pace.looked(true));
        assert_eq!(pace.until_next(), LOOK_SELDOM);
        assert!(!pace.looked(false));
        assert_eq!(pace.until_next(), LOOK_EVERY);
    }

    #[test]
    fn what_was_put_back_is_told_in_bounds() {
        let put_back = (0..1_000).map(|n| format!("route {n}")).collect();
        let news = News { interface: "sl-lan".into(), put_back, error: None, is_fought: true };
        let (kind, subject, message) = news.told();
        assert_eq!((kind, subject.as_str()), ("interface-restored", "sl-lan"));
        assert!(message.contains("route 7 and 992 more; that happens again"), "{message}");
        assert!(message.len() < 300, "{message}");
    }
}
