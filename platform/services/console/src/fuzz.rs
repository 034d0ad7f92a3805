//! Fuzzing: everything that the service reads of others.

use alloc::vec;
use core::sync::atomic::Ordering;

use portico_abi::channel::console as ring;
use portico_sdk::window::Window;

use crate::desk::Desk;
use crate::layout;
use crate::mux::Mux;

/// The console service: bytes from a guest whose indices say what they want, from the manager and from the keyboard, in any mixture, and ends of the
/// service in between. Each byte of the input says by its top bits who sends it; what waits for the terminal stays bounded.
pub fn console(bytes: &[u8]) {
    let sizes = [layout::DESK_BYTES, layout::BOX_BYTES, ring::WINDOW_BYTES, layout::HISTORY_BYTES];
    let mut memory = sizes.map(|size| vec![0_u64; size.div_ceil(8)]);
    let windows = memory.each_mut().map(|memory| {
        let (start, size) = (memory.as_mut_ptr().expose_provenance() as u64, memory.len() * 8);
        // SAFETY: the memory outlives what is made of the windows, and is not touched otherwise meanwhile.
        unsafe { Window::new(start, size) }
    });
    let [Some(desk), Some(letters), Some(console), Some(history)] = windows else { return };
    let kind = desk.word(layout::TABLE + layout::ENTRY_KIND);
    kind.inspect(|kind| kind.store(layout::GUEST, Ordering::Relaxed));
    let begin = || Some(Mux::new(Desk::new(desk, letters)?, false, |id| (id == 0).then_some((console, history))));
    let Some(mut mux) = begin() else { return };
    let set = |window: &Window, at: usize, value: u32| {
        window.word(at).inspect(|word| word.store(value, Ordering::Relaxed));
    };
    let mut written = [0_u32; 2];
    for (step, &byte) in bytes.iter().enumerate().take(300) {
        let now_ns = step as u64 * 10_000_000;
        let rest = bytes.get(step..).unwrap_or_default();
        match byte >> 5 {
            0..=2 => mux.key(byte & 0x7f, now_ns),
            3 | 4 => {
                for (to, (window, index)) in [console, letters].iter().zip(&mut written).enumerate() {
                    if usize::from(byte & 1) == to {
                        let at = (*index as usize & (ring::OUT_BYTES - 1)).min(ring::OUT_BYTES - rest.len().min(512));
                        let piece = rest.get(..512).unwrap_or(rest);
                        let _ = window.write(ring::OUT_OFFSET + at, piece);
                        *index = index.wrapping_add(piece.len() as u32);
                        set(window, ring::OUT_HEAD, *index);
                    }
                }
            }
            5 => set(&console, ring::OUT_HEAD, u32::from(byte).wrapping_mul(0x0123_4567)),
            6 => set(&console, [ring::IN_TAIL, ring::OUT_TAIL][step % 2], u32::from(byte).wrapping_mul(step as u32)),
            _ => match begin() {
                Some(next) => mux = next,
                None => return,
            },
        }
        mux.turn(now_ns);
        assert!(mux.desk.waiting() <= layout::OUT_BYTES);
        mux.send(step % 512, || 16, |_| {});
    }
}
