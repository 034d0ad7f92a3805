//! The global allocator: a buddy system over the RAM between the image and the end of memory.

#[cfg(all(target_os = "none", feature = "runtime"))]
mod runtime {
    use crate::irq;
    use buddy_system_allocator::Heap;
    use core::alloc::{GlobalAlloc, Layout};
    use core::ptr::NonNull;
    use spin::Mutex;

    /// Orders of blocks: up to 2^38 bytes.
    const ORDERS: usize = 39;

    struct Allocator(Mutex<Heap<ORDERS>>);

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator(Mutex::new(Heap::empty()));

    // SAFETY: the heap gives each range out once; the lock is taken with interrupts masked, so that a handler that
    // allocates cannot meet it held by its own vCPU.
    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let _guard = irq::Guard::new();
            self.0.lock().alloc(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            let _guard = irq::Guard::new();
            if let Some(pointer) = NonNull::new(pointer) {
                // SAFETY: the caller hands back what `alloc` gave for this layout.
                unsafe { self.0.lock().dealloc(pointer, layout) };
            }
        }
    }

    /// Adds a range to the heap.
    ///
    /// # Safety
    /// The range must be RAM that nothing else uses, for ever.
    pub unsafe fn add(start: usize, end: usize) {
        let _guard = irq::Guard::new();
        // SAFETY: the caller's promise.
        unsafe { ALLOCATOR.0.lock().add_to_heap(start, end) };
    }

    /// Bytes in the heap, and bytes in use.
    pub fn usage() -> (usize, usize) {
        let _guard = irq::Guard::new();
        let heap = ALLOCATOR.0.lock();
        (heap.stats_total_bytes(), heap.stats_alloc_actual())
    }
}

#[cfg(all(target_os = "none", feature = "runtime"))]
pub use runtime::{add, usage};
