//! Ports: being notified, and notifying.
//!
//! A port that is bound has a *bit* on a vCPU: a pending byte and a mask byte in its page. EL2 only ever stores 1
//! to a pending byte, the guest only ever stores 0, so neither needs an atomic read-modify-write.
//!
//! # The protocol, in three phases
//!
//! EL2, at a notification: `pending = 1`; barrier; if `mask == 0`: `selector = 1`; `upcall_pending = 1`; raise the upcall.
//!
//! The guest, in the upcall ([`scan`]):
//!
//! 1. **Disarm.** `upcall_pending = 0`, barrier. A notification from here on raises the upcall again.
//! 2. **Collect.** For each selector that is set: `selector = 0`, barrier, then look at its 64 pending bytes. A bit
//!    that is notified *after* its byte was looked at has set its selector and `upcall_pending` again.
//! 3. **Process.** For each pending bit that is not masked: `pending = 0`, barrier, call the handler.
//!    The barrier closes the lost-wake-up window: a peer that put work in a ring and found the byte still 1 (so that
//!    EL2 did nothing) did so before our store of 0 was seen, and so our handler, after the barrier, sees its work.
//!
//! Waiting: look for work with interrupts masked, then [`hvc::vcpu_block`] and only then unmask. A notification
//! between the look and the block leaves `upcall_pending` at 1, since no handler could clear it, and block
//! returns at once. [`wait_until`] is that loop. Unmasking a port has the same shape: `mask = 0`, barrier, look at
//! `pending`; if it is 1 EL2 may have seen the mask, and the guest itself must act.

use crate::doorbell::Doorbell;
use crate::{hvc, irq, vcpu};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use portico_abi::pending;
use portico_abi::port::{BIT_FIRST_FREE, DEADLINE_NEVER, PORT_BITS};
use portico_abi::{Handle, Status, handle::SELF_DOMAIN};

/// Called in interrupt context, with interrupts masked, when its bit was notified: `(bit, argument)`.
pub type Handler = fn(bit: u16, argument: usize);

/// What is registered for one bit. A bit number has the same handler on every vCPU.
struct Slot {
    /// 0, or a `Handler`.
    handler: AtomicUsize,
    argument: AtomicUsize,
}

/// How many bits have a handler.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);
static SLOTS: [Slot; PORT_BITS] =
    [const { Slot { handler: AtomicUsize::new(0), argument: AtomicUsize::new(0) } }; PORT_BITS];
/// Bits that the SDK has given out.
static TAKEN: [AtomicBool; PORT_BITS] = [const { AtomicBool::new(false) }; PORT_BITS];

/// One end of a notification link, bound to a bit of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    handle: Handle,
    vcpu: u32,
    bit: u16,
    /// The vCPU's page, if it was there when the port was made.
    page: Option<vcpu::Page>,
}

impl Port {
    /// Binds a port to a free bit of the calling vCPU.
    ///
    /// # Errors
    /// `Limit` if no bit is free, and those of [`hvc::port_bind`].
    pub fn bind(handle: Handle) -> Result<Port, Status> {
        Self::bind_on(handle, vcpu::index())
    }

    /// Binds a port to a free bit of vCPU `vcpu`.
    ///
    /// # Errors
    /// As [`Port::bind`].
    pub fn bind_on(handle: Handle, vcpu: u32) -> Result<Port, Status> {
        let bit = take_bit()?;
        Self::bind_at(handle, vcpu, bit).inspect_err(|_| free_bit(bit))
    }

    /// Binds a port to bit `bit`, which the caller got from [`take_bit`] or keeps free by other means.
    ///
    /// # Errors
    /// Those of [`hvc::port_bind`].
    pub fn bind_at(handle: Handle, vcpu: u32, bit: u16) -> Result<Port, Status> {
        hvc::port_bind(handle, vcpu, bit)?;
        Ok(Port { handle, vcpu, bit, page: vcpu::of(vcpu).and_then(vcpu::PerVcpu::page) })
    }

    /// A port for a bit that is bound already and whose handle, if any, the caller does not need: the timer or event bit.
    pub const fn fixed(vcpu: u32, bit: u16) -> Port {
        Port { handle: Handle::NONE, vcpu, bit, page: None }
    }

    /// A port that is bound already, to this bit of this vCPU.
    pub const fn assume_bound(handle: Handle, vcpu: u32, bit: u16) -> Port {
        Port { handle, vcpu, bit, page: None }
    }

