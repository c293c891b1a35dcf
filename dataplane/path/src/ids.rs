//! What numbers stand for: a type for each kind, so that none is taken for another. They cost nothing.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(transparent)]
        pub struct $name(pub $number);

        impl $name {
            /// Its place in a list of all of them.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A worker, from 0 on.
    WorkerId(u16)
}

impl WorkerId {
    /// The first so many workers.
    pub fn first(workers: u16) -> impl ExactSizeIterator<Item = WorkerId> + Clone {
        (0..workers).map(WorkerId)
    }
}
