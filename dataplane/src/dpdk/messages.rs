//! What DPDK and its drivers say while a step runs: they only log why it failed.

use std::ffi::c_char;
use std::ptr;
use std::slice;

/// Run a step and return its result with the messages that DPDK logged meanwhile, line by line;
/// they do not go to standard error. For the thread that starts and stops ports.
pub(super) fn during<T>(step: impl FnOnce() -> T) -> (T, Vec<String>) {
    let mut text: *mut c_char = ptr::null_mut();
    let mut len = 0;
    // SAFETY: both pointers stay valid until the stream's last flush, below.
    let stream = unsafe { libc::open_memstream(&raw mut text, &raw mut len) };
    if stream.is_null() {
        return (step(), Vec::new());
    }
    // SAFETY: the stream is open. A null stream is DPDK's default one.
    unsafe { dpdk_sys::rte_openlog_stream(stream.cast()) };
    let result = step();
    // SAFETY: after the flush, text holds len bytes. A thread of DPDK's may still be about to write
    // to the stream, so it is not closed: it writes no more than a line to nowhere.
    let bytes = unsafe {
        dpdk_sys::rte_openlog_stream(ptr::null_mut());
        libc::fflush(stream);
        if text.is_null() { &[] } else { slice::from_raw_parts(text.cast::<u8>(), len) }
    };
    let text = String::from_utf8_lossy(bytes);
    (result, text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect())
}
