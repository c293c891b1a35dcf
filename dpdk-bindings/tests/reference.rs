//! The native Rust burst calls and mbuf accessors do what DPDK's own inline functions do.
//!
//! Runs without hugepages, without a NIC and without root: two rings stand for the wire. EAL starts
//! once per process, so this file is one test.

use std::ffi::{CString, c_char};
use std::ptr;

use dpdk_sys::{self as dpdk, mbuf, rte_mbuf, rte_mempool};

const LOOPBACK: &std::ffi::CStr = c"net_ring0";
const BURST: u16 = 32;

type BurstFn = unsafe fn(u16, u16, *mut *mut rte_mbuf, u16) -> u16;

unsafe fn c_rx(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, count: u16) -> u16 {
    // SAFETY: the same contract as rx_burst's, which the caller keeps.
    unsafe { dpdk::sluice_eth_rx_burst(port, queue, mbufs, count) }
}

unsafe fn c_tx(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, count: u16) -> u16 {
    // SAFETY: the same contract as tx_burst's, which the caller keeps.
    unsafe { dpdk::sluice_eth_tx_burst(port, queue, mbufs, count) }
}

#[test]
fn rust_and_c_agree() {
    start_eal();
    let pool = make_pool();
    let port = start_loopback(pool);
    accessors_agree(pool);
    let rx: [(&str, BurstFn); 2] = [("rust", dpdk::rx_burst), ("c", c_rx)];
    let tx: [(&str, BurstFn); 2] = [("rust", dpdk::tx_burst), ("c", c_tx)];
    for (rx_name, rx) in rx {
        for (tx_name, tx) in tx {
            burst_goes_round(pool, port, rx, tx, &format!("rx {rx_name}, tx {tx_name}"));
        }
    }
    full_ring_refuses_the_same(pool, port);
    clocks_agree();
    // SAFETY: the pool is live.
    assert_eq!(unsafe { dpdk::rte_mempool_in_use_count(pool) }, 0, "every mbuf came back");
    // SAFETY: the port was started above and nobody polls it any more.
    unsafe {
        assert_eq!(dpdk::rte_eth_dev_stop(port), 0);
        assert_eq!(dpdk::rte_eth_dev_close(port), 0);
        assert_eq!(dpdk::rte_eal_cleanup(), 0);
    }
}

fn start_eal() {
    // no-shconf: no files and locks that runs side by side would share.
    let words = "test --no-huge -m 64 --no-pci --no-telemetry --no-shconf --vdev=net_ring0";
    let words: Vec<CString> = words.split(' ').map(|word| CString::new(word).unwrap()).collect();
    let mut argv: Vec<*mut c_char> = words.iter().map(|w| w.as_ptr().cast_mut()).collect();
    // SAFETY: argv holds argc C strings that outlive the call; EAL starts once in this process.
    let parsed = unsafe { dpdk::rte_eal_init(argv.len() as i32, argv.as_mut_ptr()) };
    assert!(parsed >= 0, "rte_eal_init: {parsed}");
}

fn make_pool() -> *mut rte_mempool {
    let any = dpdk::SLUICE_SOCKET_ID_ANY;
    // SAFETY: EAL is up and the name is a C string.
    let pool =
        unsafe { dpdk::sluice_pktmbuf_pool_create(c"test".as_ptr(), 4095, 64, 2048 + 128, any, 1) };
    assert!(!pool.is_null());
    // SAFETY: the pool was just made.
    assert_eq!(unsafe { dpdk::sluice_pktmbuf_data_room_size(pool) }, 2048 + 128);
    pool
}

fn start_loopback(pool: *mut rte_mempool) -> u16 {
    let mut port = 0;
    let config = dpdk::rte_eth_conf::default();
    let any = dpdk::SLUICE_SOCKET_ID_ANY as u32;
    // SAFETY: EAL is up, all pointers are live; null configurations ask for the driver's defaults.
    unsafe {
        assert_eq!(dpdk::rte_eth_dev_get_port_by_name(LOOPBACK.as_ptr(), &mut port), 0);
        assert_eq!(dpdk::rte_eth_dev_configure(port, 1, 1, &config), 0);
        assert_eq!(dpdk::rte_eth_rx_queue_setup(port, 0, 512, any, ptr::null(), pool), 0);
        assert_eq!(dpdk::rte_eth_tx_queue_setup(port, 0, 512, any, ptr::null()), 0);
        assert_eq!(dpdk::rte_eth_dev_start(port), 0);
        assert_eq!(dpdk::sluice_eth_link_up(port), 1);
    }
    port
}

fn alloc(pool: *mut rte_mempool, count: u16) -> Vec<*mut rte_mbuf> {
    let mut mbufs = vec![ptr::null_mut(); usize::from(count)];
    // SAFETY: the vector has room for count pointers.
    let status =
        unsafe { dpdk::sluice_pktmbuf_alloc_bulk(pool, mbufs.as_mut_ptr(), u32::from(count)) };
    assert_eq!(status, 0);
    mbufs
}

