//! The heap, for C: the length of a block stands before it.

use alloc::alloc::{Layout, alloc, dealloc};

/// Alignment of every block, and the bytes before it that hold its length.
const HEAD: usize = 16;

fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.checked_add(HEAD)?, HEAD).ok()
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_alloc(len: usize) -> *mut u8 {
    let Some(layout) = layout(len) else { return core::ptr::null_mut() };
    // SAFETY: the layout has at least the bytes of the head.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        return block;
    }
    // SAFETY: inside the block, which is aligned to 16.
    unsafe {
        block.cast::<usize>().write(len);
        block.add(HEAD)
    }
}

/// See `portico.h`.
///
/// # Safety
/// `block` is null or came from `portico_alloc` and was not freed since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_free(block: *mut u8) {
    if block.is_null() {
        return;
    }
    // SAFETY: the caller's promise: the length stands before it.
    let (start, len) = unsafe {
        let start = block.sub(HEAD);
        (start, start.cast::<usize>().read())
    };
    if let Some(layout) = layout(len) {
        // SAFETY: what `portico_alloc` got for this layout.
        unsafe { dealloc(start, layout) };
    }
}
