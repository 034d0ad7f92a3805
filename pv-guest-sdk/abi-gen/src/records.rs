//! The structures of the ABI, field by field.

use portico_abi::channel::ChannelHeader;
use portico_abi::page::{InfoPage, RunState, StolenTime, VcpuPage};
use portico_abi::record::{DomainStatus, FaultRecord, PcpuStats, SystemStats, VcpuStats};
use std::mem::{align_of, offset_of, size_of};

/// A structure.
#[derive(Clone, Debug)]
pub struct Record {
    /// Name in C, without `portico_`.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Fields in order.
    pub fields: Vec<Field>,
}

/// A field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name.
    pub name: &'static str,
    /// Type in C.
    pub ctype: &'static str,
    /// Elements, if it is an array.
    pub count: Option<usize>,
    /// Offset in bytes.
    pub offset: usize,
}

macro_rules! record {
    ($type:ident as $name:literal, $doc:literal { $($ctype:literal $field:ident $([$count:expr])?,)* }) => {
        Record {
            name: $name,
            doc: $doc,
            size: size_of::<$type>(),
            align: align_of::<$type>(),
            fields: vec![$(Field {
                name: stringify!($field),
                ctype: $ctype,
                count: [$($count,)?].first().copied(),
                offset: offset_of!($type, $field),
            }),*],
        }
    };
}

/// All structures.
pub fn all() -> Vec<Record> {
    let mut records = pages();
    records.extend(results());
    records
}

fn pages() -> Vec<Record> {
    vec![
        record!(RunState as "run_state", "Where a vCPU's time went." {
            "uint32_t" seq, "uint32_t" _reserved, "uint64_t" running_ns, "uint64_t" ready_ns, "uint64_t" blocked_ns,
            "uint64_t" _reserved1[4],
        }),
        record!(VcpuPage as "vcpu_page", "The page that EL2 shares with one vCPU." {
            "uint8_t" upcall_pending, "uint8_t" _reserved0[63], "uint8_t" selectors[16], "uint8_t" _reserved1[48],
            "struct portico_run_state" run_state, "uint8_t" _reserved2[832], "uint8_t" pending[1024],
            "uint8_t" mask[1024], "uint8_t" buffer[1024],
        }),
        record!(StolenTime as "stolen_time", "Stolen time of one vCPU (Arm DEN0057)." {
            "uint32_t" revision, "uint32_t" attributes, "uint64_t" stolen_ns, "uint64_t" _reserved[6],
        }),
        record!(InfoPage as "info_page", "The information page, which the guest can only read." {
            "uint32_t" magic, "uint32_t" version, "uint32_t" seq, "uint32_t" counter_hz, "uint32_t" mult, "uint32_t" shift,
            "uint32_t" _reserved0[2], "uint64_t" generation, "uint8_t" _reserved1[984],
            "struct portico_stolen_time" stolen[48],
        }),
        record!(ChannelHeader as "channel_header", "First bytes of every channel window." {
            "uint32_t" magic, "uint32_t" version, "uint32_t" size, "uint32_t" _reserved0[13],
            "uint32_t" state0, "uint32_t" epoch0, "uint32_t" seen0, "uint32_t" _reserved1[13],
            "uint32_t" state1, "uint32_t" epoch1, "uint32_t" seen1, "uint32_t" _reserved2[13],
            "uint32_t" heartbeat, "uint32_t" watchdog_ms, "uint32_t" _reserved3[14],
        }),
    ]
}

fn results() -> Vec<Record> {
    vec![
        record!(DomainStatus as "domain_status", "Answer of `domain_status`." {
            "uint32_t" size, "uint32_t" version, "uint32_t" state, "uint32_t" reason, "uint64_t" code,
            "uint32_t" budget_pages, "uint32_t" used_pages, "uint32_t" vcpus, "uint32_t" vcpus_on, "uint64_t" cpu_ns,
            "uint64_t" mapped_pages, "uint64_t" calls, "uint8_t" name[16],
        }),
        record!(FaultRecord as "fault_record", "Answer of `vcpu_fault_get`." {
            "uint32_t" size, "uint32_t" version, "uint32_t" kind, "uint32_t" flags, "uint64_t" syndrome, "uint64_t" ipa,
            "uint64_t" far, "uint64_t" pc, "uint64_t" pstate, "uint64_t" value,
        }),
        record!(VcpuStats as "vcpu_stats", "Answer of `vcpu_stats_read`." {
            "uint32_t" size, "uint32_t" version, "uint32_t" state, "uint32_t" pcpu, "uint64_t" running_ns,
            "uint64_t" ready_ns, "uint32_t" class, "uint32_t" weight, "uint32_t" cap, "uint32_t" _reserved,
            "uint64_t" period_ns, "uint64_t" budget_ns, "uint64_t" affinity, "uint64_t" calls, "uint64_t" switches,
            "uint64_t" missed,
        }),
        record!(SystemStats as "system_stats", "Answer of `stats_read` with index 0." {
            "uint32_t" size, "uint32_t" version, "uint32_t" pcpus, "uint32_t" gic, "uint64_t" pool_pages,
            "uint64_t" pool_used, "uint64_t" image_bytes, "uint64_t" longest_ticks, "uint64_t" longest_call,
            "uint64_t" dropped_lines, "uint64_t" bad_calls,
        }),
        record!(PcpuStats as "pcpu_stats", "Answer of `stats_read` with index n + 1." {
            "uint32_t" size, "uint32_t" version, "uint64_t" mpidr, "uint64_t" idle_ns, "uint64_t" up_ns,
            "uint64_t" switches, "uint64_t" irqs, "uint64_t" reserved_permille,
        }),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_leave_no_gap() {
        for record in super::all() {
            let mut at = 0;
            for field in &record.fields {
                assert_eq!(field.offset, at, "{}.{}", record.name, field.name);
                let bytes = match field.ctype {
                    "uint8_t" => 1,
                    "uint32_t" => 4,
                    "uint64_t" => 8,
                    "struct portico_run_state" | "struct portico_stolen_time" => 64,
                    other => panic!("{other}"),
                };
                at += bytes * field.count.unwrap_or(1);
            }
            assert_eq!(at, record.size, "{}", record.name);
        }
    }
}