fn assert_same(mbuf: *mut rte_mbuf) {
    // SAFETY: the mbuf is live and this thread owns it.
    unsafe {
        assert_eq!(mbuf::data(mbuf).cast(), dpdk::sluice_pktmbuf_mtod(mbuf));
        assert_eq!(mbuf::data_len(mbuf), dpdk::sluice_pktmbuf_data_len(mbuf));
        assert_eq!(mbuf::pkt_len(mbuf), dpdk::sluice_pktmbuf_pkt_len(mbuf));
        assert_eq!(mbuf::nb_segs(mbuf), dpdk::sluice_mbuf_nb_segs(mbuf));
        assert_eq!(mbuf::port(mbuf), dpdk::sluice_mbuf_port(mbuf));
        assert_eq!(mbuf::ol_flags(mbuf), dpdk::sluice_mbuf_ol_flags(mbuf));
        assert_eq!(mbuf::refcnt(mbuf), dpdk::sluice_mbuf_refcnt(mbuf));
        assert_eq!(mbuf::hash_usr(mbuf), dpdk::sluice_mbuf_hash_usr(mbuf));
        assert_eq!(mbuf::data_off(mbuf), dpdk::sluice_pktmbuf_headroom(mbuf));
        let tailroom = mbuf::data_room(mbuf) - mbuf::data_len(mbuf);
        assert_eq!(tailroom, dpdk::sluice_pktmbuf_tailroom(mbuf));
    }
}

fn accessors_agree(pool: *mut rte_mempool) {
    let mbufs = alloc(pool, 3);
    assert_same(mbufs[0]);
    // SAFETY: the mbufs are live and this thread owns them; the lengths fit the data room.
    unsafe {
        assert_eq!(mbuf::data_off(mbufs[0]), dpdk::SLUICE_PKTMBUF_HEADROOM as u16);
        let flags = dpdk::SLUICE_MBUF_F_RX_IP_CKSUM_GOOD | dpdk::SLUICE_MBUF_F_RX_L4_CKSUM_BAD;
        dpdk::sluice_mbuf_fill(mbufs[0], 77, 1003, 1003, 0x1234, flags, 0xdead_beef);
        assert_same(mbufs[0]);
        assert_eq!(mbuf::data_len(mbufs[0]), 1003);
        assert_eq!(mbuf::ol_flags(mbufs[0]), flags);

        mbuf::set_data_len(mbufs[1], 60);
        mbuf::set_pkt_len(mbufs[1], 60);
        mbuf::set_port(mbufs[1], 9);
        mbuf::set_hash_usr(mbufs[1], 0x8765_4321);
        assert_same(mbufs[1]);
        assert_eq!(dpdk::sluice_pktmbuf_data_len(mbufs[1]), 60);
        assert_eq!(dpdk::sluice_pktmbuf_pkt_len(mbufs[1]), 60);
        assert_eq!(dpdk::sluice_mbuf_port(mbufs[1]), 9);
        assert_eq!(dpdk::sluice_mbuf_hash_usr(mbufs[1]), 0x8765_4321);

        assert_eq!(dpdk::sluice_pktmbuf_chain(mbufs[1], mbufs[2]), 0);
        assert_same(mbufs[1]);
        assert_eq!(mbuf::nb_segs(mbufs[1]), 2);
        assert_eq!(dpdk::sluice_pktmbuf_linearize(mbufs[1]), 0);
        assert_eq!(mbuf::nb_segs(mbufs[1]), 1);
        dpdk::sluice_pktmbuf_free(mbufs[0]);
        dpdk::sluice_pktmbuf_free(mbufs[1]);
    }
}

fn burst_goes_round(pool: *mut rte_mempool, port: u16, rx: BurstFn, tx: BurstFn, what: &str) {
    let mut received = [ptr::null_mut(); BURST as usize];
    // SAFETY: the port is started, one thread uses it, arrays are as long as said.
    unsafe {
        assert_eq!(rx(port, 0, received.as_mut_ptr(), BURST), 0, "{what}: nothing yet");
        for count in [1, 7, BURST] {
            let mut sent = alloc(pool, count);
            for (index, mbuf) in sent.iter().enumerate() {
                mbuf::set_data_len(*mbuf, 60);
                mbuf::set_pkt_len(*mbuf, 60);
                *mbuf::data(*mbuf) = index as u8;
                dpdk::prefetch(mbuf::data(*mbuf));
            }
            assert_eq!(tx(port, 0, sent.as_mut_ptr(), count), count, "{what}");
            assert_eq!(rx(port, 0, received.as_mut_ptr(), BURST), count, "{what}");
            assert_eq!(received[..usize::from(count)], sent, "{what}: the same, in order");
            dpdk::rte_pktmbuf_free_bulk(received.as_mut_ptr(), u32::from(count));
        }
    }
}

/// A ring of 1,024 holds 1,023: both calls take the same share of a burst that does not fit.
fn full_ring_refuses_the_same(pool: *mut rte_mempool, port: u16) {
    let taken = [dpdk::tx_burst as BurstFn, c_tx as BurstFn].map(|tx| {
        let mut sent = alloc(pool, 2000);
        // SAFETY: the port is started, one thread uses it, arrays are as long as said.
        unsafe {
            let taken = tx(port, 0, sent.as_mut_ptr(), 2000);
            let mut received = vec![ptr::null_mut(); 2000];
            assert_eq!(dpdk::rx_burst(port, 0, received.as_mut_ptr(), 2000), taken);
            dpdk::rte_pktmbuf_free_bulk(sent.as_mut_ptr(), 2000);
            taken
        }
    });
    assert_eq!(taken[0], taken[1]);
    assert!(taken[0] > 0 && taken[0] < 2000, "{taken:?}");
}

fn clocks_agree() {
    let before = dpdk::rdtsc();
    // SAFETY: reads a counter.
    let between = unsafe { dpdk::sluice_rdtsc() };
    let after = dpdk::rdtsc();
    assert!(before <= between && between <= after, "{before} {between} {after}");
    // SAFETY: EAL is up, which measures it.
    assert!(unsafe { dpdk::rte_get_tsc_hz() } > 100_000_000);
}
