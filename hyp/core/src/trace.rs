//! Trace records: 16 bytes each, written by EL2 into a ring of each pCPU and decoded on the host.
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
            /// Number of the highest event, plus one: length of a table of counters.
            pub const COUNT: usize = { let numbers = [$($number as usize),*]; numbers[numbers.len() - 1] + 1 };

            /// Every event with its name and those of its arguments a and b.
            pub const TABLE: &[(Event, &str, &str, &str)] = &[$((Event::$variant, $name, $a, $b)),*];

            /// Decodes an event number.
            pub const fn from_raw(raw: u8) -> Option<Event> {
                match raw { $($number => Some(Event::$variant),)* _ => None }
            }
        }
    };
}

events! {
    /// An unwritten record.
    0 None "none" "" "";
    /// A guest trapped.
    1 Entry "entry" "class" "esr";
    /// A guest is entered.
    2 Exit "exit" "vcpu" "pc";
    /// A call.
    3 Call "call" "number" "arg1";
    /// A call returned.
    4 Return "return" "number" "status";
    /// The pCPU changes from one vCPU to another; 65535 is idle.
    5 Switch "switch" "to" "from";
    /// A vCPU became runnable.
    6 Wake "wake" "vcpu" "reason";
    /// A vCPU blocked.
    7 Block "block" "vcpu" "deadline";
    /// A port bit was made pending.
    8 Notify "notify" "vcpu" "bit";
    /// A physical interrupt was taken.
    9 Irq "irq" "intid" "vcpu";
    /// A vCPU faulted.
    10 Fault "fault" "vcpu" "esr";
    /// The timer of a vCPU fired.
    11 Timer "timer" "vcpu" "count";
    /// An interrupt was sent to another pCPU.
    12 Ipi "ipi" "pcpu" "reason";
    /// A domain changed its state.
    13 Domain "domain" "domain" "state";
    /// EL2 starts or stops a pCPU.
    14 Pcpu "pcpu" "pcpu" "state";
    /// EL2 found itself broken.
    15 Panic "panic" "code" "pc";
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Low half of the counter.
    pub time: u32,
    /// Raw number of the event.
    pub event: u8,
    /// pCPU that wrote it.
    pub pcpu: u8,
    /// First argument.
    pub a: u16,
    /// Second argument.
    pub b: u64,
}

/// Length of an encoded record, in bytes.
pub const RECORD_BYTES: usize = 16;

impl Record {
    /// Composes a record; `now` is the full counter.
    #[inline(always)]
    pub const fn new(now: u64, event: Event, pcpu: u8, a: u16, b: u64) -> Self {
        Self { time: now as u32, event: event as u8, pcpu, a, b }
    }

    /// The two words to store.
    #[inline(always)]
    pub const fn encode(self) -> [u64; 2] {
        let head = self.time as u64 | (self.event as u64) << 32 | (self.pcpu as u64) << 40 | (self.a as u64) << 48;
        [head, self.b]
    }

    /// Reads two stored words.
    pub const fn decode(words: [u64; 2]) -> Self {
        let [head, b] = words;
        Self { time: head as u32, event: (head >> 32) as u8, pcpu: (head >> 40) as u8, a: (head >> 48) as u16, b }
    }

    /// Restores the full counter of a record that is at most 2^31 ticks away from `near`.
    pub const fn full_time(self, near: u64) -> u64 {
        let difference = self.time.wrapping_sub(near as u32) as i32;
        near.wrapping_add(difference as i64 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Record};
    use proptest::prelude::*;

    #[test]
    fn table_decodes() {
        for &(event, name, ..) in Event::TABLE {
            assert_eq!(Event::from_raw(event as u8), Some(event));
            assert!(!name.is_empty() && (event as usize) < Event::COUNT);
        }
        assert_eq!(Event::from_raw(Event::COUNT as u8), None);
    }

    proptest! {
        #[test]
        fn round_trip(now: u64, pcpu: u8, a: u16, b: u64, drift in -0x7fff_ffffi64..0x7fff_ffff) {
            let record = Record::new(now, Event::Call, pcpu, a, b);
            prop_assert_eq!(Record::decode(record.encode()), record);
            prop_assert_eq!(record.full_time(now.wrapping_add(drift as u64)), now);
        }
    }
}
