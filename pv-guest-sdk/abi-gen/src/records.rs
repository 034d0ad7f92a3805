//! The structures of the ABI, field by field.

use portico_abi::channel::ChannelHeader;
use portico_abi::device::block::{Disk, Request, Response, Segment};
use portico_abi::device::control::Counters;
use portico_abi::device::net::{FrameHeader, Interface, Statistics};
use portico_abi::device::{Accept, Offer};
use portico_abi::page::{InfoPage, RunState, StolenTime, VcpuPage};
use portico_abi::record::{DomainStatus, EarlyText, FaultRecord, PcpuStats, SystemStats, VcpuStats};
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
    records.extend(devices());
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
            "uint32_t" state1, "uint32_t" epoch1, "uint32_t" seen1, "uint32_t" _reserved2[29],
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
            "uint64_t" pool_used, "uint64_t" image_bytes, "uint64_t" bad_calls,
        }),
        record!(EarlyText as "early_text", "Answer of log_read." {
            "uint32_t" size, "uint32_t" version, "uint8_t" name[16], "uint64_t" len, "uint64_t" words[5],
        }),
        record!(PcpuStats as "pcpu_stats", "Answer of `stats_read` with index n + 1." {
            "uint32_t" size, "uint32_t" version, "uint64_t" mpidr, "uint64_t" idle_ns, "uint64_t" up_ns,
            "uint64_t" switches, "uint64_t" irqs, "uint64_t" reserved_permille,
        }),
    ]
}

fn devices() -> Vec<Record> {
    vec![
        record!(Offer as "offer", "What every back-end offers." {
            "uint32_t" kind, "uint32_t" version, "uint64_t" features, "uint32_t" refusal, "uint32_t" _reserved[3],
        }),
        record!(Accept as "accept", "What the front-end takes of an offer." {
            "uint32_t" version, "uint32_t" _reserved, "uint64_t" features,
        }),
        record!(Disk as "block_disk", "What a disk's back-end adds to the offer." {
            "uint64_t" sectors, "uint32_t" block_bytes, "uint32_t" flags, "uint32_t" max_sectors, "uint32_t" max_segments,
            "uint32_t" max_discard, "uint32_t" max_zeroes, "uint32_t" queues, "uint32_t" queue, "uint32_t" _reserved[6],
        }),
        record!(Segment as "block_segment", "A piece of the window." { "uint32_t" offset, "uint32_t" bytes, }),
        record!(Request as "block_request", "A request to a disk." {
            "uint32_t" id, "uint8_t" op, "uint8_t" flags, "uint16_t" segments, "uint64_t" sector, "uint32_t" sectors,
            "uint32_t" table, "struct portico_block_segment" segment[5],
        }),
        record!(Response as "block_response", "A disk's answer." { "uint32_t" id, "uint32_t" status, "uint64_t" _reserved, }),
        record!(Interface as "net_interface", "What a network back-end adds to the offer." {
            "uint8_t" mac[6], "uint16_t" mtu, "uint32_t" max_frame, "uint32_t" flags, "uint32_t" max_large,
            "uint32_t" _reserved[3],
        }),
        record!(Statistics as "net_statistics", "What a network back-end counted at an interface." {
            "uint64_t" sent, "uint64_t" sent_bytes, "uint64_t" received, "uint64_t" received_bytes, "uint64_t" bad_size,
            "uint64_t" spoofed, "uint64_t" reserved, "uint64_t" limited, "uint64_t" unknown, "uint64_t" no_room,
            "uint64_t" waited, "uint64_t" bad_offload, "uint64_t" held, "uint64_t" _reserved[3],
        }),
        record!(FrameHeader as "net_frame", "First bytes of a frame in a ring." {
            "uint32_t" bytes, "uint32_t" flags, "uint16_t" checksum_start, "uint16_t" checksum_offset,
            "uint16_t" segment_bytes, "uint16_t" header_bytes,
        }),
        record!(Counters as "control_counters", "What a device has moved since its service started." {
            "uint64_t" requests, "uint64_t" bytes_in, "uint64_t" bytes_out, "uint64_t" failed, "uint64_t" notified,
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
                    "uint16_t" => 2,
                    "uint32_t" => 4,
                    "uint64_t" | "struct portico_block_segment" => 8,
                    "struct portico_run_state" | "struct portico_stolen_time" => 64,
                    other => panic!("{other}"),
                };
                at += bytes * field.count.unwrap_or(1);
            }
            assert_eq!(at, record.size, "{}", record.name);
        }
    }
}
