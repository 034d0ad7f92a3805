//! The constants of the ABI by module, with their values and words.

use crate::source;
use portico_abi::device::{block, control, net};
use portico_abi::{call, channel, device, dt, page, port, ring};

/// Constants that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Name in `ABI.md`'s markers: `info`.
    pub name: &'static str,
    /// What they are, as a heading.
    pub title: &'static str,
    /// Begins their names in C.
    pub prefix: &'static str,
    /// The constants.
    pub constants: Vec<Constant>,
}

/// A constant.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Name in Rust.
    pub name: String,
    /// Value.
    pub value: Value,
    /// Words.
    pub doc: String,
}

/// What a constant is.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Text.
    Text(&'static str),
}

macro_rules! numbers {
    ($module:path; $($name:ident),* $(,)?) => {{
        use $module as module;
        vec![$((stringify!($name), Value::Number(u64::try_from(module::$name).unwrap_or(u64::MAX)))),*]
    }};
}

macro_rules! texts {
    ($module:path; $($name:ident),* $(,)?) => {{
        use $module as module;
        vec![$((stringify!($name), Value::Text(module::$name))),*]
    }};
}

const CALL: &str = include_str!("../../abi/src/call.rs");
const PORT: &str = include_str!("../../abi/src/port.rs");
const PAGE: &str = include_str!("../../abi/src/page.rs");
const CHANNEL: &str = include_str!("../../abi/src/channel.rs");
const RING: &str = include_str!("../../abi/src/ring.rs");
const DEVICE: &str = include_str!("../../abi/src/device/mod.rs");
const BLOCK: &str = include_str!("../../abi/src/device/block.rs");
const NET: &str = include_str!("../../abi/src/device/net.rs");
const CONTROL: &str = include_str!("../../abi/src/device/control.rs");
const DT: &str = include_str!("../../abi/src/dt.rs");
const LIB: &str = include_str!("../../abi/src/lib.rs");

/// Where the words of a group are: source text and module.
struct Words(&'static str, &'static str);

