//! Enums of what is counted.

/// An enum whose numbers are indexes into a map, with the names that metrics have.
macro_rules! counters {
    ($(#[doc = $about:literal])+ $counter:ident: $($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        $(#[doc = $about])+
        #[repr(u32)]
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $counter {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl $counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}
pub(crate) use counters;
