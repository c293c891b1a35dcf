//! The DPDK wrappers over real DPDK, without hugepages and without a NIC.
//!
//! Frames come from a capture file, go over a ring port, between threads and into another capture.
//! EAL starts once per process, so this file is one test.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use sluice_dataplane::dpdk::{
    Clock, Eal, EalConfig, EalError, EalHandle, Lcore, LcoreError, Mbuf, Mempool, NoRss, Port,
    PortConfig, PortError, PortErrorCause, RingReceiver, RingSender, RxQueue, TxQueue, free_bulk,
    spsc,
};
use sluice_path::frame::{ChecksumStatus, Frame, NoRoom, TooShort};
use sluice_path::table::toeplitz::{Reta, RssKey};

const BURST: usize = 32;
const MBUFS: u32 = 1023;

#[test]
fn wrappers_over_real_dpdk() {
    let files = CaptureFiles::new();
    files.write_input(&[frame(60, 1), frame(3000, 2), frame(1514, 3)]);
    let config = config(&files);
    impossible_configurations_are_refused_and_can_be_corrected(&config);
    let eal = Eal::init(&config).unwrap();
    assert_eq!(Eal::init(&config).err(), Some(EalError::AlreadyStarted));
    assert!(Eal::version().starts_with("DPDK "));
    let pool = Mempool::create(&eal, "test", MBUFS, 32, 2048, None).unwrap();
    lengths_stay_within_the_buffer(&pool);
    packets_grow_and_shrink_in_front(&pool);
    exhausted_pool_gives_nothing_and_recovers(&pool);
    pools_that_cannot_be_are_refused(&eal);
    ports_that_cannot_be_are_refused(&eal, &pool);
    frames_go_through_ports(&eal, &pool, &files);
    mbufs_cross_threads_in_order(&eal, &pool, &config.worker_cpus);
    ring_gives_back_what_it_holds(&eal, &pool);
    clock_agrees_with_the_kernels(&eal);
    a_table_and_a_key_are_set_and_read_back(&eal, &pool);
    tap_with_two_queues(&eal, &pool);
    assert_eq!(pool.in_use(), 0, "every mbuf came back");
}

fn config(files: &CaptureFiles) -> EalConfig {
    let cpus = core_affinity::get_core_ids().unwrap();
    let cpus: Vec<u16> = cpus.iter().map(|cpu| u16::try_from(cpu.id).unwrap()).collect();
    EalConfig {
        main_cpu: cpus[0],
        worker_cpus: cpus,
        hugepages: false,
        memory_mb: 64,
        file_prefix: "sluice-test".to_owned(),
        devices: vec!["net_ring0".to_owned(), "net_null0".to_owned(), files.device()],
        // No files and locks that runs side by side, with the same prefix, would share.
        extra_args: vec!["--no-shconf".to_owned()],
    }
}

fn impossible_configurations_are_refused_and_can_be_corrected(good: &EalConfig) {
    let error = Eal::init(&EalConfig { worker_cpus: vec![9999], ..good.clone() }).err().unwrap();
    assert!(error.to_string().contains("worker_cpus = 9999: expected a CPU"), "{error}");
    let error = Eal::init(&EalConfig { memory_mb: u32::MAX, hugepages: true, ..good.clone() });
    let error = error.err().unwrap().to_string();
    assert!(error.contains("hugepages = true") && error.contains("`echo "), "{error}");
    let devices = vec!["eth0".to_owned()];
    let error = Eal::init(&EalConfig { devices, ..good.clone() }).err().unwrap();
    assert!(error.to_string().contains("device = \"eth0\": expected a PCI address"), "{error}");
    let extra_args = vec!["a\0b".to_owned()];
    let error = Eal::init(&EalConfig { extra_args, ..good.clone() }).err().unwrap();
    assert!(matches!(error, EalError::Config { field: "extra_args", .. }), "{error}");
}

