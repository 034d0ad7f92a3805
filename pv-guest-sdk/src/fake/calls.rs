//! The calls that the fake answers.

use super::{Exit, MASKED, OUTSIDE, PortEnd, World, with};
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use portico_abi::call::{features, info};
use portico_abi::handle::SELF_DOMAIN;
use portico_abi::page::VcpuPage;
use portico_abi::port::{BIT_FIRST_FREE, BITS_PER_SELECTOR, DEADLINE_NEVER, PORT_BITS};
use portico_abi::{Call, Handle, ObjectType, Rights, Status, psci};

type Answer = Result<[u64; 3], Status>;

/// The handle of a port's slot.
pub fn handle_of(slot: usize) -> Handle {
    Handle::new(slot as u16 + 1, 1)
}

/// The slot of a handle; one that no port has for a wrong handle.
pub fn slot_of(handle: Handle) -> usize {
    if handle.generation() == 1 { usize::from(handle.slot()).wrapping_sub(1) } else { usize::MAX }
}

/// Adds two linked ports.
pub fn add_pair(ports: &mut Vec<PortEnd>) {
    let first = ports.len();
    for peer in [first + 1, first] {
        ports.push(PortEnd { cookie: 0, peer, bound: None, notified: false, gone: false });
    }
}

/// Decodes and makes a call.
pub fn call(function: u64, arguments: [u64; 6]) -> [u64; 4] {
    let id = function as u32;
    let Some(call) = Call::from_function_id(id) else { return standard(id) };
    let hook = with(|world| {
        world.calls += 1;
        world.hooks.remove(&(call as u32))
    });
    if let Some(mut hook) = hook {
        let answer = hook(arguments);
        with(|world| {
            world.hooks.entry(call as u32).or_insert(hook);
        });
        return answer;
    }
    match dispatch(call, arguments) {
        Ok([r1, r2, r3]) => [0, r1, r2, r3],
        Err(status) => [status.raw().cast_unsigned(), 0, 0, 0],
    }
}

/// PSCI and SMCCC, as far as there is one vCPU.
fn standard(id: u32) -> [u64; 4] {
    match id {
        psci::PSCI_VERSION => [0x1_0001, 0, 0, 0],
        psci::SMCCC_VERSION => [0x1_0002, 0, 0, 0],
        psci::VENDOR_UID => portico_abi::UID.map(u64::from),
        _ => [psci::ret::NOT_SUPPORTED.cast_unsigned(), 0, 0, 0],
    }
}

fn dispatch(call: Call, arguments: [u64; 6]) -> Answer {
    let [a1, a2, a3, a4, _, _] = arguments;
    match call {
        Call::AbiFeatures if a1 == 0 => {
            let version = u64::from(portico_abi::VERSION_MAJOR) << 16 | u64::from(portico_abi::VERSION_MINOR);
            Ok([version, features::PORTS, u64::from(portico_abi::MANAGEMENT_VERSION)])
        }
        Call::AbiFeatures => Ok([0; 3]),
        Call::SelfInfo => with(|world| self_info(world, a1, a2)).map(|value| [value, 0, 0]),
        Call::EarlyWrite => early_write(arguments),
        Call::SelfExit => {
            with(|world| world.exit.get_or_insert(Exit { kind: a1, code: a2 }).code);
            super::ended()
        }
        Call::HandleInfo => with(|world| {
            let end = world.ports.get(slot_of(raw(a1))).ok_or(Status::BadHandle)?;
            let rights = Rights::NOTIFY | Rights::BIND | Rights::INSPECT;
            Ok([ObjectType::Port as u64 | u64::from(rights.bits()) << 16, end.cookie, u64::from(end.gone)])
        }),
        Call::HandleNext if raw(a1) == SELF_DOMAIN => with(|world| {
            let slot = usize::try_from(a2).map_err(|_| Status::Invalid)?;
            if slot >= world.ports.len() {
                return Err(Status::NotFound);
            }
            Ok([u64::from(handle_of(slot).raw()), a2 + 1, 0])
        }),
        Call::HandleClose => with(|world| {
            let end = world.ports.get_mut(slot_of(raw(a1))).ok_or(Status::BadHandle)?;
            (end.gone, end.bound, end.cookie) = (true, None, 0);
            Ok([0; 3])
        }),
        Call::PortNotify => with(|world| world.notify(raw(a1))),
        Call::PortNotifyWait => {
            with(|world| world.notify(raw(a1)))?;
            block(a2)
        }
        Call::PortPairCreate => with(|world| {
            if raw(a1) != SELF_DOMAIN || raw(a2) != SELF_DOMAIN {
                return Err(Status::BadHandle);
            }
            let slot = world.ports.len();
            add_pair(&mut world.ports);
            Ok([u64::from(handle_of(slot).raw()), u64::from(handle_of(slot + 1).raw()), 0])
        }),
        Call::PortBind => with(|world| world.bind(raw(a1), a2, a3, a4)),
        Call::PortUnbind => with(|world| {
            let end = world.ports.get_mut(slot_of(raw(a1))).ok_or(Status::BadHandle)?;
            end.bound = None;
            Ok([0; 3])
        }),
        Call::VcpuBlock => block(a1),
        Call::VcpuYield => Ok([0; 3]),
        _ => Err(Status::NotSupported),
    }
}

