//! Trace records: 16 bytes each, written by EL2 into a ring of each pCPU and decoded on the host (`cargo xtask trace`).
//!
//! ```text
//! word 0: 31:0 low half of the counter, 39:32 event, 47:40 pCPU, 63:48 argument a
//! word 1: argument b
//! ```
//! The event and argument names below are the only place that gives them a meaning.

macro_rules! events {
    ($($(#[doc = $doc:literal])* $number:literal $variant:ident $name:literal $a:literal $b:literal;)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Event { $($(#[doc = $doc])* $variant = $number),* }

        impl Event {
            /// Every event with its name and those of its arguments a and b.
            pub const TABLE: &[(Event, &str, &str, &str)] = &[$((Event::$variant, $name, $a, $b)),*];
        }
    };
}

events! {
    /// An unwritten record.
    0 None "none" "" "";
    /// The pCPU changes from one vCPU to another; 65535 is idle.
    5 Switch "switch" "to" "from";
    /// A vCPU became runnable.
    6 Wake "wake" "vcpu" "reason";
    /// A vCPU faulted.
    10 Fault "fault" "vcpu" "esr";
    /// A domain changed its state.
    13 Domain "domain" "domain" "state";
}

/// The two words of a record; `now` is the full counter.
#[inline(always)]
pub const fn encode(now: u64, event: Event, pcpu: u8, a: u16, b: u64) -> [u64; 2] {
    [now as u32 as u64 | (event as u64) << 32 | (pcpu as u64) << 40 | (a as u64) << 48, b]
}