fn lengths_stay_within_the_buffer(pool: &Mempool) {
    let mut mbuf = pool.alloc().unwrap();
    assert!(mbuf.bytes().is_empty());
    assert_eq!(mbuf.port(), u16::MAX);
    assert!(mbuf.is_single_segment());
    assert_eq!(mbuf.ip_checksum(), ChecksumStatus::Unknown);
    assert_eq!(mbuf.l4_checksum(), ChecksumStatus::Unknown);
    mbuf.set_len(2048).unwrap();
    mbuf.bytes_mut().fill(7);
    assert_eq!(mbuf.set_len(2049), Err(NoRoom));
    assert_eq!(mbuf.set_len(usize::from(u16::MAX) + 2049), Err(NoRoom));
    assert_eq!(mbuf.bytes().len(), 2048);
    mbuf.set_len(3).unwrap();
    mbuf.prefetch();
    assert_eq!(mbuf.bytes(), [7; 3]);
    mbuf.set_len(4).unwrap();
    assert_eq!(mbuf.bytes(), [7; 4], "what was behind the tail is still there");
}

fn packets_grow_and_shrink_in_front(pool: &Mempool) {
    const HEADROOM: usize = 128;
    let mut mbuf = pool.alloc().unwrap();
    mbuf.set_len(3).unwrap();
    mbuf.bytes_mut().copy_from_slice(&[1, 2, 3]);
    let start = mbuf.bytes().as_ptr() as usize;
    mbuf.prepend(2).unwrap();
    mbuf.bytes_mut()[..2].copy_from_slice(&[8, 9]);
    assert_eq!((mbuf.bytes(), mbuf.bytes().as_ptr() as usize), (&[8, 9, 1, 2, 3][..], start - 2));
    mbuf.strip(4).unwrap();
    assert_eq!((mbuf.bytes(), mbuf.bytes().as_ptr() as usize), (&[3][..], start + 2));
    assert_eq!(mbuf.strip(2), Err(TooShort));
    assert_eq!(mbuf.strip(usize::from(u16::MAX) + 2), Err(TooShort));
    // All headroom there is, and not a byte more.
    assert_eq!(mbuf.prepend(HEADROOM + 3), Err(NoRoom));
    assert_eq!(mbuf.prepend(usize::from(u16::MAX) + 2), Err(NoRoom));
    mbuf.prepend(HEADROOM + 2).unwrap();
    assert_eq!(mbuf.prepend(1), Err(NoRoom));
    assert_eq!(mbuf.bytes().as_ptr() as usize, start - HEADROOM);
    assert_eq!((mbuf.bytes().len(), mbuf.bytes()[HEADROOM + 2]), (HEADROOM + 3, 3));
    // What is behind counts from where the packet begins.
    mbuf.set_len(2048 + HEADROOM).unwrap();
    assert_eq!(mbuf.set_len(2048 + HEADROOM + 1), Err(NoRoom));
    // The next owner has all of it again.
    drop(mbuf);
    let mut mbuf = pool.alloc().unwrap();
    assert_eq!((mbuf.prepend(HEADROOM), mbuf.prepend(1)), (Ok(()), Err(NoRoom)));
}

fn exhausted_pool_gives_nothing_and_recovers(pool: &Mempool) {
    assert_eq!((pool.size(), pool.data_room(), pool.in_use()), (MBUFS, 2048, 0));
    assert!(pool.memory_bytes() > u64::from(MBUFS) * 2048);
    let mut all = Vec::new();
    assert!(pool.alloc_bulk(&mut all, MBUFS as usize - 1));
    assert!(!pool.alloc_bulk(&mut all, 2), "all or nothing");
    assert_eq!(all.len(), MBUFS as usize - 1);
    let last = pool.alloc().unwrap();
    assert_eq!(pool.in_use(), MBUFS);
    // AF_XDP registers count times size as one area: mbufs must lie one behind the other, also in
    // pages of 4 KiB, or the kernel drops what lies outside.
    let start = |mbuf: &Mbuf| mbuf.bytes().as_ptr() as usize;
    let starts: Vec<usize> = all.iter().chain([&last]).map(start).collect();
    let span = (starts.iter().max().unwrap() - starts.iter().min().unwrap()) as u64;
    let stride = pool.memory_bytes().div_ceil(u64::from(MBUFS)) + 128;
    assert!(span <= u64::from(MBUFS - 1) * stride, "{MBUFS} mbufs span {span} bytes");
    assert!(pool.alloc().is_none());
    drop(last);
    free_bulk(&mut all);
    assert!(all.is_empty());
    free_bulk(&mut all);
    assert_eq!(pool.in_use(), 0);
}