    /// Its handle.
    pub const fn handle(&self) -> Handle {
        self.handle
    }

    /// Its bit.
    pub const fn bit(&self) -> u16 {
        self.bit
    }

    /// The vCPU that is notified.
    pub const fn vcpu(&self) -> u32 {
        self.vcpu
    }

    /// Notifies the other end.
    ///
    /// # Errors
    /// `PeerGone`.
    #[inline]
    pub fn notify(&self) -> Result<(), Status> {
        hvc::port_notify(self.handle)
    }

    /// Whether it was notified since the last time; forgets it. For ports without a handler function.
    #[inline]
    pub fn take(&self) -> bool {
        let Some(page) = self.page() else { return false };
        if page.pending(self.bit).load(Ordering::Relaxed) == 0 {
            return false;
        }
        pending::forget(page, self.bit);
        true
    }

    /// Whether it is pending; does not forget it.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.page().is_some_and(|page| page.pending(self.bit).load(Ordering::Acquire) != 0)
    }

    /// Lets notifications only set the pending byte, without an upcall.
    pub fn mask(&self) {
        if let Some(page) = self.page() {
            page.mask(self.bit).store(1, Ordering::SeqCst);
        }
    }

    /// Ends [`Port::mask`]. If the port was notified meanwhile its handler is called now; without a
    /// handler the answer is `true` and the pending byte stays set, for [`Port::take`].
    pub fn unmask(&self) -> bool {
        let Some(page) = self.page() else { return false };
        pending::unmask(page, self.bit);
        if page.pending(self.bit).load(Ordering::Relaxed) == 0 {
            return false;
        }
        match handler_of(self.bit) {
            Some((handler, argument)) => irq::masked(|| {
                if self.take() {
                    handler(self.bit, argument);
                }
                false
            }),
            None => true,
        }
    }

    /// Sets the function to call when it is notified; what is pending already is handled at once.
    pub fn on_notify(&self, handler: Handler, argument: usize) {
        set_handler(self.bit, handler, argument);
        irq::masked(|| {
            if self.vcpu == vcpu::index() && self.take() {
                handler(self.bit, argument);
            }
        });
    }

    /// Blocks until it is notified, and forgets that. Handlers of other ports run meanwhile.
    ///
    /// # Errors
    /// `TimedOut` at `deadline` (a value of CNTVCT_EL0).
    pub fn wait(&self, deadline: u64) -> Result<(), Status> {
        wait_until(deadline, || self.take())
    }

    /// Unbinds it, forgets its handler and gives its bit back. The handle stays.
    ///
    /// # Errors
    /// Those of [`hvc::port_unbind`].
    pub fn unbind(self) -> Result<(), Status> {
        hvc::port_unbind(self.handle)?;
        if let Some(page) = self.page() {
            page.pending(self.bit).store(0, Ordering::Relaxed);
            page.mask(self.bit).store(0, Ordering::Relaxed);
        }
        clear_handler(self.bit);
        free_bit(self.bit);
        Ok(())
    }

    #[inline]
    fn page(&self) -> Option<vcpu::Page> {
        self.page.or_else(|| vcpu::of(self.vcpu).and_then(vcpu::PerVcpu::page))
    }
}

/// Blocks until `condition` holds. It is evaluated with interrupts masked, again after each upcall.
///
/// # Errors
/// `TimedOut` at `deadline` (a value of CNTVCT_EL0, [`DEADLINE_NEVER`] for never).
pub fn wait_until(deadline: u64, condition: impl FnMut() -> bool) -> Result<(), Status> {
    wait_until_with(&mut Doorbell::new(), deadline, condition)
}

/// [`wait_until`], which makes what is owed.
pub(crate) fn wait_until_with(
    bell: &mut Doorbell,
    deadline: u64,
    mut condition: impl FnMut() -> bool,
) -> Result<(), Status> {
    loop {
        let timed_out = {
            let guard = irq::Guard::new();
            if condition() {
                bell.ring();
                return Ok(());
            }
            let blocked = bell.block(deadline);
            handle_upcall(&guard);
            blocked == Err(Status::TimedOut)
        };
        if timed_out {
            return if irq::masked(&mut condition) { Ok(()) } else { Err(Status::TimedOut) };
        }
    }
}

