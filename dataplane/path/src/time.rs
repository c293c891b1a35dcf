//! Time on the packet path: it is passed in, and wraps.

/// Ms since an arbitrary start, wrapping; two times that are compared lie less than 2^31 ms (24
/// days) apart.
pub type Millis = u32;

/// Whether `a` is at or after `b`.
#[inline(always)]
pub fn at_or_after(a: Millis, b: Millis) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}
