//! DPDK's environment: started once per process, cleaned up when nothing uses it any more.

use std::ffi::CString;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys::rte_mempool;

use super::port_config::{device_name, is_pci_address, is_vdev};
use super::{last_error, signals};

mod host;

/// How to start DPDK's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalConfig {
    /// CPU of the thread that calls [`Eal::init`].
    pub main_cpu: u16,
    /// CPUs of the workers, which pin and register themselves with [`super::Lcore`]; here they are
    /// only checked to exist. May name a CPU twice.
    pub worker_cpus: Vec<u16>,
    /// Take memory from hugepages; without them, ordinary memory (slower, and no NIC can use it).
    pub hugepages: bool,
    /// Memory for mbufs, rings and driver queues in MiB, reserved at start.
    pub memory_mb: u32,
    /// Names the files by which DPDK tells its processes apart: 1 to 63 of letters, digits, `-`,
    /// `_`, `.`, and no other running process has it.
    pub file_prefix: String,
    /// Devices: DPDK device strings (`net_tap0,iface=tap0`) and PCI addresses (`0000:03:00.0`, with
    /// device arguments behind a comma where wanted).
    pub devices: Vec<String>,
    /// Further EAL arguments, as they are; they win over ours.
    pub extra_args: Vec<String>,
}

/// Why DPDK did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EalError {
    /// A field of the configuration has a value that cannot be.
    #[error("{field} = {value}: expected {expected}")]
    Config {
        /// Field of [`EalConfig`].
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// DPDK starts once per process, even when that failed or it was stopped.
    #[error("DPDK was already started in this process, and it can be started only once")]
    AlreadyStarted,
    /// Hugepages are asked for, and there are none or too few.
    #[error(
        "hugepages = true, but the kernel has {total_mb} MB of hugepages ({free_mb} MB free) and \
         memory_mb = {wanted_mb} are asked for: make them with `{command}`, or set hugepages = false"
    )]
    Hugepages {
        /// Asked for, in MiB.
        wanted_mb: u32,
        /// What the kernel has, in MiB.
        total_mb: u64,
        /// What of it nobody uses, in MiB.
        free_mb: u64,
        /// The shell command that makes enough of them.
        command: String,
    },
    /// Hugepages are asked for, and no hugetlbfs is mounted to take them from.
    #[error(
        "hugepages = true, but no hugetlbfs is mounted: mount it with \
         `mkdir -p /dev/hugepages && mount -t hugetlbfs nodev /dev/hugepages`, or set hugepages = false"
    )]
    NoHugetlbfs,
    /// Another process runs with this file prefix.
    #[error(
        "file_prefix = {prefix:?} is in use by process {pid}: stop it, or choose another file_prefix"
    )]
    FilePrefixInUse {
        /// The file prefix.
        prefix: String,
        /// Who has it.
        pid: i32,
    },
    /// Drivers would take real-time signals, and with them the time of the main thread.
    #[error("real-time signals cannot be kept from drivers: {reason}")]
    Signals {
        /// The kernel's words.
        reason: String,
    },
    /// DPDK refused, for another reason.
    #[error(
        "DPDK's EAL did not start: {reason} (its own messages are on standard error; \
         its arguments were: {arguments})"
    )]
    Init {
        /// DPDK's words.
        reason: String,
        /// The arguments it was given.
        arguments: String,
    },
}

/// What lives as long as DPDK's memory is in use.
pub(super) struct Shared {
    /// Whether any device is hardware, which may be given physical addresses.
    pub(super) has_pci_device: bool,
    pools: Mutex<Vec<Pool>>,
}

struct Pool(NonNull<rte_mempool>);

// SAFETY: a mempool's functions are thread safe.
unsafe impl Send for Pool {}

impl Shared {
    fn pools(&self) -> MutexGuard<'_, Vec<Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keep a mempool until EAL is cleaned up.
    pub(super) fn keep_pool(&self, pool: NonNull<rte_mempool>) {
        self.pools().push(Pool(pool));
    }

    fn mbufs_in_use(&self) -> u64 {
        // SAFETY: pools are never freed before EAL is cleaned up.
        let in_use = |pool: &Pool| unsafe { dpdk_sys::rte_mempool_in_use_count(pool.0.as_ptr()) };
        self.pools().iter().map(|pool| u64::from(in_use(pool))).sum()
    }
}

/// DPDK runs. For other threads than the one that started it: see [`Eal::handle`].
#[derive(Clone)]
pub struct EalHandle(pub(super) Arc<Shared>);