fn group(
    (name, title, prefix): (&'static str, &'static str, &'static str),
    words: &Words,
    skip: &[&str],
    values: Vec<(&'static str, Value)>,
) -> Result<Group, String> {
    let mut documented = source::constants(words.0, words.1);
    documented.retain(|constant| !skip.contains(&constant.name.as_str()));
    if documented.len() != values.len() {
        return Err(format!("{name}: the ABI has {} constants, {} are listed", documented.len(), values.len()));
    }
    let mut constants = Vec::new();
    for (constant, value) in values {
        let doc = documented.iter().find(|documented| documented.name == constant && !documented.doc.is_empty());
        let doc = doc.ok_or_else(|| format!("{name}: {constant} is not in the ABI's source, or has no words"))?;
        constants.push(Constant { name: constant.into(), value, doc: doc.doc.clone() });
    }
    Ok(Group { name, title, prefix, constants })
}

/// All groups.
///
/// # Errors
/// If a constant of the ABI is not listed here.
pub fn all() -> Result<Vec<Group>, String> {
    let mut groups = calls()?;
    groups.extend(layout()?);
    groups.extend(devices()?);
    Ok(groups)
}

fn calls() -> Result<Vec<Group>, String> {
    Ok(vec![
        group(
            ("versions", "Versions and sizes", "PORTICO_"),
            &Words(LIB, ""),
            &["UID"],
            numbers!(portico_abi; VERSION_MAJOR, VERSION_MINOR, MANAGEMENT_VERSION, PAGE_SIZE, PAGE_SHIFT, BLOCK_SIZE),
        )?,
        group(
            ("ids", "Function ids", "PORTICO_"),
            &Words(CALL, ""),
            &[],
            numbers!(call; FUNCTION_BASE, NUMBER_MASK, SVE_HINT, MANAGEMENT_BASE),
        )?,
        group(
            ("features", "Bits of `features` of `abi_features`", "PORTICO_FEATURE_"),
            &Words(CALL, "features"),
            &[],
            numbers!(call::features; PORTS, RESERVATION, STOLEN_TIME),
        )?,
        group(
            ("info", "Keys of `self_info`", "PORTICO_INFO_"),
            &Words(CALL, "info"),
            &[],
            numbers!(call::info; UPCALL_VINTID, UPCALL_KIND, UPCALL_GICV_IPA, VCPU_PAGE_IPA, VCPU_INDEX, VCPU_COUNT,
                VCPU_MPIDR, INFO_PAGE_IPA, GENERATION, BUDGET_LEFT, SYSTEM_HANDLE, COUNTER_OFFSET, RESTARTS,
                MACHINE_TREE),
        )?,
        group(
            ("exit", "Kinds of `self_exit`", "PORTICO_EXIT_"),
            &Words(CALL, "exit"),
            &[],
            numbers!(call::exit; EXIT, PANIC, REBOOT),
        )?,
        group(
            ("config", "Keys of `domain_config`", "PORTICO_CONFIG_"),
            &Words(CALL, "config"),
            &[],
            numbers!(call::config; NAME_LO, NAME_HI, GICV_IPA, INFO_PAGE_IPA, FAULT_POLICY),
        )?,
        group(
            ("attrs", "`attrs` of `extent_map` and `extent_lend`", "PORTICO_ATTR_"),
            &Words(CALL, "attrs"),
            &[],
            numbers!(call::attrs; READ, WRITE, EXEC, DEVICE, ALL),
        )?,
        group(
            ("extent_flags", "`flags` of `extent_info`", "PORTICO_EXTENT_"),
            &Words(CALL, "extent_flags"),
            &[],
            numbers!(call::extent_flags; GRANT, DEVICE, DIRTY, MAPPED, LENT, REVOKING, WRITE),
        )?,
        group(
            ("run", "`op` of `domain_run`", "PORTICO_RUN_"),
            &Words(CALL, "run"),
            &[],
            numbers!(call::run; RESUME, PAUSE),
        )?,
        group(
            ("power", "`op` of `system_off`", "PORTICO_POWER_"),
            &Words(CALL, "power"),
            &[],
            numbers!(call::power; OFF, RESET),
        )?,
        group(
            ("sched", "Classes of `vcpu_sched_set`", "PORTICO_SCHED_"),
            &Words(CALL, "sched"),
            &[],
            numbers!(call::sched; WEIGHTED, RESERVATION, DEFAULT_WEIGHT),
        )?,
    ])
}

fn layout() -> Result<Vec<Group>, String> {
    Ok(vec![
        group(
            ("ports", "Ports", "PORTICO_"),
            &Words(PORT, ""),
            &[],
            numbers!(port; PORT_BITS, BITS_PER_SELECTOR, SELECTORS, BIT_TIMER, BIT_EVENT, BIT_FIRST_FREE, CLASS_DEFAULT, DEADLINE_NEVER),
        )?,
        group(("pages", "Pages", "PORTICO_"), &Words(PAGE, ""), &[], numbers!(page; BUFFER_BYTES, MAX_VCPUS))?,
        group(
            ("console", "Layout of a console window (offsets and sizes in bytes)", "PORTICO_CONSOLE_"),
            &Words(CHANNEL, "console"),
            &[],
            numbers!(channel::console; OUT_HEAD, OUT_TAIL, IN_HEAD, IN_TAIL, OUT_WANT, WANT_LINES, OUT_SPACE_WANT, BREAKS, IN_OFFSET,
                IN_BYTES, OUT_OFFSET, WINDOW_BYTES, OUT_BYTES),
        )?,
        group(
            ("ring", "Layout of a ring (offsets in bytes)", "PORTICO_RING_"),
            &Words(RING, ""),
            &[],
            numbers!(ring; HEAD, SPACE_EVENT, TAIL, DATA_EVENT, SLOTS, MAX_SLOTS),
        )?,
        group(
            ("addresses", "Guest-physical layout", "PORTICO_IPA_"),
            &Words(DT, ""),
            &DT_TEXTS,
            numbers!(dt; RAM_BASE, VCPU_PAGES, INFO_PAGE, GICV, WINDOWS),
        )?,
        group(
            ("interrupt_kind", "First cell of an interrupt in the device tree", "PORTICO_DT_INTERRUPT_"),
            &Words(DT, "interrupt"),
            &[],
            numbers!(dt::interrupt; PERCPU),
        )?,
        group(
            ("dt", "Names in the device tree", "PORTICO_DT_"),
            &Words(DT, ""),
            &["RAM_BASE", "VCPU_PAGES", "INFO_PAGE", "GICV", "WINDOWS"],
            texts!(dt; MACHINE, HYPERVISOR, HYPERVISOR_PATH, CONSOLE, CHANNEL, NAME, PEER, PORT, COOKIE, SIDE, BLOCK, NET, CONTROL, UART, DMA, QUEUES, QUEUE,
                MACHINE_ADDRESS, INTERRUPT, BUNDLE_NODE),
        )?,
    ])
}

fn devices() -> Result<Vec<Group>, String> {
    Ok(vec![
        group(
            ("device", "Layout of a device's window, and its sides", "PORTICO_DEVICE_"),
            &Words(DEVICE, ""),
            &[],
            numbers!(device; BACK, FRONT, OFFER, ACCEPT, RINGS),
        )?,
        group(
            ("kind", "Kinds of devices", "PORTICO_KIND_"),
            &Words(DEVICE, "kind"),
            &[],
            numbers!(device::kind; BLOCK, NET),
        )?,
        group(
            ("refusal", "Why a back-end refused", "PORTICO_REFUSAL_"),
            &Words(DEVICE, "refusal"),
            &[],
            numbers!(device::refusal; NONE, VERSION, FEATURES, PROTOCOL, ABSENT, REMOVED),
        )?,
        group(
            ("block", "Disks", "PORTICO_BLOCK_"),
            &Words(BLOCK, ""),
            &[],
            numbers!(block; VERSION, SECTOR, INLINE_SEGMENTS, MAX_SEGMENTS, MIN_PAGES, MAX_PAGES),
        )?,
        group(
            ("block_op", "Operations of a disk", "PORTICO_BLOCK_OP_"),
            &Words(BLOCK, "op"),
            &[],
            numbers!(block::op; READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES),
        )?,
        group(
            ("block_feature", "Features of a disk", "PORTICO_BLOCK_FEATURE_"),
            &Words(BLOCK, "feature"),
            &[],
            numbers!(block::feature; DISCARD, WRITE_ZEROES),
        )?,
        group(
            ("block_flag", "Flags of a disk", "PORTICO_BLOCK_FLAG_"),
            &Words(BLOCK, "flag"),
            &[],
            numbers!(block::flag; READ_ONLY),
        )?,
        group(
            ("block_status", "Status of an answer", "PORTICO_BLOCK_STATUS_"),
            &Words(BLOCK, "status"),
            &[],
            numbers!(block::status; OK, IO, INVALID, UNSUPPORTED, READ_ONLY, RANGE),
        )?,
        group(
            ("net", "Network interfaces", "PORTICO_NET_"),
            &Words(NET, ""),
            &[],
            numbers!(net; VERSION, SLOT, MIN_FRAME, MIN_PAGES, MAX_PAGES, CONTROL_PAGES, STATISTICS, STATISTICS_BYTES, HEADER, LARGE, MAX_SEGMENTS),
        )?,
        group(
            ("net_flag", "Flags of an interface", "PORTICO_NET_FLAG_"),
            &Words(NET, "flag"),
            &[],
            numbers!(net::flag; UPLINK),
        )?,
        group(
            ("net_feature", "Features of an interface", "PORTICO_NET_FEATURE_"),
            &Words(NET, "feature"),
            &[],
            numbers!(net::feature; CHECKSUM, SEGMENTS),
        )?,
        group(
            ("net_frame", "Flags of a frame", "PORTICO_NET_FRAME_"),
            &Words(NET, "frame"),
            &[],
            numbers!(net::frame; PARTIAL, TCP4, TCP6),
        )?,
        group(
            ("control", "Layout of a control page", "PORTICO_CONTROL_"),
            &Words(CONTROL, ""),
            &[],
            numbers!(
                control; CHANGES, ASK, WALL_NS, DEVICE, TARGET_PAGES, PRESENT_PAGES, ANSWER, RESULT, DONE_PAGES, READY, BEAT, ABLE, TAKEN, WATCHDOG_MS,
                ASLEEP, FIRST, PAGES, REQUEST, COUNTERS, MAX_DEVICES
            ),
        )?,
        group(
            ("ask", "What a domain can be asked for", "PORTICO_ASK_"),
            &Words(CONTROL, "ask"),
            &[],
            numbers!(control::ask; NOTHING, POWER_OFF, REBOOT, SUSPEND, RELEASE),
        )?,
        group(
            ("memory_op", "What a domain can do with its memory", "PORTICO_MEMORY_OP_"),
            &Words(CONTROL, "memory_op"),
            &[],
            numbers!(control::memory_op; RELEASE, POPULATE),
        )?,
        group(
            ("memory_result", "What became of a request for memory", "PORTICO_MEMORY_"),
            &Words(CONTROL, "memory_result"),
            &[],
            numbers!(control::memory_result; OK, INVALID, MINIMUM, TARGET, EXHAUSTED),
        )?,
    ])
}

/// Constants of `dt` that are text.
const DT_TEXTS: [&str; 20] = [
    "MACHINE",
    "HYPERVISOR",
    "HYPERVISOR_PATH",
    "CONSOLE",
    "CHANNEL",
    "NAME",
    "PEER",
    "PORT",
    "COOKIE",
    "SIDE",
    "BLOCK",
    "NET",
    "CONTROL",
    "UART",
    "DMA",
    "QUEUES",
    "QUEUE",
    "MACHINE_ADDRESS",
    "INTERRUPT",
    "BUNDLE_NODE",
];
