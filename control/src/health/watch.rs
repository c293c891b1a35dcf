//! Looks at the ways that checks take, and tells the scheduler whenever one opens or closes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::kernel::Kernel;
use super::scheduler::Command;
use super::way::{Contact, Interface, PortInterface, Ways};

/// How often interfaces of exception ports are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Tell the scheduler which ways are open, whenever that changes, as long as somebody tells of the data
/// plane.
pub(super) async fn watch_ways(
    kernel: Kernel,
    mut contact: watch::Receiver<Contact>,
    commands: UnboundedSender<Command>,
) {
    let mut ports: Vec<PortInterface> = Vec::new();
    let mut told = Ways::default();
    let mut looked = Instant::now();
    loop {
        let contact_now = contact.borrow_and_update().clone();
        if let Contact::Answers(interfaces) = &contact_now {
            ports.clone_from(interfaces);
        }
        let before = std::mem::replace(&mut looked, Instant::now());
        let mut interfaces: HashMap<Arc<str>, Interface> = HashMap::with_capacity(ports.len());
        for port in &ports {
            let link_is_down = || format!("the link of port {} is down", port.port);
            let link_fault = port.link_is_down.then(link_is_down);
            let interface = Interface { link_fault, ..kernel.look(port).await };
            interfaces.insert(port.name.clone(), interface);
        }
        let ways = Ways { contact: contact_now, interfaces };
        if ways != told {
            told = ways.clone();
            if commands.send(Command::Ways { ways, since: before }).is_err() {
                return;
            }
        }
        tokio::select! {
            changed = contact.changed() => if changed.is_err() { return },
            () = sleep(LOOK_EVERY), if !ports.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(link_is_down: bool) -> PortInterface {
        let (name, port) = ("sl-lan".into(), "lan".into());
        PortInterface { name, addresses: vec![], port, link_is_down }
    }

    #[tokio::test]
    async fn that_a_ports_link_is_down_is_told_when_it_is_heard() {
        let (contact, contact_now) = watch::channel(Contact::NotMet);
        let (commands, mut told) = tokio::sync::mpsc::unbounded_channel();
        let watching = tokio::spawn(watch_ways(Kernel::unknown(), contact_now, commands));
        for link_is_down in [false, true, false] {
            contact.send_replace(Contact::Answers(vec![port(link_is_down)]));
            let Some(Command::Ways { ways, .. }) = told.recv().await else { panic!("of ways") };
            let fault = ways.interfaces["sl-lan"].link_fault.as_deref();
            assert_eq!(fault, link_is_down.then_some("the link of port lan is down"));
        }
        drop(contact);
        watching.await.unwrap();
    }
}
