//! Ports: one end of a notification link.
//!
//! The hot fields are atomics that `port_notify` reads without a lock: whom a notification reaches ([`Port::target`]) and the
//! other end ([`Port::peer`]). Everything else changes under the graph lock.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

use crate::graph::{Graph, Ref};
use crate::notify;
use crate::object::bind::{Bindable, Target};
use crate::object::domain::Domain;
use crate::object::handle::{self, HandleChain};
use crate::object::slab;
use crate::object::vcpu::Vcpu;
use portico_abi::{Handle, Rights, Status};

/// One end of a notification link.
#[repr(C, align(64))]
pub struct Port {
    /// The other end; null once it is gone.
    pub peer: AtomicPtr<Port>,
    /// vCPU and bit that a notification of this end reaches; 0 while unbound: the word of a [`Target`].
    pub target: AtomicU64,
    /// Notified while unbound.
    latent: AtomicBool,
    /// The domain whose budget pays for it.
    owner: Ref<Domain>,
    /// Its handles.
    pub handles: HandleChain,
}

/// Rights of the two handles that a new pair begins with.
const PORT_RIGHTS: Rights = Rights::INSPECT.union(Rights::COPY).union(Rights::NOTIFY).union(Rights::BIND);

impl Port {
    fn new(owner: Ref<Domain>) -> Self {
        Self {
            peer: AtomicPtr::new(null_mut()),
            target: AtomicU64::new(0),
            latent: AtomicBool::new(false),
            owner,
            handles: HandleChain::new(None),
        }
    }

    /// Makes this end's bit pending because the other end notified. `Some` is the vCPU whose upcall must now be raised. Takes no lock.
    #[inline(always)]
    pub fn mark(&self) -> Option<Ref<Vcpu>> {
        match Target::load(&self.target) {
            Some(Target { vcpu, bit }) => notify::mark(vcpu, bit).then_some(vcpu),
            None => self.mark_unbound(),
        }
    }

    #[cold]
    #[inline(never)]
    fn mark_unbound(&self) -> Option<Ref<Vcpu>> {
        self.latent.store(true, Ordering::Relaxed);
        // Pairs with the fence in `bind`: either it sees `latent`, or we see its target.
        fence(Ordering::SeqCst);
        let Target { vcpu, bit } = Target::load(&self.target)?;
        let taken = self.latent.swap(false, Ordering::Relaxed);
        (taken && notify::mark(vcpu, bit)).then_some(vcpu)
    }

    /// Whether the other end is gone.
    pub fn peer_gone(&self) -> bool {
        self.peer.load(Ordering::Acquire).is_null()
    }
}

/// Makes a linked pair, one end in each domain's table, each paid by its domain.
///
/// # Errors
/// `NoBudget`, `Limit`.
pub fn create_pair(
    graph: &mut Graph,
    a: Ref<Domain>,
    b: Ref<Domain>,
    cookies: (u64, u64),
) -> Result<(Handle, Handle), Status> {
    let port_a = slab::alloc(graph, a, Port::new(a))?;
    let (handle_b, port_b) =
        handle::create(graph, b, Port::new(b), PORT_RIGHTS, cookies.1).inspect_err(|_| slab::free(graph, a, port_a))?;
    let handle_a = handle::insert(graph, a, port_a, PORT_RIGHTS, cookies.0).inspect_err(|_| {
        slab::free(graph, a, port_a);
        // A guest may have tried it already, so it ends like any other.
        let _ = handle::close(graph, b, handle_b);
    })?;
    port_a.peer.store(port_b.as_ptr(), Ordering::Release);
    port_b.peer.store(port_a.as_ptr(), Ordering::Release);
    Ok((handle_a, handle_b))
}

impl Bindable for Port {
    fn target(&self) -> &AtomicU64 {
        &self.target
    }

    fn owner(&self) -> Ref<Domain> {
        self.owner
    }

    /// A notification from before is pending at once; moving a bound port makes the new bit pending, since the old one may have been and an
    /// empty scan is legal.
    fn bind(&self, _graph: &mut Graph, target: Target) {
        let before = self.target.swap(target.raw(), Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.latent.swap(false, Ordering::Relaxed) || before != 0 {
            notify::pend(target.vcpu, target.bit);
        }
    }

    /// What arrives from now on is remembered.
    fn unbind(&self, _graph: &mut Graph) {
        self.target.store(0, Ordering::Release);
    }

    /// Tells the peer, and retires the memory.
    fn retire(graph: &mut Graph, port: Ref<Self>) {
        port.unbind(graph);
        let peer = port.peer.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: `peer` was made by `as_ptr`, and a port is unlinked from its peer before it is freed.
        if let Some(peer) = unsafe { Ref::from_ptr(peer) } {
            peer.peer.store(null_mut(), Ordering::Release);
            if let Some(vcpu) = peer.mark() {
                notify::raise(vcpu);
            }
        }
        slab::retire(graph, port.owner, port);
    }
}
