//! How a device spreads packets over its queues: asked for, read back, and set where that helps.
//!
//! Nothing here is taken on trust by the pipeline: it verifies with the first packets.

use dpdk_sys::{
    SLUICE_RSS_IPV4, SLUICE_RSS_IPV4_TCP, SLUICE_RSS_IPV4_UDP, rte_eth_conf, rte_eth_dev_info,
    rte_eth_rss_conf, rte_eth_rss_reta_entry64,
};

use super::PortConfig;
use sluice_path::table::toeplitz::Reta;

/// What must be hashed with addresses and L4 ports.
const BOTH: u64 = SLUICE_RSS_IPV4_TCP | SLUICE_RSS_IPV4_UDP;
/// Longest key that is read from a device, in bytes.
const LONGEST_KEY: usize = 256;
/// Entries of a table that DPDK reads or sets together.
const GROUP: usize = dpdk_sys::SLUICE_RETA_GROUP_SIZE as usize;

/// How a device spreads TCP and UDP over IPv4, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The key of its Toeplitz hash.
    pub key: Box<[u8]>,
    /// Its redirection table: the queue for each value of the hash's lowest bits.
    pub reta: Box<[u16]>,
}

/// Why it is not known how a device spreads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum NoRss {
    #[error("it has one queue")]
    OneQueue,
    #[error("its driver has no RSS here for {0} over IPv4")]
    Types(&'static str),
    #[error("its RSS key can neither be read nor set")]
    Key,
    #[error("it has no RSS table, or one that can neither be read nor set")]
    Table,
}

/// A configuration of RSS to try.
#[derive(Clone, Debug, Default)]
pub(super) struct AskedFor {
    types: u64,
    /// Ours; empty to leave the device its own.
    key: Box<[u8]>,
}

impl AskedFor {
    /// What to try, the best first: the types that the device names, with our key and with its own.
    pub(super) fn in_order(config: &PortConfig, info: &rte_eth_dev_info) -> Vec<AskedFor> {
        let types = (BOTH | SLUICE_RSS_IPV4) & info.flow_type_rss_offloads;
        if config.queues == 1 || types == 0 {
            return Vec::new();
        }
        let ours = config.rss_key.get(..key_bytes(info)).filter(|key| !key.is_empty());
        let ours = ours.map(|key| AskedFor { types, key: key.into() });
        ours.into_iter().chain([AskedFor { types, key: Box::default() }]).collect()
    }

    /// Write it into a configuration, which refers to the bytes that are returned.
    #[must_use]
    pub(super) fn write_to(&self, conf: &mut rte_eth_conf) -> Box<[u8]> {
        let mut key = self.key.clone();
        conf.rxmode.mq_mode = dpdk_sys::SLUICE_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf = rte_eth_rss_conf { rss_hf: self.types, ..Default::default() };
        if !key.is_empty() {
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as u8;
        }
        key
    }
}

/// Find out how a started port spreads, and have it do so evenly.
pub(super) fn find_out(port: u16, config: &PortConfig, asked: &AskedFor) -> Result<Rss, NoRss> {
    if config.queues == 1 {
        return Err(NoRss::OneQueue);
    }
    check_types(asked.types)?;
    let mut info = rte_eth_dev_info::default();
    // SAFETY: the port exists; DPDK fills the struct.
    if unsafe { dpdk_sys::rte_eth_dev_info_get(port, &mut info) } != 0 {
        return Err(NoRss::Table);
    }
    let key_bytes = key_bytes(&info);
    let mut found = read_key(port, key_bytes);
    // Some drivers take no key when they are configured, but do so now.
    let is_other = found.as_ref().is_some_and(|(key, _)| *key != asked.key);
    if is_other && !asked.key.is_empty() && write_key(port, asked) {
        found = read_key(port, key_bytes);
    }
    let key = match found {
        Some((key, types)) => {
            check_types(types)?;
            key
        }
        // It took ours and does not tell.
        None if !asked.key.is_empty() => asked.key.clone(),
        None => return Err(NoRss::Key),
    };
    let reta = even_table(port, usize::from(info.reta_size), config.queues).ok_or(NoRss::Table)?;
    Ok(Rss { key, reta })
}

