//! AArch64 EL2 mechanisms: the only assembly, system registers and MMIO of the hypervisor.
//!
//! Mechanism only: nothing here knows domains, handles or policy. The crate is empty off the bare-metal
//! target, so that the workspace still checks on a host.
//!
//! Ground rules the modules rely on: EL2 runs with interrupts masked and is not preemptible; every pCPU
//! reaches its own data through `TPIDR_EL2` ([`pcpu`]); MMIO is mapped at boot by [`mmu::map_device`].
#![no_std]
#![cfg(all(target_arch = "aarch64", target_os = "none"))]

pub mod barrier;
pub mod boot;
pub mod cache;
pub mod context;
pub mod cpu;
pub mod fpsimd;
pub mod gic;
pub mod mmio;
pub mod mmu;
pub mod pcpu;
pub mod psci;
pub mod smp;
pub mod sysreg;
pub mod timer;
pub mod tlb;
pub mod vectors;
pub mod window;

/// System registers under Arm's names. Those of EL1 are the loaded guest's; ELR_EL2 and SPSR_EL2 are where and how it goes on.
pub use aarch64_cpu::registers;
