//! Enumerations whose numbers cross the boundary: each has its decoder and a table for generators.

macro_rules! enumeration {
    ($(#[doc = $doc:literal])* $name:ident : $repr:ty { $($(#[doc = $vdoc:literal])* $variant:ident = $value:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr($repr)]
        pub enum $name { $($(#[doc = $vdoc])* $variant = $value),* }
        impl $name {
            /// All values with their names: for generators and tools.
            pub const TABLE: &[($name, $repr, &str)] = &[$(($name::$variant, $value, stringify!($variant))),*];
            /// Decodes a raw value; an unknown one is `None`.
            pub const fn from_raw(raw: $repr) -> Option<Self> {
                match raw { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

pub(crate) use enumeration;
