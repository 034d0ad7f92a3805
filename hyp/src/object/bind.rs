//! What can be bound to a vCPU: ports and interrupts.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::graph::{Graph, Ref};
use crate::object::domain::Domain;
use crate::object::handle::Object;
use crate::object::vcpu::Vcpu;
use portico_abi::Status;
use portico_abi::port::{BIT_FIRST_FREE, PORT_BITS};

/// A vCPU and a bit of its page, which fit in one word, so that a reader without a lock sees both or neither.
///
/// EL2's addresses have 39 bits: the bit number stands in bits 57:48 of the word.
#[derive(Clone, Copy)]
pub struct Target {
    /// Whom a notification reaches.
    pub vcpu: Ref<Vcpu>,
    /// What it sets.
    pub bit: u16,
}

impl Target {
    const BIT_SHIFT: u32 = 48;

    /// One that a guest may name.
    ///
    /// # Errors
    /// `Invalid` if `bit` is reserved or out of range.
    pub fn new(vcpu: Ref<Vcpu>, bit: u64) -> Result<Self, Status> {
        let bit = u16::try_from(bit).map_err(|_| Status::Invalid)?;
        if (BIT_FIRST_FREE..PORT_BITS as u16).contains(&bit) { Ok(Self { vcpu, bit }) } else { Err(Status::Invalid) }
    }

    /// The word; 0 is the unbound one.
    pub fn raw(self) -> u64 {
        self.vcpu.as_ptr() as u64 | u64::from(self.bit) << Self::BIT_SHIFT
    }

    /// Reads a word; `None` for the unbound one.
    #[inline(always)]
    pub fn load(word: &AtomicU64) -> Option<Self> {
        let raw = word.load(Ordering::Acquire);
        let pointer = (raw & ((1 << Self::BIT_SHIFT) - 1)) as *mut Vcpu;
        // SAFETY: the word was made by `raw` from a live reference, and is set to 0 before the vCPU is freed.
        unsafe { Ref::from_ptr(pointer) }.map(|vcpu| Self { vcpu, bit: (raw >> Self::BIT_SHIFT) as u16 })
    }
}

/// What reaches a vCPU while it is bound, and stands on the budget of a domain.
pub trait Bindable: Object + Sized {
    /// Whom it reaches: the word of a [`Target`].
    fn target(&self) -> &AtomicU64;
    /// The domain whose budget pays for it.
    fn owner(&self) -> Ref<Domain>;
    /// Reaches `target` from now on, also if it was bound.
    fn bind(&self, graph: &mut Graph, target: Target);
    /// Reaches nobody from now on.
    fn unbind(&self, graph: &mut Graph);
    /// Ends one whose handles are closed.
    fn retire(graph: &mut Graph, object: Ref<Self>);
}
