//! Capabilities of every thread of the process, also of those that DPDK started: the kernel changes
//! them only for the thread that asks, so each is asked by a signal to do so itself. What became of
//! it is read back from `/proc`, and the signal sent again, until all agree.

use std::fs;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time that all threads together have.
const PATIENCE: Duration = Duration::from_secs(2);
/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits, in two halves (linux/capability.h).
const VERSION: u32 = 0x2008_0522;

/// What the threads are to keep, a bit each.
static KEEP: AtomicU64 = AtomicU64::new(0);
/// One limit at a time.
static TURN: Mutex<()> = Mutex::new(());

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Why a thread still has more than it should.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The kernel does not take the handler of our signal, or does not tell about our threads.
    #[error("cannot limit capabilities: {0}")]
    Kernel(#[from] io::Error),
    /// A thread did not give up what it was to.
    #[error(
        "thread {name} ({id}) still has capabilities {permitted:#x}, expected no more than {keep:#x}"
    )]
    Kept {
        /// The thread's number.
        id: i32,
        /// Its name.
        name: String,
        /// What it has, a bit each.
        permitted: u64,
        /// What it was to keep, a bit each.
        keep: u64,
    },
}

/// Take from all threads of this process, and those they start later, the capabilities that are not
/// among `keep` (a bit each), and the ability to get them by `exec` (no_new_privs). Returns what
/// this thread still has.
///
/// # Errors
/// [`CapabilityError`]: some thread may have given up nothing then.
pub fn limit_capabilities(keep: u64) -> Result<u64, CapabilityError> {
    let _turn = TURN.lock();
    let mine = tasks()?.into_iter().find(|task| task.id == own_id());
    let keep = keep & mine.map_or(0, |task| task.permitted);
    KEEP.store(keep, Ordering::SeqCst);
    let signal = libc::SIGRTMAX() - 1;
    install_handler(signal)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(task) = tasks()?.into_iter().find(|task| !task.is_limited_to(keep)) else {
            return Ok(keep);
        };
        if Instant::now() > deadline {
            let Task { id, name, permitted, .. } = task;
            return Err(CapabilityError::Kept { id, name, permitted, keep });
        }
        for task in tasks()?.into_iter().filter(|task| !task.is_limited_to(keep)) {
            // SAFETY: sends a signal whose handler is installed to a thread of this process; one
            // that has ended meanwhile is an error that does no harm.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), task.id, signal) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A thread as `/proc` shows it.
struct Task {
    id: i32,
    name: String,
    permitted: u64,
    no_new_privs: bool,
}

impl Task {
    fn is_limited_to(&self, keep: u64) -> bool {
        self.permitted & !keep == 0 && self.no_new_privs
    }
}

fn own_id() -> i32 {
    // SAFETY: has no preconditions.
    unsafe { libc::gettid() }
}

/// All threads of this process; one that ends while it is read is left out.
fn tasks() -> io::Result<Vec<Task>> {
    let parse = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some(Task {
            id,
            name: field("Name:")?.to_owned(),
            permitted: u64::from_str_radix(field("CapPrm:")?, 16).ok()?,
            no_new_privs: field("NoNewPrivs:")? == "1",
        })
    };
    Ok(fs::read_dir("/proc/self/task")?.flatten().filter_map(parse).collect())
}

fn install_handler(signal: i32) -> io::Result<()> {
    // SAFETY: all zeroes are a legal sigaction; the handler only makes system calls that are safe
    // in a signal handler and leaves errno as it was.
    let status = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = limit_this_thread as extern "C" fn(i32) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs in each thread, at any moment of it.
extern "C" fn limit_this_thread(_signal: i32) {
    let keep = KEEP.load(Ordering::SeqCst);
    let half = |bits: u32| Data { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(keep as u32), half((keep >> 32) as u32)];
    let header = Header { version: VERSION, pid: 0 };
    // SAFETY: capset reads a header and two halves of that layout; prctl takes plain numbers. A
    // thread that never had what we keep is refused, and so keeps what it has: no more than that.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr());
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        *errno = before;
    }
}