/// DPDK's environment. Dropping it cleans up, unless something still uses DPDK's memory: then a
/// warning says so, and the memory stays until the process ends.
///
/// It stays on the thread that started it, which DPDK has pinned to its main CPU.
pub struct Eal {
    handle: EalHandle,
    _stays_on_its_thread: PhantomData<*mut ()>,
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Start DPDK. This pins the calling thread to `main_cpu`; threads that it starts later inherit
    /// that until they pin themselves (see [`super::Lcore`]).
    ///
    /// # Errors
    /// [`EalError`], in words that an operator can act on. DPDK starts only once per process: only
    /// after [`EalError::Config`], [`EalError::Hugepages`], [`EalError::NoHugetlbfs`] and
    /// [`EalError::FilePrefixInUse`] can it be tried again.
    pub fn init(config: &EalConfig) -> Result<Eal, EalError> {
        if STARTED.load(Ordering::SeqCst) {
            return Err(EalError::AlreadyStarted);
        }
        check(config)?;
        if let Some(pid) = host::file_prefix_owner(&config.file_prefix) {
            return Err(EalError::FilePrefixInUse { prefix: config.file_prefix.clone(), pid });
        }
        if config.hugepages {
            host::check_hugepages(config.memory_mb)?;
        }
        signals::leave_none_to_drivers()
            .map_err(|error| EalError::Signals { reason: error.to_string() })?;
        let arguments = arguments(config);
        let strings = c_strings(&arguments)?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyStarted);
        }
        // EAL may keep pointers into its arguments: they live as long as the process.
        let argv = Box::leak(strings.into_iter().map(CString::into_raw).collect::<Box<[_]>>());
        let argc = i32::try_from(argv.len()).unwrap_or(i32::MAX);
        // SAFETY: argv holds argc C strings that are never freed, and EAL is started only once.
        if unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) } < 0 {
            let reason = last_error();
            if config.hugepages && host::free_hugepages_mb() < u64::from(config.memory_mb) {
                return Err(host::too_few_hugepages(config.memory_mb));
            }
            return Err(EalError::Init { reason, arguments: arguments.join(" ") });
        }
        let has_pci_device = config.devices.iter().any(|device| !is_vdev(device));
        let shared = Shared { has_pci_device, pools: Mutex::new(Vec::new()) };
        let handle = EalHandle(Arc::new(shared));
        Ok(Eal { handle, _stays_on_its_thread: PhantomData })
    }

    /// A proof for other threads that DPDK runs; it keeps DPDK's memory.
    pub fn handle(&self) -> EalHandle {
        self.handle.clone()
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.handle.0.clone()
    }

    /// DPDK's version, as `DPDK 22.11.11`.
    pub fn version() -> String {
        // SAFETY: returns a constant C string.
        unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        let mbufs = self.handle.0.mbufs_in_use();
        // get_mut, and not the count: it also sees all that the last handle's thread did.
        if Arc::get_mut(&mut self.handle.0).is_none() {
            let handles = Arc::strong_count(&self.handle.0) - 1;
            tracing::warn!(handles, mbufs, "DPDK is still in use: its memory stays until exit");
            return;
        }
        if mbufs > 0 {
            // Perhaps nobody has them: AF_XDP's driver never gives back what its rings held.
            tracing::debug!(mbufs, "mbufs are still out: DPDK's memory stays until exit");
            return;
        }
        // SAFETY: ours was the last handle, so no port, queue, ring, pool or registered thread is
        // left, and no mbuf either: nothing points into DPDK's memory.
        let status = unsafe { dpdk_sys::rte_eal_cleanup() };
        if status != 0 {
            tracing::warn!(reason = super::strerror(status), "DPDK's clean-up failed");
        }
    }
}

fn check(config: &EalConfig) -> Result<(), EalError> {
    let error =
        |field, value: String, expected: String| Err(EalError::Config { field, value, expected });
    let cpus = host::cpus();
    let known = || format!("a CPU that this process may use: {}", host::ranges(&cpus));
    if !cpus.contains(&config.main_cpu) {
        return error("main_cpu", config.main_cpu.to_string(), known());
    }
    if let Some(cpu) = config.worker_cpus.iter().find(|cpu| !cpus.contains(cpu)) {
        return error("worker_cpus", cpu.to_string(), known());
    }
    if config.memory_mb == 0 {
        return error("memory_mb", "0".to_owned(), "1 or more, in MiB".to_owned());
    }
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let prefix = &config.file_prefix;
    if !(1..=63).contains(&prefix.len()) || !prefix.bytes().all(legal) || prefix.starts_with('.') {
        let expected = "1 to 63 letters, digits, '-', '_', '.', not beginning with '.'";
        return error("file_prefix", format!("{prefix:?}"), expected.to_owned());
    }
    for (index, device) in config.devices.iter().enumerate() {
        if !is_vdev(device) && !is_pci_address(device_name(device)) {
            let expected = "a PCI address such as 0000:03:00.0, or a DPDK device string such as \
                            net_tap0,iface=tap0 (its name begins with net_)";
            return error("device", format!("{device:?}"), expected.to_owned());
        }
        let same = |other: &String| device_name(other) == device_name(device);
        if config.devices[..index].iter().any(same) {
            let expected = "each device once; give the second one another number";
            return error("device", format!("{device:?}"), expected.to_owned());
        }
    }
    Ok(())
}

