//! Standard services: PSCI, SMCCC discovery, PV time, TRNG, the vendor's UID.
//!
//! (Arm DEN0022 "PSCI", Arm DEN0028 "SMCCC", Arm DEN0057 "Paravirtualized Time", Arm DEN0098 "TRNG")

use core::sync::atomic::Ordering;

use crate::entropy;
use crate::graph::{self, Ref};
use crate::object::domain;
use crate::object::vcpu::Vcpu;
use crate::power;
use crate::sched;
use crate::trap::{Next, STAY, set_result};
use portico_abi::page::{InfoPage, MAX_VCPUS};
use portico_abi::psci as id;
use portico_abi::psci::ret;
use portico_abi::record::EndReason;
use portico_abi::{UID, VERSION_MAJOR, VERSION_MINOR};
use portico_arch::context::VcpuContext;

/// PSCI 1.1.
pub const PSCI_1_1: u64 = 0x0001_0001;
/// SMCCC 1.2.
const SMCCC_1_2: u64 = 0x0001_0002;
/// MIGRATE_INFO_TYPE: no Trusted OS.
const NO_TRUSTED_OS: u64 = 2;
/// TRNG 1.0.
const TRNG_1_0: u64 = 0x0001_0000;
/// What is offered of PSCI.
const PSCI: &[u32] = &[
    id::PSCI_VERSION,
    id::PSCI_FEATURES,
    id::CPU_ON_32,
    id::CPU_ON_64,
    id::CPU_OFF,
    id::AFFINITY_INFO_32,
    id::AFFINITY_INFO_64,
    id::MIGRATE_INFO_TYPE,
    id::SYSTEM_OFF,
    id::SYSTEM_RESET,
    id::SYSTEM_RESET2_64,
    id::CPU_SUSPEND_32,
    id::CPU_SUSPEND_64,
    id::SMCCC_VERSION,
];
/// What is offered of TRNG.
const TRNG: &[u32] = &[id::TRNG_VERSION, id::TRNG_FEATURES, id::TRNG_GET_UUID, id::TRNG_RND_32, id::TRNG_RND_64];
/// Words of the TRNG UUID, 1f7c5e3a-4b8d-4e6f-9c21-7d0a5b92e847.
const TRNG_UUID: [u32; 4] = [UID[0], UID[1], UID[2], UID[3] + 0x0100_0000];

/// Answers of AFFINITY_INFO.
const AFFINITY_ON: u64 = 0;
const AFFINITY_OFF: u64 = 1;

/// Answers a call outside our own range.
pub fn call(vcpu: Ref<Vcpu>, function: u32) -> Next {
    // SAFETY: it is current here, and no other reference to its context is live.
    let context = unsafe { vcpu.context() };
    let (x1, x2, x3) = (context.reg(1), context.reg(2), context.reg(3));
    // Arguments of an SMC32 call are 32 bits wide.
    let narrow = function & 1 << 30 == 0;
    let cut = |x: u64| if narrow { x & 0xffff_ffff } else { x };
    let result = match function {
        id::PSCI_VERSION => PSCI_1_1,
        id::MIGRATE_INFO_TYPE => NO_TRUSTED_OS,
        id::PSCI_FEATURES => offered(x1 as u32, PSCI),
        id::CPU_ON_32 | id::CPU_ON_64 => cpu_on(vcpu, cut(x1), cut(x2), cut(x3)),
        id::AFFINITY_INFO_32 | id::AFFINITY_INFO_64 => affinity_info(vcpu, cut(x1), cut(x2)),
        id::CPU_OFF => return power::off(vcpu),
        id::CPU_SUSPEND_32 | id::CPU_SUSPEND_64 => return suspend(vcpu, x1),
        id::SYSTEM_OFF => return end(vcpu, EndReason::Off),
        id::SYSTEM_RESET => return end(vcpu, EndReason::Reboot),
        id::SYSTEM_RESET2_64 => return end(vcpu, EndReason::Reboot),
        id::SMCCC_VERSION => SMCCC_1_2,
        id::SMCCC_ARCH_FEATURES => arch_features(x1 as u32),
        id::ARCH_WORKAROUND_1 | id::ARCH_WORKAROUND_3 => workaround(function),
        id::PV_TIME_FEATURES => offered(x1 as u32, &[id::PV_TIME_FEATURES, id::PV_TIME_ST]),
        id::PV_TIME_ST => pv_time_st(vcpu),
        id::TRNG_VERSION => TRNG_1_0,
        id::TRNG_FEATURES => offered(x1 as u32, TRNG),
        id::TRNG_GET_UUID => uuid(context, TRNG_UUID),
        id::TRNG_RND_32 | id::TRNG_RND_64 => {
            let (status, words) = random(narrow, x1);
            for (n, word) in words.iter().enumerate() {
                context.set_reg(n as u8 + 1, *word);
            }
            signed(status)
        }
        id::VENDOR_UID => uuid(context, UID),
        id::VENDOR_REVISION => {
            context.set_reg(1, u64::from(VERSION_MINOR));
            u64::from(VERSION_MAJOR)
        }
        _ => {
            crate::hypercall::system::count_bad_call();
            signed(ret::NOT_SUPPORTED)
        }
    };
    set_result(vcpu, result);
    // CPU_ON may have made one ready that preempts the caller, and nothing else would ask again.
    sched::after_call(vcpu)
}

