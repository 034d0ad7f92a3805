//! The calls, one file for each object they act on. Each function is one call: typed arguments, look-up with rights, the
//! operation on the object, one status.

pub mod domain;
pub mod extent;
pub mod handle;
pub mod port;
pub mod psci;
pub mod system;
pub mod this;
pub mod vcpu;

use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use crate::object::handle::{Object, lookup};
use crate::object::system::System;
use crate::object::vcpu::Vcpu;
use portico_abi::handle::{SELF_DOMAIN, SELF_RIGHTS};
use portico_abi::{Handle, Rights, Status};

/// Arguments and results of one call. The arguments stay where the trap has stored them, which nobody writes to before the call ends; its
/// results go there at the end, since a call that is executed again needs its arguments.
pub struct Args {
    /// The caller.
    pub vcpu: Ref<Vcpu>,
    results: [u64; 3],
    result_count: usize,
}

impl Args {
    /// Those of the call that `vcpu` makes.
    pub fn new(vcpu: Ref<Vcpu>) -> Self {
        Self { vcpu, results: [0; 3], result_count: 0 }
    }

    /// Argument `N`, 1 to 6.
    #[inline(always)]
    pub fn get<const N: usize>(&self) -> u64 {
        const { assert!(N >= 1 && N <= 6) };
        // SAFETY: the caller is current on this pCPU, and no other reference to its context is live while the register is read.
        unsafe { self.vcpu.context() }.reg(N as u8)
    }

    /// Argument `N` as a handle; the upper half is ignored, as of any 32-bit SMCCC argument.
    pub fn handle<const N: usize>(&self) -> Handle {
        Handle::from_raw(self.get::<N>() as u32)
    }

    /// Argument `N` as an object of the caller's table, on which it has `rights`.
    pub fn object<const N: usize, T: Object>(&self, graph: &Graph, rights: Rights) -> Result<Ref<T>, Status> {
        lookup(graph, self.caller(), self.handle::<N>(), rights)
    }

    /// Argument `N` as a domain on which the caller has `rights`: itself for `SELF_DOMAIN`, else by handle.
    pub fn domain<const N: usize>(&self, graph: &Graph, rights: Rights) -> Result<Ref<Domain>, Status> {
        match self.handle::<N>() {
            SELF_DOMAIN if SELF_RIGHTS.contains(rights) => Ok(self.caller()),
            SELF_DOMAIN => Err(Status::NoRights),
            _ => self.object::<N, Domain>(graph, rights),
        }
    }

    /// Checks argument 1 as the System handle.
    #[inline(never)]
    pub fn system(&self, graph: &Graph) -> Result<(), Status> {
        self.object::<1, System>(graph, Rights::ROOT).map(drop)
    }

    /// The calling domain.
    pub fn caller(&self) -> Ref<Domain> {
        self.vcpu.domain
    }

    /// Ends the call well, with results, x1 on.
    pub fn done<const N: usize>(&mut self, results: [u64; N]) -> Outcome {
        const { assert!(N <= 3) };
        self.results.iter_mut().zip(results).for_each(|(to, result)| *to = result);
        self.result_count = N;
        Ok(Status::Ok)
    }

    /// Ends a call that has done a piece: whether it is to be made again, and what x1 tells.
    pub fn piece(&mut self, (status, progress): (Status, u64)) -> Outcome {
        self.done([progress]).map(|_| status)
    }

    /// Writes status and results to the caller's registers.
    pub fn finish(self, status: Status) {
        // SAFETY: the caller is still current, and no other reference to its context is live.
        let context = unsafe { self.vcpu.context() };
        context.set_reg(0, status.raw() as u64);
        for (n, value) in self.results.iter().enumerate().take(self.result_count) {
            context.set_reg(n as u8 + 1, *value);
        }
    }
}

/// Outcome of a call: `Ok(Status::Ok)`, `Ok(Status::Again)`, or an error. Results are in [`Args`].
///
/// `Err(Status::Again)` is none of the ABI's: nothing was done because memory that is already given back is not free yet, and the guest
/// executes the same call again.
pub type Outcome = Result<Status, Status>;

/// Refuses an argument with bits outside `mask`.
pub fn only_bits(value: u64, mask: u64) -> Result<u64, Status> {
    if value & !mask == 0 { Ok(value) } else { Err(Status::Invalid) }
}
