//! What happens to a device while its port is open, as drivers and the PCI bus tell it on a thread of
//! DPDK's: it is marked here, by port, and the main thread looks.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Marks of all ports there may be, by DPDK's number.
static MARKS: [AtomicU8; dpdk_sys::RTE_MAX_ETHPORTS as usize] =
    [const { AtomicU8::new(0) }; dpdk_sys::RTE_MAX_ETHPORTS as usize];

const REMOVED: u8 = 1;
const RESET: u8 = 2;
const OTHER_MAC: u8 = 4;

/// Why a port cannot go on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortFault {
    /// The device is to go: its VF is being removed, it is unplugged, another driver is to have it.
    /// The kernel waits until this process lets it go.
    #[error(
        "its device is taken away: the VF is being removed, or another driver is to have it; bring \
         it back, bound to vfio-pci, before the next start"
    )]
    Removed,
    /// The physical function was reset, and its VF does nothing until it is set up anew.
    #[error("its PF was reset")]
    Reset,
    /// It is an interface of the kernel that is no longer there.
    #[error(
        "its kernel interface is gone: it was deleted, or moved to another network namespace; bring it \
         back before the next start"
    )]
    InterfaceGone,
    /// Set up anew, it has another MAC address than everybody was told.
    #[error("its PF has given it another MAC address; the next start takes it")]
    OtherMac,
}

/// Has the port's faults marked, as long as it lives.
pub(super) struct FaultWatch {
    port: u16,
    /// Its device's name, where the bus can take it away.
    device: Option<CString>,
}

impl FaultWatch {
    /// Watch an open port; `device` is DPDK's name of a PCI device. A driver that tells nothing is
    /// no error: there is nothing to learn of it then.
    pub(super) fn start(port: u16, device: Option<&str>) -> FaultWatch {
        MARKS[usize::from(port)].store(0, Relaxed);
        for event in EVENTS {
            // SAFETY: the port exists; the callback lives as long as the program and takes no argument.
            unsafe {
                dpdk_sys::rte_eth_dev_callback_register(
                    port,
                    event,
                    Some(on_port_event),
                    no_argument(),
                )
            };
        }
        let device = device.and_then(|name| CString::new(name).ok());
        if let Some(name) = &device {
            // SAFETY: the name is a C string, which DPDK copies; the argument is a number.
            unsafe {
                let argument = as_argument(port);
                dpdk_sys::rte_dev_event_callback_register(
                    name.as_ptr(),
                    Some(on_device_event),
                    argument,
                )
            };
        }
        FaultWatch { port, device }
    }

    /// What has happened to the port.
    pub(super) fn fault(&self) -> Option<PortFault> {
        match MARKS[usize::from(self.port)].load(Relaxed) {
            marks if marks & REMOVED != 0 => Some(PortFault::Removed),
            marks if marks & OTHER_MAC != 0 => Some(PortFault::OtherMac),
            marks if marks & RESET != 0 => Some(PortFault::Reset),
            _ => None,
        }
    }
}

impl FaultWatch {
    /// The port is about to be set up anew: a reset from here on is another one.
    pub(super) fn forget_reset(&self) {
        MARKS[usize::from(self.port)].fetch_and(!RESET, Relaxed);
    }

    /// That did not work, or there was one that the driver did not tell of.
    pub(super) fn remember_reset(&self) {
        mark(usize::from(self.port), RESET);
    }

    /// Its MAC address has changed.
    pub(super) fn note_other_mac(&self) {
        mark(usize::from(self.port), OTHER_MAC);
    }
}

impl Drop for FaultWatch {
    fn drop(&mut self) {
        for event in EVENTS {
            // SAFETY: as when it was registered; one that is just running ends by itself and touches
            // nothing of ours but a mark.
            unsafe {
                dpdk_sys::rte_eth_dev_callback_unregister(
                    self.port,
                    event,
                    Some(on_port_event),
                    no_argument(),
                )
            };
        }
        if let Some(name) = &self.device {
            // SAFETY: as above.
            unsafe {
                let argument = as_argument(self.port);
                dpdk_sys::rte_dev_event_callback_unregister(
                    name.as_ptr(),
                    Some(on_device_event),
                    argument,
                )
            };
        }
    }
}

/// What drivers tell of their ports.
const EVENTS: [dpdk_sys::rte_eth_event_type; 2] =
    [dpdk_sys::SLUICE_ETH_EVENT_REMOVED, dpdk_sys::SLUICE_ETH_EVENT_RESET];

fn no_argument() -> *mut c_void {
    std::ptr::null_mut()
}

/// A port's number in the place of a pointer, which nobody follows.
fn as_argument(port: u16) -> *mut c_void {
    std::ptr::without_provenance_mut(usize::from(port))
}

fn mark(port: usize, mark: u8) {
    if let Some(marks) = MARKS.get(port) {
        marks.fetch_or(mark, Relaxed);
    }
}

/// On a thread of DPDK's.
unsafe extern "C" fn on_port_event(
    port: u16,
    event: dpdk_sys::rte_eth_event_type,
    _argument: *mut c_void,
    _answer: *mut c_void,
) -> c_int {
    mark(
        usize::from(port),
        if event == dpdk_sys::SLUICE_ETH_EVENT_REMOVED { REMOVED } else { RESET },
    );
    0
}

/// On a thread of DPDK's.
unsafe extern "C" fn on_device_event(
    _device: *const c_char,
    event: dpdk_sys::rte_dev_event_type,
    argument: *mut c_void,
) {
    if event == dpdk_sys::SLUICE_DEV_EVENT_REMOVED {
        mark(argument.addr(), REMOVED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_by_port_and_removal_counts_most() {
        // Numbers that no port of a test has.
        let last = dpdk_sys::RTE_MAX_ETHPORTS as u16 - 1;
        let watch = FaultWatch { port: last, device: None };
        let other = FaultWatch { port: last - 1, device: None };
        assert_eq!(watch.fault(), None);
        // SAFETY: the callbacks read their arguments only.
        unsafe {
            on_port_event(last, dpdk_sys::SLUICE_ETH_EVENT_RESET, no_argument(), no_argument());
        }
        assert_eq!(watch.fault(), Some(PortFault::Reset));
        // SAFETY: as above.
        unsafe {
            let removed = dpdk_sys::SLUICE_DEV_EVENT_REMOVED;
            on_device_event(std::ptr::null(), removed + 1, as_argument(last - 1));
            on_device_event(std::ptr::null(), removed, as_argument(last));
            on_device_event(std::ptr::null(), removed, as_argument(u16::MAX));
        }
        assert_eq!((watch.fault(), other.fault()), (Some(PortFault::Removed), None));
        // Not registered: there is nothing to unregister.
        std::mem::forget((watch, other));
    }
}