/// Blocks until the next upcall was handled or `deadline` is reached.
///
/// # Errors
/// `TimedOut`.
pub fn wait(deadline: u64) -> Result<(), Status> {
    wait_with(&mut Doorbell::new(), deadline)
}

/// [`wait`], which makes what is owed.
pub(crate) fn wait_with(bell: &mut Doorbell, deadline: u64) -> Result<(), Status> {
    let guard = irq::Guard::new();
    let blocked = bell.block(deadline);
    handle_upcall(&guard);
    blocked
}

/// Handles what woke the caller, with interrupts masked: handlers run from here. One who lets interrupts in acknowledges the upcall too,
/// which spares the exception that would come when the guard goes.
#[inline]
fn handle_upcall(guard: &irq::Guard) {
    if guard.was_masked() {
        scan();
    } else if vcpu::current().page().is_some_and(|page| page.upcall_pending().load(Ordering::Relaxed) != 0) {
        irq::upcall();
    }
}

/// Blocks for ever, running handlers.
pub fn idle() -> ! {
    loop {
        let _ = wait(DEADLINE_NEVER);
    }
}

/// Makes a pair of ports of the calling domain, linked to each other.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn pair() -> Result<(Handle, Handle), Status> {
    hvc::port_pair_create(SELF_DOMAIN, SELF_DOMAIN, 0, 0)
}

/// Takes a free bit number.
///
/// # Errors
/// `Limit` if there is none.
pub fn take_bit() -> Result<u16, Status> {
    (BIT_FIRST_FREE..PORT_BITS as u16)
        .find(|&bit| TAKEN.get(usize::from(bit)).is_some_and(|taken| !taken.swap(true, Ordering::AcqRel)))
        .ok_or(Status::Limit)
}

/// Gives a bit number back.
pub fn free_bit(bit: u16) {
    if let Some(taken) = TAKEN.get(usize::from(bit)) {
        taken.store(false, Ordering::Release);
    }
}

/// Sets the function that is called for a bit, on whichever vCPU it is notified.
pub fn set_handler(bit: u16, handler: Handler, argument: usize) {
    if let Some(slot) = SLOTS.get(usize::from(bit)) {
        slot.argument.store(argument, Ordering::Relaxed);
        if slot.handler.swap(handler as usize, Ordering::AcqRel) == 0 {
            HANDLERS.fetch_add(1, Ordering::Release);
        }
    }
}

/// Forgets the function of a bit.
pub fn clear_handler(bit: u16) {
    if let Some(slot) = SLOTS.get(usize::from(bit))
        && slot.handler.swap(0, Ordering::AcqRel) != 0
    {
        HANDLERS.fetch_sub(1, Ordering::Release);
    }
}

fn handler_of(bit: u16) -> Option<(Handler, usize)> {
    let slot = SLOTS.get(usize::from(bit))?;
    let raw = slot.handler.load(Ordering::Acquire);
    if raw == 0 {
        return None;
    }
    // SAFETY: only `set_handler` stores there, and only a `Handler`.
    let handler = unsafe { core::mem::transmute::<usize, Handler>(raw) };
    Some((handler, slot.argument.load(Ordering::Relaxed)))
}

/// Runs the handlers of everything that is pending on the calling vCPU. Interrupts must be masked.
///
/// The upcall does this; a guest that polls with interrupts masked calls it itself.
pub fn scan() {
    let Some(page) = vcpu::current().page() else { return };
    if HANDLERS.load(Ordering::Acquire) == 0 {
        // All bits stay pending for `Port::take`, and the selectors set: a handler that comes later looks at its own bit first.
        return pending::disarm(page);
    }
    pending::scan(page, |bit| process(page, bit));
}

/// Phase 3: process. A bit without a handler stays pending, for [`Port::take`].
fn process(page: vcpu::Page, bit: u16) {
    if page.mask(bit).load(Ordering::Relaxed) != 0 {
        return;
    }
    if let Some((handler, argument)) = handler_of(bit) {
        pending::forget(page, bit);
        handler(bit, argument);
    }
}

/// Forgets all bits and handlers: a new machine.
#[cfg(not(target_os = "none"))]
pub(crate) fn reset() {
    HANDLERS.store(0, Ordering::Release);
    for (slot, taken) in SLOTS.iter().zip(&TAKEN) {
        slot.handler.store(0, Ordering::Release);
        taken.store(false, Ordering::Release);
    }
}
