//! ABI.md, "What is standard": PSCI, SMCCC, PV time, TRNG.

use crate::tap::Tap;
use portico_sdk::abi::call::info;
use portico_sdk::abi::page::InfoPage;
use portico_sdk::abi::{UID, dt, psci};
use portico_sdk::{dtb, entropy, hvc, vcpu};

/// All checks.
pub fn check(tap: &mut Tap) {
    smccc(tap);
    power(tap);
    stolen_time(tap);
    random(tap);
}

fn call(id: u32, arguments: [u64; 3]) -> [u64; 4] {
    let [a, b, c] = arguments;
    hvc::raw(u64::from(id), [a, b, c, 0, 0, 0])
}

fn signed(id: u32, arguments: [u64; 3]) -> i64 {
    call(id, arguments)[0].cast_signed()
}

fn smccc(tap: &mut Tap) {
    tap.holds("SMCCC: version 1.2 or later", (0x1_0002..0x2_0000).contains(&signed(psci::SMCCC_VERSION, [0; 3])));
    tap.is("SMCCC: UID", call(psci::VENDOR_UID, [0; 3]), UID.map(u64::from));
    tap.is("SMCCC: revision", call(psci::VENDOR_REVISION, [0; 3])[0], 1);
    tap.is(
        "SMCCC: ARCH_FEATURES of itself",
        signed(psci::SMCCC_ARCH_FEATURES, [u64::from(psci::SMCCC_ARCH_FEATURES), 0, 0]),
        0,
    );
    tap.is(
        "SMCCC: ARCH_FEATURES of nothing",
        signed(psci::SMCCC_ARCH_FEATURES, [0x1234, 0, 0]),
        psci::ret::NOT_SUPPORTED,
    );
}

fn power(tap: &mut Tap) {
    tap.is("PSCI: version 1.1", signed(psci::PSCI_VERSION, [0; 3]), 0x1_0001);
    let features = |id: u32| signed(psci::PSCI_FEATURES, [u64::from(id), 0, 0]);
    let offered = [
        psci::PSCI_VERSION,
        psci::CPU_SUSPEND_64,
        psci::CPU_OFF,
        psci::CPU_ON_64,
        psci::CPU_ON_32,
        psci::AFFINITY_INFO_64,
        psci::MIGRATE_INFO_TYPE,
        psci::SYSTEM_OFF,
        psci::SYSTEM_RESET,
        psci::SYSTEM_RESET2_64,
        psci::PSCI_FEATURES,
        psci::SMCCC_VERSION,
    ];
    tap.is("PSCI: features that must be offered", offered.into_iter().find(|&id| features(id) < 0), None);
    tap.is("PSCI: a feature of nobody", features(0x8400_001f), psci::ret::NOT_SUPPORTED);
    tap.is("PSCI: no trusted OS", signed(psci::MIGRATE_INFO_TYPE, [0; 3]), 2);
    let own = hvc::self_info(info::VCPU_MPIDR, 0).unwrap_or(0) & 0xff_00ff_ffff;
    tap.is("PSCI: this vCPU is on", signed(psci::AFFINITY_INFO_64, [own, 0, 0]), 0);
    tap.is(
        "PSCI: AFFINITY_INFO of nobody",
        signed(psci::AFFINITY_INFO_64, [0xff_00ff_fff0, 0, 0]),
        psci::ret::INVALID_PARAMETERS,
    );
    tap.is(
        "PSCI: CPU_ON of nobody",
        signed(psci::CPU_ON_64, [0xff_00ff_fff0, dt::RAM_BASE, 0]),
        psci::ret::INVALID_PARAMETERS,
    );
    tap.is(
        "PSCI: CPU_ON with junk in the affinity",
        signed(psci::CPU_ON_64, [u64::MAX, dt::RAM_BASE, 0]),
        psci::ret::INVALID_PARAMETERS,
    );
    tap.is("PSCI: CPU_ON of a running vCPU", signed(psci::CPU_ON_64, [own, dt::RAM_BASE, 0]), psci::ret::ALREADY_ON);
    if vcpu::count() > 1 {
        let other = hvc::self_info(info::VCPU_MPIDR, 1).unwrap_or(0) & 0xff_00ff_ffff;
        tap.is("PSCI: the other vCPU is off", signed(psci::AFFINITY_INFO_64, [other, 0, 0]), 1);
        tap.is("PSCI: CPU_ON at no address", signed(psci::CPU_ON_64, [other, 1 << 50, 0]), psci::ret::INVALID_ADDRESS);
    } else {
        tap.skip("PSCI: the other vCPU is off", "one vCPU");
        tap.skip("PSCI: CPU_ON at no address", "one vCPU");
    }
}

fn stolen_time(tap: &mut Tap) {
    let features = signed(psci::SMCCC_ARCH_FEATURES, [u64::from(psci::PV_TIME_FEATURES), 0, 0]);
    tap.is("PV_TIME: discovered by SMCCC_ARCH_FEATURES", features, 0);
    tap.is("PV_TIME: PV_TIME_ST is offered", signed(psci::PV_TIME_FEATURES, [u64::from(psci::PV_TIME_ST), 0, 0]), 0);
    tap.is("PV_TIME: another is not", signed(psci::PV_TIME_FEATURES, [0xc500_0022, 0, 0]), psci::ret::NOT_SUPPORTED);
    let record = signed(psci::PV_TIME_ST, [0; 3]);
    let wanted = dt::INFO_PAGE + InfoPage::STOLEN_OFFSET as u64;
    tap.is("PV_TIME: the record of vCPU 0 is in the information page", record, wanted.cast_signed());
    if record == wanted.cast_signed() {
        // SAFETY: as just checked, it lies in the information page, which is mapped.
        let words = unsafe { core::ptr::with_exposed_provenance::<u64>(record as usize).read_volatile() };
        tap.is("PV_TIME: revision and attributes are zero", words, 0);
    }
}

fn random(tap: &mut Tap) {
    tap.holds("TRNG: version 1", signed(psci::TRNG_VERSION, [0; 3]) >= 0x1_0000);
    tap.is("TRNG: RND is offered", signed(psci::TRNG_FEATURES, [u64::from(psci::TRNG_RND_64), 0, 0]), 0);
    tap.is("TRNG: no bits", signed(psci::TRNG_RND_64, [0; 3]), psci::ret::INVALID_PARAMETERS);
    tap.is("TRNG: too many bits", signed(psci::TRNG_RND_64, [193, 0, 0]), psci::ret::INVALID_PARAMETERS);
    let [status, high, middle, low] = call(psci::TRNG_RND_64, [68, 0, 0]);
    let cut = high == 0 && middle < 16;
    tap.holds("TRNG: 68 bits, or NO_ENTROPY", status == 0 && cut || status.cast_signed() == psci::ret::TRNG_NO_ENTROPY);
    let [again, _, _, other] = call(psci::TRNG_RND_64, [68, 0, 0]);
    tap.holds("TRNG: other bits the next time", status != 0 || again != 0 || low != other);
    // EL2 has entropy or has not, from before the first domain on.
    let seeds = (dtb::rng_seed().map(<[u8]>::len), entropy::seed().map(|seed| seed.len()));
    tap.is("a seed in the device tree where TRNG gives one", seeds.0, seeds.1);
    let is_other = dtb::rng_seed().is_none_or(|seed| entropy::seed().is_some_and(|other| seed != other));
    tap.holds("it is not what TRNG gives next", is_other);
}