fn arguments(config: &EalConfig) -> Vec<String> {
    let mut arguments: Vec<String> = vec![
        "sluice-dataplane".to_owned(),
        format!("--lcores=0@{}", config.main_cpu),
        format!("--file-prefix={}", config.file_prefix),
        "--no-telemetry".to_owned(),
        "--log-level=warning".to_owned(),
        "-m".to_owned(),
        config.memory_mb.to_string(),
    ];
    if !config.hugepages {
        arguments.push("--no-huge".to_owned());
    }
    let (vdevs, pci): (Vec<&String>, Vec<&String>) =
        config.devices.iter().partition(|device| is_vdev(device));
    if pci.is_empty() {
        arguments.push("--no-pci".to_owned());
    }
    for device in pci {
        arguments.extend(["-a".to_owned(), device.clone()]);
    }
    arguments.extend(vdevs.into_iter().map(|device| format!("--vdev={device}")));
    arguments.extend(config.extra_args.iter().cloned());
    arguments
}

fn c_strings(arguments: &[String]) -> Result<Vec<CString>, EalError> {
    let convert = |argument: &String| {
        CString::new(argument.as_str()).map_err(|_| EalError::Config {
            field: "extra_args",
            value: format!("{argument:?}"),
            expected: "text without NUL bytes".to_owned(),
        })
    };
    arguments.iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> EalConfig {
        EalConfig {
            main_cpu: host::cpus()[0],
            worker_cpus: Vec::new(),
            hugepages: false,
            memory_mb: 64,
            file_prefix: "sluice".to_owned(),
            devices: Vec::new(),
            extra_args: Vec::new(),
        }
    }

    fn refused(config: &EalConfig) -> String {
        check(config).unwrap_err().to_string()
    }

    #[test]
    fn devices_become_arguments() {
        let mut config = config();
        assert!(arguments(&config).contains(&"--no-pci".to_owned()));
        assert!(arguments(&config).contains(&"--no-huge".to_owned()));
        config.devices =
            ["net_tap0,iface=t0", "0000:03:00.0,mprq_en=1", "04:00.1"].map(str::to_owned).to_vec();
        config.hugepages = true;
        config.extra_args = vec!["--log-level=debug".to_owned()];
        check(&config).unwrap();
        let line = arguments(&config).join(" ");
        assert!(line.ends_with(
            "-m 64 -a 0000:03:00.0,mprq_en=1 -a 04:00.1 --vdev=net_tap0,iface=t0 --log-level=debug"
        ));
    }

    #[test]
    fn impossible_values_are_named() {
        let good = config();
        let cpu = refused(&EalConfig { main_cpu: 4095, ..good.clone() });
        assert!(cpu.starts_with("main_cpu = 4095: expected a CPU that this process may use: "));
        let cpu = refused(&EalConfig { worker_cpus: vec![good.main_cpu, 4094], ..good.clone() });
        assert!(cpu.starts_with("worker_cpus = 4094: expected a CPU"));
        let memory = refused(&EalConfig { memory_mb: 0, ..good.clone() });
        assert_eq!(memory, "memory_mb = 0: expected 1 or more, in MiB");
        for prefix in ["", "a/b", "..", "a b"] {
            let error = refused(&EalConfig { file_prefix: prefix.to_owned(), ..good.clone() });
            assert!(error.starts_with(&format!("file_prefix = {prefix:?}: expected")), "{error}");
        }
        for device in ["eth0", "", "00:00", "net_tap 0"] {
            let error = refused(&EalConfig { devices: vec![device.to_owned()], ..good.clone() });
            assert!(error.starts_with(&format!("device = {device:?}: expected")), "{error}");
        }
        let twice = ["net_tap0,iface=a".to_owned(), "net_tap0,iface=b".to_owned()];
        let error = refused(&EalConfig { devices: twice.to_vec(), ..good });
        assert!(error.contains("net_tap0,iface=b") && error.contains("once"), "{error}");
    }
}