fn pools_that_cannot_be_are_refused(eal: &Eal) {
    let error = Mempool::create(eal, "huge", 10_000_000, 0, 2048, None).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("mempool huge of 10000000 mbufs (") && text.contains("memory_mb"),
        "{text}"
    );
    assert!(Mempool::create(eal, "test", 63, 0, 2048, None).is_err(), "the name is taken");
    assert!(Mempool::create(eal, "a\0b", 63, 0, 2048, None).is_err());
    assert!(Mempool::create(eal, "wide", 63, 0, u16::MAX, None).is_err());
}

fn port_config(device: &str) -> PortConfig {
    PortConfig {
        name: "lan".to_owned(),
        device: device.to_owned(),
        queues: 1,
        mtu: 1500,
        rx_descriptors: 512,
        tx_descriptors: 512,
        promiscuous: true,
        rss_key: RssKey::generate(1).bytes().into(),
    }
}

fn ports_that_cannot_be_are_refused(eal: &Eal, pool: &Mempool) {
    let good = port_config("net_ring0");
    let refuse = |config: PortConfig| -> PortError {
        let error = Port::open(eal, &config, pool).err().unwrap();
        let prefix = format!("port lan ({}): ", config.device);
        assert!(error.to_string().starts_with(&prefix), "{error}");
        error
    };
    let error = refuse(PortConfig { device: "net_nothing0".to_owned(), ..good.clone() });
    assert!(matches!(*error.cause, PortErrorCause::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("; DPDK says: "), "{error}");
    let error = refuse(PortConfig { device: "ffff:1f:1f.7".to_owned(), ..good.clone() });
    // What is said depends on whether this machine has a PCI bus.
    let no_device = PortErrorCause::NoSuchDevice;
    assert!(
        *error.cause == no_device || matches!(*error.cause, PortErrorCause::NotFound { .. }),
        "{error}"
    );
    let error = refuse(PortConfig { device: "eth0".to_owned(), ..good.clone() });
    assert_eq!(*error.cause, PortErrorCause::BadDevice);
    for queues in [0, 1000] {
        let error = refuse(PortConfig { queues, ..good.clone() });
        let text = error.to_string();
        assert!(text.contains(&format!("queues = {queues}: expected 1 to ")), "{text}");
        assert!(text.contains("runtime.worker_cpus"), "{text}");
    }
    let error = refuse(PortConfig { mtu: 10, ..good.clone() });
    assert!(error.to_string().contains("mtu = 10: expected "), "{error}");
    let error = refuse(PortConfig { mtu: 9000, ..good });
    assert!(matches!(*error.cause, PortErrorCause::MbufTooSmall { .. }), "{error}");
}

/// Capture file → port → ring port → capture file; and the oversized frame is dropped and counted.
fn frames_go_through_ports(eal: &Eal, pool: &Mempool, files: &CaptureFiles) {
    let (disk, mut disk_rx, mut disk_tx) = open(eal, &files.device(), pool);
    let (mut ring, mut ring_rx, mut ring_tx) = open(eal, "net_ring0", pool);
    assert_eq!((disk.driver(), disk.device()), ("net_pcap", "net_pcap0"));
    assert_eq!((ring.driver(), ring.name(), ring.mtu()), ("net_ring", "lan", 1500));
    assert!(ring.link_up());
    assert_eq!(ring.rss(), Err(&NoRss::OneQueue));
    assert_eq!(ring.link_speed_mbps(), Some(10_000));

    let mut burst = Vec::with_capacity(BURST);
    // The capture is read on and on until its end is seen once.
    let deadline = Instant::now() + Duration::from_secs(5);
    while burst.len() < 2 && Instant::now() < deadline {
        disk_rx.burst(&mut burst, BURST);
    }
    assert_eq!(disk_rx.multi_segment_drops(), 1, "3000 bytes do not fit one mbuf");
    assert_eq!(burst.len(), 2);
    assert!(burst.iter().all(|mbuf| mbuf.port() == disk.id()));
    assert_eq!(burst[0].bytes(), frame(60, 1));
    assert_eq!(burst[1].bytes(), frame(1514, 3));

    assert_eq!(ring_tx.burst(&mut burst), 2);
    assert!(burst.is_empty());
    assert_eq!(ring_rx.burst(&mut burst, 0), 0);
    assert_eq!(ring_rx.burst(&mut burst, 1), 1, "no more than asked for");
    assert_eq!(ring_rx.burst(&mut burst, BURST), 1);
    assert_eq!(burst[1].bytes(), frame(1514, 3));
    let mut full: Vec<Mbuf> = Vec::new();
    assert_eq!(ring_rx.burst(&mut full, BURST), 0, "never beyond the capacity");
    assert_eq!(full.capacity(), 0);

    burst[1].bytes_mut()[14] = 99;
    assert_eq!(disk_tx.burst(&mut burst), 2);
    more_than_the_port_takes(pool, &mut ring_rx, &mut ring_tx);
    let counters = ring.stats();
    assert_eq!((counters.rx_packets, counters.tx_packets), (2 + 1023, 2 + 1023));

    assert_eq!(*ring.stop().unwrap_err().cause, PortErrorCause::QueuesInUse);
    drop((ring_rx, ring_tx));
    ring.stop().unwrap();
    assert_eq!(ring.stats().rx_packets, 2 + 1023, "counters outlive the stop");
    ring.close().unwrap();
    assert_eq!(*disk.close().unwrap_err().cause, PortErrorCause::QueuesInUse);
    drop((disk_rx, disk_tx));
    let mut changed = frame(1514, 3);
    changed[14] = 99;
    assert_eq!(files.read_output(), [frame(60, 1), changed]);
}

/// What a port does not take stays with the sender, in order.
fn more_than_the_port_takes(pool: &Mempool, rx: &mut RxQueue, tx: &mut TxQueue) {
    let mut sending = Vec::new();
    assert!(pool.alloc_bulk(&mut sending, MBUFS as usize));
    for (index, mbuf) in sending.iter_mut().enumerate() {
        mbuf.set_tag(index as u32);
    }
    let taken = tx.burst(&mut sending);
    assert_eq!(taken + sending.len(), MBUFS as usize);
    assert_eq!(taken, 1023, "what a ring of 1024 holds");
    assert_eq!(tx.burst(&mut sending), 0);
    let mut received = Vec::with_capacity(MBUFS as usize);
    while rx.burst(&mut received, BURST) > 0 {}
    assert_eq!(received.len(), taken);
    assert!(received.iter().chain(&sending).enumerate().all(|(i, mbuf)| mbuf.tag() == i as u32));
}

fn open(eal: &Eal, device: &str, pool: &Mempool) -> (Port, RxQueue, TxQueue) {
    let (port, mut rx, mut tx) = Port::open(eal, &port_config(device), pool).unwrap();
    assert_eq!((rx.len(), tx.len()), (1, 1));
    (port, rx.remove(0), tx.remove(0))
}

fn mbufs_cross_threads_in_order(eal: &Eal, pool: &Mempool, cpus: &[u16]) {
    const COUNT: u32 = 100_000;
    let (sender, receiver) = spsc(eal, "there", 100).unwrap();
    let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
    let (eal, to) = (eal.handle(), pool.clone());
    let handle = eal.clone();
    let sending = thread::spawn(move || send_tagged(&eal, first, &to, sender, COUNT));
    let receiving = thread::spawn(move || receive_tagged(&handle, last, receiver, COUNT));
    sending.join().unwrap();
    receiving.join().unwrap();
    assert_eq!(pool.in_use(), 0);
}

fn send_tagged(eal: &EalHandle, cpu: u16, pool: &Mempool, mut ring: RingSender, count: u32) {
    for cpu in [1023, 60_000] {
        assert_eq!(Lcore::register(eal, cpu).err(), Some(LcoreError::Pin { cpu }));
    }
    let lcore = Lcore::register(eal, cpu).unwrap();
    assert_ne!(lcore.id(), 0, "0 is the main thread");
    let mut burst = Vec::with_capacity(BURST);
    let mut next = 0;
    while next < count || !burst.is_empty() {
        while burst.len() < BURST && next < count {
            let Some(mut mbuf) = pool.alloc() else { break };
            mbuf.set_len(4).unwrap();
            mbuf.bytes_mut().copy_from_slice(&next.to_be_bytes());
            mbuf.set_tag(!next);
            burst.push(mbuf);
            next += 1;
        }
        if ring.send(&mut burst) == 0 {
            thread::yield_now();
        }
    }
}

fn receive_tagged(eal: &EalHandle, cpu: u16, mut ring: RingReceiver, count: u32) {
    let _lcore = Lcore::register(eal, cpu).unwrap();
    let mut burst: Vec<Mbuf> = Vec::with_capacity(BURST);
    let mut expected: u32 = 0;
    while expected < count {
        if ring.receive(&mut burst, BURST) == 0 {
            thread::yield_now();
        }
        for mbuf in burst.drain(..) {
            assert_eq!(mbuf.bytes(), expected.to_be_bytes());
            assert_eq!(mbuf.tag(), !expected);
            expected += 1;
        }
    }
}

fn ring_gives_back_what_it_holds(eal: &Eal, pool: &Mempool) {
    let (mut sender, mut receiver) = spsc(eal, "back", 100).unwrap();
    assert!(spsc(eal, "back", 100).is_err(), "the name is taken");
    assert!(spsc(eal, "none", 0).is_err());
    let mut mbufs = Vec::with_capacity(150);
    assert!(pool.alloc_bulk(&mut mbufs, 150));
    assert_eq!(sender.send(&mut mbufs), 100, "exactly its size");
    assert_eq!((mbufs.len(), sender.send(&mut mbufs)), (50, 0));
    let mut got = Vec::with_capacity(10);
    assert_eq!(receiver.receive(&mut got, 50), 10, "never beyond the capacity");
    drop((sender, receiver, mbufs, got));
    assert_eq!(pool.in_use(), 0);
    spsc(eal, "back", 100).unwrap();
}

fn clock_agrees_with_the_kernels(eal: &Eal) {
    let (clock, kernel) = (Clock::new(eal), Instant::now());
    thread::sleep(Duration::from_millis(200));
    let (ours, theirs) = (clock.now_ns(), kernel.elapsed().as_nanos() as u64);
    assert!(ours.abs_diff(theirs) < theirs / 20, "{ours} {theirs}");
    assert!(clock.hz() > 1_000_000);
}

/// The null device keeps a key and a table, and does nothing with them.
fn a_table_and_a_key_are_set_and_read_back(eal: &Eal, pool: &Mempool) {
    let config = PortConfig { queues: 3, ..port_config("net_null0") };
    let (port, rx, tx) = Port::open(eal, &config, pool).unwrap();
    let rss = port.rss().unwrap();
    assert_eq!(*rss.reta, *Reta::even(rss.reta.len(), 3));
    assert_eq!(*rss.key, config.rss_key[..40]);
    drop((rx, tx));
    port.close().unwrap();
}

/// A tap's kernel end asks by ARP, we answer, and its datagram comes in: real frames both ways.
fn tap_with_two_queues(eal: &Eal, pool: &Mempool) {
    let iface = format!("sl{}", std::process::id() % 1_000_000);
    let ip = |words: &str| {
        Command::new("ip").args(words.split(' ')).output().is_ok_and(|o| o.status.success())
    };
    let root =
        fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !root || !fs::exists("/dev/net/tun").unwrap_or(false) || !ip("link show lo") {
        eprintln!("SKIPPED: tap with two queues: needs root, /dev/net/tun and ip");
        return;
    }
    let device = format!("net_tap0,iface={iface}");
    // The driver keeps an mbuf per receive descriptor.
    let config = PortConfig { queues: 2, mtu: 1400, rx_descriptors: 128, ..port_config(&device) };
    let (port, mut rx, mut tx) = Port::open(eal, &config, pool).unwrap();
    assert_eq!((port.driver(), port.mtu(), rx.len(), tx.len()), ("net_tap", 1400, 2, 2));
    assert_eq!(port.rss(), Err(&NoRss::Table), "the kernel spreads by a hash of its own");
    // A network per process, of those for benchmarks (RFC 2544), so that runs do not meet.
    let process = std::process::id();
    let network = Ipv4Addr::new(198, 18, (process >> 6) as u8, (process << 2) as u8).to_bits();
    let (kernel, ours) = (Ipv4Addr::from_bits(network + 1), Ipv4Addr::from_bits(network + 2));
    assert!(ip(&format!("address add {kernel}/30 dev {iface}")), "{kernel} on {iface}");
    assert!(ip(&format!("link set {iface} up")));
    let socket = UdpSocket::bind((kernel, 0)).unwrap();
    socket.send_to(b"hello through the tap", (ours, 9)).unwrap();

    let asks_us = |b: &[u8]| b[12..14] == [0x08, 0x06] && b[38..42] == ours.octets();
    let arp = receive_where(&mut rx, asks_us);
    let mut answer = vec![arp_answer(arp, port.mac())];
    assert_eq!(tx[1].burst(&mut answer), 1);
    let datagram = receive_where(&mut rx, |b| b[12..14] == [0x08, 0x00] && b[23] == 17);
    assert!(datagram.bytes().ends_with(b"hello through the tap"));
    assert_eq!(datagram.bytes()[..6], port.mac());
    assert_ne!(datagram.ip_checksum(), ChecksumStatus::Bad);
    assert_ne!(datagram.l4_checksum(), ChecksumStatus::Bad);
    let counters = port.stats();
    assert!(counters.rx_packets >= 2 && counters.tx_packets == 1, "{counters:?}");
    drop((datagram, rx, tx));
    port.close().unwrap();
    assert!(!ip(&format!("link show {iface}")), "the tap goes with its port");
}

fn receive_where(queues: &mut [RxQueue], wanted: impl Fn(&[u8]) -> bool) -> Mbuf {
    let mut burst = Vec::with_capacity(BURST);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        for queue in &mut *queues {
            queue.burst(&mut burst, BURST);
        }
        if let Some(found) = burst.drain(..).find(|m| m.bytes().len() >= 42 && wanted(m.bytes())) {
            return found;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the frame did not come within 10 s");
}

/// RFC 826: the asker becomes the target.
fn arp_answer(mut asked: Mbuf, mac: [u8; 6]) -> Mbuf {
    let bytes = asked.bytes_mut();
    let (asker, wanted): (Vec<u8>, Vec<u8>) = (bytes[22..32].to_vec(), bytes[38..42].to_vec());
    bytes[..6].copy_from_slice(&asker[..6]);
    bytes[6..12].copy_from_slice(&mac);
    bytes[21] = 2;
    bytes[22..28].copy_from_slice(&mac);
    bytes[28..32].copy_from_slice(&wanted);
    bytes[32..42].copy_from_slice(&asker);
    asked
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// A capture file to receive from and one to transmit into; removed at the end.
struct CaptureFiles {
    directory: PathBuf,
}

impl CaptureFiles {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("sluice-dpdk-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self { directory }
    }

    fn device(&self) -> String {
        let directory = self.directory.display();
        format!("net_pcap0,rx_pcap={directory}/in.pcap,tx_pcap={directory}/out.pcap")
    }

    fn write_input(&self, frames: &[Vec<u8>]) {
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
        for frame in frames {
            let len = frame.len() as u32;
            file.extend(words(&[0, 0, len, len]));
            file.extend(frame);
        }
        fs::write(self.directory.join("in.pcap"), file).unwrap();
    }

    fn read_output(&self) -> Vec<Vec<u8>> {
        let file = fs::read(self.directory.join("out.pcap")).unwrap();
        let mut rest = &file[24..];
        let mut frames = Vec::new();
        while rest.len() >= 16 {
            let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
            frames.push(rest[16..16 + len].to_vec());
            rest = &rest[16 + len..];
        }
        frames
    }
}

impl Drop for CaptureFiles {
    fn drop(&mut self) {
        // Nothing to do about a directory that cannot be removed.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
