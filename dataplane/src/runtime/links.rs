//! Links of ports that are interfaces of the kernel (AF_XDP, taps, pcap), and of exception ports: DPDK's
//! drivers do not tell when such a link goes, or the interface itself. A thread of its own asks the
//! kernel by rtnetlink, so that the main thread only reads a number.
//!
//! A tap's kernel end may be moved into another network namespace, which is how labs and containers
//! are wired. There it cannot be asked for; that it still exists is what the tap's file descriptor
//! tells (`/proc/self/fdinfo`), and its link counts as up.

use std::fs;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use crate::dpdk::Port;

/// How often the kernel is asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The kernel's number for "No such device".
const ENODEV: i32 = 19;

/// DPDK's name of the driver of taps.
const TAP_DRIVER: &str = "net_tap";

/// An interface to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Whether it is the kernel end of a tap.
    pub is_tap: bool,
}

impl Interface {
    /// The one that a port stands for.
    pub fn of(port: &Port) -> Option<Interface> {
        let index = port.interface()?;
        Some(Interface { index, is_tap: port.driver() == TAP_DRIVER })
    }
}

/// What the kernel says of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KernelLink {
    /// Nothing: it is none, or in another network namespace.
    Unknown,
    /// It is up and has a carrier.
    Up,
    /// It is there, and is not up or has no carrier.
    Down,
    /// It was deleted; or moved into another network namespace, which ends what AF_XDP and pcap do
    /// with it.
    Gone,
}

impl KernelLink {
    /// Whether a port's link is up, by what the kernel says of its interface, or else its driver. A
    /// tap's driver looks in this namespace only.
    pub fn is_up(self, port: &Port) -> bool {
        match self {
            KernelLink::Up => true,
            KernelLink::Down | KernelLink::Gone => false,
            KernelLink::Unknown => port.driver() == TAP_DRIVER || port.link_up(),
        }
    }
}

/// The watch; it ends when this is dropped.
pub struct LinkWatch {
    states: Arc<[AtomicU8]>,
}

impl LinkWatch {
    /// Watch these interfaces; what they are now is known when this returns.
    ///
    /// # Errors
    /// The kernel gives no thread or no rtnetlink socket.
    pub fn start(interfaces: Vec<Option<Interface>>) -> io::Result<LinkWatch> {
        let states: Arc<[AtomicU8]> =
            interfaces.iter().map(|_| AtomicU8::new(KernelLink::Unknown as u8)).collect();
        let watch = LinkWatch { states };
        if interfaces.iter().all(Option::is_none) {
            return Ok(watch);
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let watched = interfaces.into_iter().map(|interface| interface.map(Watched::new)).collect();
        let states = Arc::downgrade(&watch.states);
        let (first, has_looked) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("links".to_owned()).spawn(move || {
            runtime.block_on(look_on(states, watched, first));
        })?;
        has_looked.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(watch)
    }

    /// What the kernel says of the interface with this number.
    pub fn state(&self, number: usize) -> KernelLink {
        match self.states.get(number).map(|state| state.load(Relaxed)) {
            Some(1) => KernelLink::Up,
            Some(2) => KernelLink::Down,
            Some(3) => KernelLink::Gone,
            _ => KernelLink::Unknown,
        }
    }
}

/// The thread: look, note, wait, as long as somebody wants to know.
async fn look_on(
    states: Weak<[AtomicU8]>,
    mut watched: Vec<Option<Watched>>,
    first: std::sync::mpsc::SyncSender<io::Result<()>>,
) {
    let handle = match rtnetlink::new_connection() {
        Ok((connection, handle, _)) => {
            tokio::spawn(connection);
            handle
        }
        Err(error) => return first.send(Err(error)).unwrap_or(()),
    };
    let mut first = Some(first);
    loop {
        for (number, watched) in (0..).zip(&mut watched) {
            let Some(interface) = watched else { continue };
            let Some(link) = interface.look(&handle).await else { continue };
            let Some(states) = states.upgrade() else { return };
            states[number].store(link as u8, Relaxed);
        }
        if let Some(first) = first.take() {
            let _ = first.send(Ok(()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if states.strong_count() == 0 {
            return;
        }
    }
}

/// An interface, and where to look for it.
struct Watched {
    index: u32,
    /// File descriptors of a tap.
    descriptors: Option<Vec<String>>,
    is_tap: bool,
    /// It is in another namespace, where an interface of ours may get its index.
    is_elsewhere: bool,
}

impl Watched {
    fn new(Interface { index, is_tap }: Interface) -> Self {
        Watched { index, descriptors: None, is_tap, is_elsewhere: false }
    }

    /// What is known of it now; none when the kernel did not answer.
    async fn look(&mut self, handle: &Handle) -> Option<KernelLink> {
        if self.is_elsewhere {
            return Some(self.look_by_descriptors());
        }
        let mut links = pin!(handle.link().get().match_index(self.index).execute());
        match links.next().await? {
            Ok(link) => {
                if self.is_tap && self.descriptors.is_none() {
                    self.descriptors = Some(tap_descriptors(name(&link)?));
                }
                let both = LinkFlags::Up | LinkFlags::LowerUp;
                let is_up = link.header.flags.contains(both);
                Some(if is_up { KernelLink::Up } else { KernelLink::Down })
            }
            Err(rtnetlink::Error::NetlinkError(message))
                if message.to_io().raw_os_error() == Some(ENODEV) =>
            {
                self.is_elsewhere = self.is_tap;
                Some(self.look_by_descriptors())
            }
            Err(_) => None,
        }
    }

    /// Of an interface that is not in this namespace.
    fn look_by_descriptors(&self) -> KernelLink {
        match &self.descriptors {
            // Without one that can be read, nothing is known.
            Some(all) if self.is_tap && !all.is_empty() => {
                let lives = all.iter().any(|fd| tap_of(fd).is_none_or(|name| !name.is_empty()));
                if lives { KernelLink::Unknown } else { KernelLink::Gone }
            }
            _ if self.is_tap => KernelLink::Unknown,
            _ => KernelLink::Gone,
        }
    }
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// This process's file descriptors of a tap, by the name of its interface.
fn tap_descriptors(interface: &str) -> Vec<String> {
    let Ok(all) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    all.flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("net/tun")))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|fd| tap_of(fd).as_deref() == Some(interface))
        .collect()
}

/// The interface of a tap's file descriptor, in whatever namespace: empty when it was deleted, none
/// when the kernel does not tell.
fn tap_of(descriptor: &str) -> Option<String> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("iff:")).map(|name| name.trim().to_owned())
}