fn raw(register: u64) -> Handle {
    Handle::from_raw(register as u32)
}

fn self_info(world: &World, key: u64, index: u64) -> Result<u64, Status> {
    match key {
        info::UPCALL_VINTID => Ok(31),
        info::UPCALL_KIND => Ok(3),
        info::VCPU_PAGE_IPA if index == 0 => Ok(world.pages[0].address()),
        info::VCPU_PAGE_IPA if index == u64::from(OUTSIDE) => Ok(world.pages[1].address()),
        info::VCPU_INDEX => Ok(0),
        info::VCPU_COUNT => Ok(1),
        info::VCPU_MPIDR if index == 0 => Ok(0x8000_0000),
        info::INFO_PAGE_IPA => Ok(world.info.address()),
        info::GENERATION => Ok(1),
        _ => Err(Status::NotFound),
    }
}

fn early_write(arguments: [u64; 6]) -> Answer {
    let [len, words @ ..] = arguments;
    if !(1..=40).contains(&len) {
        return Err(Status::Invalid);
    }
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take(len as usize);
    with(|world| world.output.extend(bytes));
    Ok([0; 3])
}

/// Blocks the vCPU: lets the world outside run, then moves time.
pub fn block(deadline: u64) -> Answer {
    if with(|world| world.upcall_is_pending(0)) {
        return Ok([0; 3]);
    }
    let mut hooks = with(|world| {
        world.drain();
        core::mem::take(&mut world.on_block)
    });
    let masked = MASKED.swap(true, Ordering::SeqCst);
    for hook in &mut hooks {
        hook();
    }
    MASKED.store(masked, Ordering::SeqCst);
    with(|world| {
        hooks.append(&mut world.on_block);
        world.on_block = hooks;
        if world.upcall_is_pending(0) {
            return Ok([0; 3]);
        }
        let until = world.timer.unwrap_or(DEADLINE_NEVER).min(deadline);
        assert!(until != DEADLINE_NEVER, "the guest blocks for ever: nothing is pending, no deadline, no timer");
        world.advance_to(until);
        if world.upcall_is_pending(0) { Ok([0; 3]) } else { Err(Status::TimedOut) }
    })
}

impl World {
    fn page_of(&self, vcpu: u32) -> crate::window::Window {
        self.pages[usize::from(vcpu == OUTSIDE)]
    }

    fn byte(&self, vcpu: u32, offset: usize) -> u8 {
        let mut byte = [0];
        let _ = self.page_of(vcpu).read(offset, &mut byte);
        byte[0]
    }

    fn set_byte(&self, vcpu: u32, offset: usize) {
        let _ = self.page_of(vcpu).write(offset, &[1]);
    }

    pub(super) fn upcall_is_pending(&self, vcpu: u32) -> bool {
        self.byte(vcpu, offset_of!(VcpuPage, upcall_pending)) != 0
    }

    /// What EL2 does for a notified bit.
    pub(super) fn pend(&self, vcpu: u32, bit: u16) {
        let bit = usize::from(bit);
        self.set_byte(vcpu, offset_of!(VcpuPage, pending) + bit);
        if self.byte(vcpu, offset_of!(VcpuPage, mask) + bit) == 0 {
            self.set_byte(vcpu, offset_of!(VcpuPage, selectors) + bit / BITS_PER_SELECTOR);
            self.set_byte(vcpu, offset_of!(VcpuPage, upcall_pending));
        }
    }

    fn notify(&mut self, port: Handle) -> Answer {
        self.drain();
        let end = self.ports.get(slot_of(port)).ok_or(Status::BadHandle)?;
        if end.gone {
            return Err(Status::PeerGone);
        }
        let peer = end.peer;
        let peer = self.ports.get_mut(peer).ok_or(Status::PeerGone)?;
        match peer.bound {
            Some((vcpu, bit)) => self.pend(vcpu, bit),
            None => peer.notified = true,
        }
        Ok([0; 3])
    }

    fn bind(&mut self, port: Handle, vcpu: u64, bit: u64, class: u64) -> Answer {
        if class != 0 {
            return Err(Status::Invalid);
        }
        if bit < u64::from(BIT_FIRST_FREE) || bit >= PORT_BITS as u64 {
            return Err(Status::Invalid);
        }
        if vcpu != 0 && vcpu != u64::from(OUTSIDE) {
            return Err(Status::NotFound);
        }
        let target = (vcpu as u32, bit as u16);
        let end = self.ports.get_mut(slot_of(port)).ok_or(Status::BadHandle)?;
        let moved = end.bound.replace(target).is_some();
        if core::mem::take(&mut end.notified) || moved {
            self.pend(target.0, target.1);
        }
        Ok([0; 3])
    }
}
