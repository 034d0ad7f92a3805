//! The graph lock: one lock for everything that domains, handles, extents, ports and interrupts are to each other.
//!
//! Every management call is a bounded piece of work under this one ticket lock, so whoever waits for it waits at most for
//! one piece of each other pCPU. Hot paths (`port_notify`, the timer, block, yield, interrupts) never take it: what they read
//! is published by release stores, and memory is freed only after every pCPU was seen outside EL2 ([`crate::quiesce`]).
//!
//! The alternative, a lock for each object with an order of thirteen ranks, was rejected: it costs more instructions on the cold
//! paths, and each order between two objects is one more thing to get wrong, for concurrency that calls of some
//! thousand instructions do not need.
//!
//! Lock order: graph, then a run queue, then the GIC distributor, then the log.

use core::cell::UnsafeCell;
use core::iter::successors;
use core::ops::Deref;
use core::ptr::NonNull;

use crate::lock::{Guard, Lock};
use crate::log::EarlyTexts;
use crate::memory::MAX_BLOCKS;
use crate::object::domain::Domain;
use portico_core::pool::Pool;

/// What the graph lock protects besides the objects' own [`GraphCell`]s. Holding `&mut Graph` is the proof of holding the lock.
pub struct Graph {
    /// Pool of object pages.
    pub pool: Pool<MAX_BLOCKS>,
    /// Domains by number.
    pub domains: [Option<Ref<Domain>>; MAX_DOMAINS],
    /// What there is to know of the first domain alone.
    pub first: crate::root::First,
    /// Output of domains for the manager to take.
    pub early: EarlyTexts,
}

/// Domains on one machine.
pub const MAX_DOMAINS: usize = 512;

const _: () = assert!(MAX_DOMAINS.is_power_of_two());

static GRAPH: Lock<Graph> = Lock::new(Graph {
    pool: Pool::new(),
    domains: [None; MAX_DOMAINS],
    first: crate::root::First { machine_tree: 0, restarts: 0, due: 0 },
    early: EarlyTexts::new(),
});

/// Takes the graph lock.
#[inline(never)]
pub fn lock() -> Guard<'static, Graph> {
    GRAPH.lock()
}

/// A field of a shared object that only the holder of the graph lock reads and writes.
#[repr(transparent)]
pub struct GraphCell<T>(UnsafeCell<T>);

// SAFETY: access needs a reference to the one `Graph`, which the lock hands out to one pCPU at a time.
unsafe impl<T: Send> Sync for GraphCell<T> {}

impl<T: Copy> GraphCell<T> {
    /// Wraps an initial value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Reads the field.
    pub fn get(&self, _proof: &Graph) -> T {
        // SAFETY: the proof is borrowed from the lock's guard, so nobody writes now.
        unsafe { *self.0.get() }
    }

    /// The field, to change it in place.
    pub fn get_mut<'a>(&'a self, _proof: &'a mut Graph) -> &'a mut T {
        // SAFETY: the proof is exclusively borrowed for as long as the reference lives, so no cell gives out another.
        unsafe { &mut *self.0.get() }
    }

    /// Writes the field.
    pub fn set(&self, proof: &mut Graph, value: T) {
        *self.get_mut(proof) = value;
    }
}

/// The head of a list, or what links one of its objects to the next. An object has a link for each list that it can be in.
pub type Link<T> = GraphCell<Option<Ref<T>>>;

impl<T> Link<T> {
    /// The objects of the list that begins here. `link` is that of the list in each.
    pub fn iter(&self, graph: &Graph, link: impl Fn(&T) -> &Self) -> impl Iterator<Item = Ref<T>> {
        successors(self.get(graph), move |at| link(at).get(graph))
    }

    /// Puts an object first into the list that begins here.
    pub fn push(&self, graph: &mut Graph, object: Ref<T>, link: impl Fn(&T) -> &Self) {
        let first = self.get(graph);
        link(&object).set(graph, first);
        self.set(graph, Some(object));
    }

    /// Takes an object that is in the list that begins here out of it. The first is found at once.
    pub fn remove(&self, graph: &mut Graph, object: Ref<T>, link: impl Fn(&T) -> &Self) {
        let next = link(&object).get(graph);
        let before = match self.get(graph) {
            Some(first) if first == object => None,
            _ => self.iter(graph, &link).find(|at| link(at).get(graph) == Some(object)),
        };
        before.as_deref().map_or(self, link).set(graph, next);
    }
}

/// A reference to a kernel object in a pool page.
///
/// It may be kept for the length of one stay in EL2, or in another object that is unlinked before the target is freed: freeing waits
/// until every pCPU has left EL2 since the unlinking.
#[repr(transparent)]
pub struct Ref<T>(NonNull<T>);

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ref<T> {}
impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Ref<T> {}

// SAFETY: it is a shared reference with a lifetime that quiescence vouches for instead of the compiler.
unsafe impl<T: Sync> Send for Ref<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Ref<T> {}

impl<T> Ref<T> {
    /// Makes a reference.
    ///
    /// # Safety
    /// `pointer` is an initialised object in a pool page that is freed only by the rules of this type.
    pub const unsafe fn new(pointer: NonNull<T>) -> Self {
        Self(pointer)
    }

    /// The same address as another object.
    ///
    /// # Safety
    /// As [`Ref::new`].
    pub const unsafe fn cast<U>(self) -> Ref<U> {
        Ref(self.0.cast())
    }

    /// The address, for identity and for storing in an atomic.
    pub const fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }

    /// Reads back what [`Ref::as_ptr`] gave; null is `None`.
    ///
    /// # Safety
    /// `pointer` is null or was made by `as_ptr` of a live reference.
    #[inline(always)]
    pub unsafe fn from_ptr(pointer: *mut T) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: by the contract of `new`.
        unsafe { self.0.as_ref() }
    }
}
