//! Where the manager maps what in itself. A manager that is begun anew knows by the place what an extent is for.
//!
//! Guests have RAM from [`portico_abi::dt::RAM_BASE`] to [`FLOOR`] at most, so an extent that is mapped outside is mapped in the manager. What is
//! small stands close together, since each 2 MiB that holds something cost the manager a table of its budget.

use core::ops::Range;
use portico_abi::{PAGE_SIZE, dt};
use portico_console::layout;

/// First IPA that no guest's RAM reaches.
pub const FLOOR: u64 = 0x18_0000_0000;
/// What the manager keeps for its next life.
pub const STATE: u64 = FLOOR + (4 << 20);
/// The desk of the console service, and the box.
pub const DESK: u64 = FLOOR + (2 << 20);
pub const BOX: u64 = FLOOR + (3 << 20);
/// Windows of links, each at a place of its own: from here to [`LOADING`].
pub const LINKS: u64 = 0x28_0000_0000;
/// Bytes between them: more than the largest window.
pub const LINK_STRIDE: u64 = 32 << 20;
/// The RAM of the guest that is being filled.
pub const LOADING: u64 = 0x40_0000_0000;

const CONTROLS: u64 = FLOOR;
const BLOCKS: u64 = FLOOR + (6 << 20);
const BLOCKS_STRIDE: u64 = 0x2000;
const CONSOLE_STRIDE: u64 = 0x8000;
const HEAP: u64 = FLOOR + (8 << 20);
const HISTORIES: u64 = FLOOR + (16 << 20);
const HISTORY_STRIDE: u64 = layout::HISTORY_BYTES as u64;
const DMA: u64 = FLOOR + (32 << 20);
const DMA_STRIDE: u64 = 64 << 20;

const _: () = assert!(DESK + (layout::DESK_BYTES as u64) < BOX && BOX + (layout::BOX_BYTES as u64) < STATE);
const _: () = assert!(BLOCKS + (layout::MAX_SOURCES as u64) * BLOCKS_STRIDE <= HEAP);
const _: () = assert!(CONTROLS + (layout::MAX_SOURCES as u64) * PAGE_SIZE <= DESK);
const _: () = assert!(dt::WINDOWS + (layout::MAX_SOURCES as u64) * CONSOLE_STRIDE <= dt::RAM_BASE);
const _: () = assert!(layout::BOX_BYTES as u64 <= CONSOLE_STRIDE);
const _: () = assert!(HISTORIES + (layout::MAX_SOURCES as u64) * HISTORY_STRIDE <= DMA);

/// Whether an extent that is mapped at `ipa` is mapped there in the manager.
pub fn is_own(ipa: u64) -> bool {
    !(dt::RAM_BASE..FLOOR).contains(&ipa)
}

/// Whether it is mapped there to be filled.
pub fn is_loading(ipa: u64) -> bool {
    ipa >= LOADING
}

/// The control page of guest `id`.
pub fn control(id: usize) -> u64 {
    CONTROLS + id as u64 * PAGE_SIZE
}

/// What is kept of the blocks of guest `id`.
pub fn blocks(id: usize) -> u64 {
    BLOCKS + id as u64 * BLOCKS_STRIDE
}

/// The place of `bytes` more heap behind `before`. `None` if there is no room for so much.
pub fn heap(before: u64, bytes: u64) -> Option<u64> {
    let ipa = HEAP.checked_add(before)?;
    (ipa.checked_add(bytes)? <= HISTORIES).then_some(ipa)
}

/// Whether it is a piece of the manager's own heap.
pub fn is_heap(ipa: u64) -> bool {
    (HEAP..HISTORIES).contains(&ipa)
}

/// The console of guest `id`.
pub fn console(id: usize) -> u64 {
    dt::WINDOWS + id as u64 * CONSOLE_STRIDE
}

/// The kept lines of guest `id`.
pub fn history(id: usize) -> u64 {
    HISTORIES + id as u64 * HISTORY_STRIDE
}

/// What the devices of a service may reach; `number` is its kind's.
pub fn dma(number: u16) -> u64 {
    DMA + u64::from(number) * DMA_STRIDE
}

/// Whether it is what devices may reach.
pub fn is_dma(ipa: u64) -> bool {
    (DMA..LINKS).contains(&ipa)
}

/// The window of link `index`. `None` if there is no room for so many.
pub fn link(index: usize) -> Option<u64> {
    let ipa = LINKS.checked_add(LINK_STRIDE.checked_mul(u64::try_from(index).ok()?)?)?;
    links().contains(&ipa).then_some(ipa)
}

fn links() -> Range<u64> {
    LINKS..LOADING
}