/// Bytes of a device's key. Drivers that do not say have the 40 that were DPDK's only length once.
fn key_bytes(info: &rte_eth_dev_info) -> usize {
    if info.hash_key_size == 0 { 40 } else { usize::from(info.hash_key_size) }
}

fn check_types(types: u64) -> Result<(), NoRss> {
    match (types & SLUICE_RSS_IPV4_TCP != 0, types & SLUICE_RSS_IPV4_UDP != 0) {
        (true, true) => Ok(()),
        (false, true) => Err(NoRss::Types("TCP")),
        (true, false) => Err(NoRss::Types("UDP")),
        (false, false) => Err(NoRss::Types("TCP and UDP")),
    }
}

/// The key in use and what is hashed by it.
fn read_key(port: u16, key_bytes: usize) -> Option<(Box<[u8]>, u64)> {
    let mut key = [0; LONGEST_KEY];
    // Some drivers refuse a buffer of any other length than that of their key.
    // DPDK 24.11 has a further field.
    #[allow(clippy::needless_update)]
    let mut conf = rte_eth_rss_conf {
        rss_key: key.as_mut_ptr(),
        rss_key_len: key_bytes as u8,
        ..Default::default()
    };
    // SAFETY: the port is configured; there is room for as many bytes as is said, and for more than
    // a driver's key may have that does not look.
    if unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(port, &mut conf) } != 0 {
        return None;
    }
    let key = key.get(..key_bytes)?;
    key.iter().any(|byte| *byte != 0).then(|| (key.into(), conf.rss_hf))
}

/// Whether the device took the key.
fn write_key(port: u16, asked: &AskedFor) -> bool {
    let mut key = asked.key.clone();
    // DPDK 24.11 has a further field.
    #[allow(clippy::needless_update)]
    let mut conf = rte_eth_rss_conf {
        rss_key: key.as_mut_ptr(),
        rss_key_len: key.len() as u8,
        rss_hf: asked.types,
        ..Default::default()
    };
    // SAFETY: the port is started; the key is as long as is said, and copied.
    unsafe { dpdk_sys::rte_eth_dev_rss_hash_update(port, &mut conf) == 0 }
}

/// The redirection table: an even one of our own where the device takes it, or that which it has.
fn even_table(port: u16, len: usize, queues: u16) -> Option<Box<[u16]>> {
    if !(1..=Reta::MOST).contains(&len) {
        return None;
    }
    let even = Reta::even(len, queues);
    let found = read_table(port, len);
    if found.as_ref() == Some(&even) {
        return found;
    }
    match (write_table(port, &even), read_table(port, len)) {
        // What can be read is what counts.
        (_, Some(table)) => Some(table),
        (true, None) => Some(even),
        (false, None) => None,
    }
}

fn read_table(port: u16, len: usize) -> Option<Box<[u16]>> {
    let mut groups = groups(len);
    // SAFETY: the port is started; there are as many entries as is said.
    let status =
        unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(port, groups.as_mut_ptr(), len as u16) };
    let entries = groups.iter().flat_map(|group| group.reta).take(len);
    (status == 0).then(|| entries.collect())
}

/// Whether the device took the table.
fn write_table(port: u16, table: &[u16]) -> bool {
    let mut groups = groups(table.len());
    for (group, entries) in groups.iter_mut().zip(table.chunks(GROUP)) {
        group.reta[..entries.len()].copy_from_slice(entries);
    }
    let len = table.len() as u16;
    // SAFETY: the port is started; there are as many entries as is said, each a queue that it has.
    unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(port, groups.as_mut_ptr(), len) == 0 }
}

/// Room for a table of so many entries, all of which are meant.
fn groups(len: usize) -> Vec<rte_eth_rss_reta_entry64> {
    (0..len)
        .step_by(GROUP)
        .map(|first| rte_eth_rss_reta_entry64 {
            mask: u64::MAX >> (GROUP - (len - first).min(GROUP)),
            reta: [0; GROUP],
        })
        .collect()
}
