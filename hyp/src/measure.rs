//! Time in EL2, measured by the vectors that do so (boot option `portico.measure`): the longest stay of each pCPU and what it was for.

use core::sync::atomic::Ordering;

use crate::percpu::{self, Pcpu};
use portico_arch::timer;

#[unsafe(no_mangle)]
extern "C" fn portico_measure_entry(id: u64) {
    let pcpu = percpu::this();
    pcpu.entered_id.store(id, Ordering::Relaxed);
    pcpu.entered_at.store(timer::now(), Ordering::Relaxed);
}

#[unsafe(no_mangle)]
extern "C" fn portico_measure_exit() {
    let pcpu: &Pcpu = percpu::this();
    let ticks = timer::now().wrapping_sub(pcpu.entered_at.load(Ordering::Relaxed));
    if ticks > pcpu.longest_ticks.load(Ordering::Relaxed) {
        pcpu.longest_ticks.store(ticks, Ordering::Relaxed);
        pcpu.longest_id.store(pcpu.entered_id.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
