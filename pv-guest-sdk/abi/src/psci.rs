//! Numbers of the standard services that EL2 answers: PSCI, SMCCC, PV time, TRNG.
//!
//! PSCI: Arm DEN0022; SMCCC: Arm DEN0028; PV time: Arm DEN0057; TRNG: Arm DEN0098.

/// PSCI_VERSION.
pub const PSCI_VERSION: u32 = 0x8400_0000;
/// CPU_SUSPEND, SMC64.
pub const CPU_SUSPEND_64: u32 = 0xC400_0001;
/// CPU_SUSPEND, SMC32.
pub const CPU_SUSPEND_32: u32 = 0x8400_0001;
/// CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;
/// CPU_ON, SMC64.
pub const CPU_ON_64: u32 = 0xC400_0003;
/// CPU_ON, SMC32.
pub const CPU_ON_32: u32 = 0x8400_0003;
/// AFFINITY_INFO, SMC64.
pub const AFFINITY_INFO_64: u32 = 0xC400_0004;
/// AFFINITY_INFO, SMC32.
pub const AFFINITY_INFO_32: u32 = 0x8400_0004;
/// MIGRATE_INFO_TYPE.
pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// PSCI_FEATURES.
pub const PSCI_FEATURES: u32 = 0x8400_000A;
/// SYSTEM_RESET2, SMC64.
pub const SYSTEM_RESET2_64: u32 = 0xC400_0012;

/// SMCCC_VERSION.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// ARCH_WORKAROUND_1 (Spectre v2).
pub const ARCH_WORKAROUND_1: u32 = 0x8000_8000;
/// ARCH_WORKAROUND_2 (speculative store bypass).
pub const ARCH_WORKAROUND_2: u32 = 0x8000_7FFF;
/// ARCH_WORKAROUND_3 (branch history).
pub const ARCH_WORKAROUND_3: u32 = 0x8000_3FFF;

/// PV_TIME_FEATURES.
pub const PV_TIME_FEATURES: u32 = 0xC500_0020;
/// PV_TIME_ST.
pub const PV_TIME_ST: u32 = 0xC500_0021;

/// TRNG_VERSION.
pub const TRNG_VERSION: u32 = 0x8400_0050;
/// TRNG_FEATURES.
pub const TRNG_FEATURES: u32 = 0x8400_0051;
/// TRNG_GET_UUID.
pub const TRNG_GET_UUID: u32 = 0x8400_0052;
/// TRNG_RND, SMC32.
pub const TRNG_RND_32: u32 = 0x8400_0053;
/// TRNG_RND, SMC64.
pub const TRNG_RND_64: u32 = 0xC400_0053;

/// Vendor-hypervisor UID query.
pub const VENDOR_UID: u32 = 0x8600_FF01;
/// Vendor-hypervisor revision query: major in x0, minor in x1.
pub const VENDOR_REVISION: u32 = 0x8600_FF03;

/// PSCI return values.
pub mod ret {
    /// SUCCESS.
    pub const SUCCESS: i64 = 0;
    /// NOT_SUPPORTED.
    pub const NOT_SUPPORTED: i64 = -1;
    /// INVALID_PARAMETERS.
    pub const INVALID_PARAMETERS: i64 = -2;
    /// DENIED.
    pub const DENIED: i64 = -3;
    /// ALREADY_ON.
    pub const ALREADY_ON: i64 = -4;
    /// ON_PENDING.
    pub const ON_PENDING: i64 = -5;
    /// INTERNAL_FAILURE.
    pub const INTERNAL_FAILURE: i64 = -6;
    /// INVALID_ADDRESS.
    pub const INVALID_ADDRESS: i64 = -9;
    /// TRNG NO_ENTROPY.
    pub const TRNG_NO_ENTROPY: i64 = -3;
}