const fn signed(value: i64) -> u64 {
    value as u64
}

fn arch_features(function: u32) -> u64 {
    match function {
        id::SMCCC_VERSION | id::SMCCC_ARCH_FEATURES => signed(ret::SUCCESS),
        id::PV_TIME_FEATURES => signed(ret::SUCCESS),
        id::ARCH_WORKAROUND_1 | id::ARCH_WORKAROUND_3 => signed(crate::machine::workaround_needed(function)),
        _ => signed(ret::NOT_SUPPORTED),
    }
}

/// The guest asks for its branch predictor to be cleaned. The history is clean since the vectors ran the loop; the rest is the firmware's.
fn workaround(function: u32) -> u64 {
    if crate::machine::workaround_needed(function) < 0 {
        return signed(ret::NOT_SUPPORTED);
    }
    if function == id::ARCH_WORKAROUND_1 {
        crate::machine::clean_branch_predictor();
    }
    signed(ret::SUCCESS)
}

fn by_mpidr(vcpu: Ref<Vcpu>, mpidr: u64) -> Option<Ref<Vcpu>> {
    vcpu.domain.vcpus().find(|other| other.mpidr == mpidr)
}

fn cpu_on(vcpu: Ref<Vcpu>, mpidr: u64, entry: u64, context_id: u64) -> u64 {
    let graph = &mut *graph::lock();
    let Some(target) = by_mpidr(vcpu, mpidr) else { return signed(ret::INVALID_PARAMETERS) };
    if entry >> vcpu.domain.ipa_bits != 0 || entry & 3 != 0 {
        return signed(ret::INVALID_ADDRESS);
    }
    if target.powered.get(graph) {
        return signed(ret::ALREADY_ON);
    }
    match power::on(graph, target, entry, context_id) {
        Ok(()) => signed(ret::SUCCESS),
        // Going off on another pCPU: it is off in a moment, or has become so since `on` looked.
        Err(_) => {
            if !sched::control::is_at_rest(target) {
                sched::control::evict(target);
            }
            signed(ret::ON_PENDING)
        }
    }
}

fn affinity_info(vcpu: Ref<Vcpu>, mpidr: u64, level: u64) -> u64 {
    if level != 0 {
        return signed(ret::INVALID_PARAMETERS);
    }
    let graph = &mut *graph::lock();
    match by_mpidr(vcpu, mpidr) {
        Some(target) if target.powered.get(graph) => AFFINITY_ON,
        Some(_) => AFFINITY_OFF,
        None => signed(ret::INVALID_PARAMETERS),
    }
}

/// Power state with StateType 0 is a standby: like WFI. A power-down state is refused: a guest that wants it uses CPU_OFF.
fn suspend(vcpu: Ref<Vcpu>, power_state: u64) -> Next {
    if power_state & 1 << 16 != 0 {
        set_result(vcpu, signed(ret::INVALID_PARAMETERS));
        return STAY;
    }
    set_result(vcpu, signed(ret::SUCCESS));
    sched::queue::block_wfi(vcpu)
}

fn end(vcpu: Ref<Vcpu>, reason: EndReason) -> Next {
    domain::end(&mut graph::lock(), vcpu.domain, reason, 0);
    sched::reconsider(vcpu)
}

/// Whether a function is one of those that are offered.
fn offered(function: u32, functions: &[u32]) -> u64 {
    signed(if functions.contains(&function) { ret::SUCCESS } else { ret::NOT_SUPPORTED })
}

/// Answers with the words of a UUID, x1 on; returns that for x0.
fn uuid(context: &mut VcpuContext, words: [u32; 4]) -> u64 {
    let [x0, x1, x2, x3] = words.map(u64::from);
    (1..).zip([x1, x2, x3]).for_each(|(n, word)| context.set_reg(n, word));
    x0
}

fn pv_time_st(vcpu: Ref<Vcpu>) -> u64 {
    let graph = &*graph::lock();
    let index = usize::from(vcpu.index);
    if vcpu.domain.info_page.load(Ordering::Acquire).is_null() || index >= MAX_VCPUS {
        return signed(ret::NOT_SUPPORTED);
    }
    vcpu.domain.info_ipa.get(graph)
        + (InfoPage::STOLEN_OFFSET + index * size_of::<portico_abi::page::StolenTime>()) as u64
}

/// `bits` of entropy, the lowest in the last register. (Arm DEN0098, "TRNG_RND")
fn random(narrow: bool, bits: u64) -> (i64, [u64; 3]) {
    let width: u64 = if narrow { 32 } else { 64 };
    if bits == 0 || bits > 3 * width {
        return (ret::INVALID_PARAMETERS, [0; 3]);
    }
    let Some(mut words) = entropy::words() else { return (ret::TRNG_NO_ENTROPY, [0; 3]) };
    for (n, word) in words.iter_mut().rev().enumerate() {
        let left = bits.saturating_sub(n as u64 * width).min(width);
        *word &= match left {
            0 => 0,
            64 => u64::MAX,
            left => (1 << left) - 1,
        };
    }
    (ret::SUCCESS, words)
}
