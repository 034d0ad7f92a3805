//! Instructions and registers outside the ABI. (Rows 29, 34, 35 and 40 of the list of attacks.)

use core::arch::asm;
use core::hint::black_box;
use portico_sdk::{hvc, mem, time, trap};
use test_kit::{Tap, registers};

pub fn attempts(tap: &mut Tap) {
    tap.none("hvc with another immediate is undefined", other_immediates());
    tap.none("smc is refused and stepped over", smc());
    tap.none("every system register can be read or is undefined", read_all());
    tap.none("debug, PMU and implementation-defined registers can be written or are undefined", write_outside());
    tap.none("ID registers hide what the ABI has not", id_registers());
    tap.none("cache maintenance by set and way, for ever, harms nobody", set_way());
    tap.none("FP registers survive what others do", fp_survives());
    tap.none("EL1 registers survive what others do", el1_survives());
}

/// `hvc #1` and `hvc #0xffff` with a call that is good with #0.
fn other_immediates() -> Option<(u16, u64)> {
    macro_rules! attempt {
        ($immediate:literal) => {{
            let (result, caught) = trap::catch(|| {
                let mut x0: u64 = 0xc600_0000;
                // SAFETY: undefined, and caught; if it were a call it would be one without effect.
                unsafe {
                    asm!(concat!("hvc #", $immediate), inlateout("x0") x0, inlateout("x1") 0_u64 => _, lateout("x2") _, lateout("x3") _, options(nostack));
                }
                x0
            });
            if !caught.is_some_and(|caught| caught.is_undefined()) {
                return Some(($immediate, result));
            }
        }};
    }
    attempt!(1);
    attempt!(0x1234);
    attempt!(0xffff);
    None
}

fn smc() -> Option<(u64, bool)> {
    for id in [0x8400_0000_u64, 0x8400_0008, 0xc400_0003, 0xc600_0000, 0x8000_0000, 0, u64::MAX] {
        let (result, caught) = trap::catch(|| {
            let mut x0 = id;
            // SAFETY: refused.
            unsafe { asm!("smc #0", inlateout("x0") x0, options(nostack)) };
            x0
        });
        if result != u64::MAX || caught.is_some() {
            return Some((id, caught.is_some()));
        }
    }
    None
}

/// Room for one instruction and `ret`.
#[repr(C, align(64))]
struct Code([u32; 16]);

/// RET.
const RET: u32 = 0xd65f_03c0;

/// Runs one instruction whose operand is x0, in which an exception is forgiven.
fn run(code: &mut Code, instruction: u32, operand: u64) -> (u64, Option<trap::Caught>) {
    code.0[0] = instruction;
    code.0[1] = RET;
    let at = core::ptr::from_mut(code).expose_provenance();
    mem::clean(at, 8);
    mem::invalidate_instructions();
    trap::catch(|| {
        let mut x0 = operand;
        // SAFETY: the code is one instruction that touches x0 only, and `ret`. Memory above the image is executable.
        unsafe { asm!("blr {at}", at = in(reg) at, inlateout("x0") x0, lateout("x30") _) };
        x0
    })
}

fn mrs(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    0xd530_0000 | (op0 & 1) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

fn msr(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    mrs(op0, op1, crn, crm, op2) & !(1 << 21)
}

fn read_all() -> Option<(u32, u64)> {
    let mut code = Code([0; 16]);
    for op0 in 2..4 {
        for rest in 0..1 << 14_u32 {
            let (op1, crn, crm, op2) = (rest >> 11, rest >> 7 & 15, rest >> 3 & 15, rest & 7);
            // ICC_IAR1_EL1 and ICC_IAR0_EL1 acknowledge interrupts: the vectors' business.
            if (op0, op1, crn, crm, op2) == (3, 0, 12, 12, 0) || (op0, op1, crn, crm, op2) == (3, 0, 12, 8, 0) {
                continue;
            }
            let (_, caught) = run(&mut code, mrs(op0, op1, crn, crm, op2), 0);
            // Undefined, or trapped by EL1's own settings; nothing else may come of a read.
            if let Some(caught) = caught
                && !caught.is_undefined()
            {
                return Some((mrs(op0, op1, crn, crm, op2), caught.esr));
            }
        }
    }
    None
}

fn write_outside() -> Option<(u32, u64)> {
    let mut code = Code([0; 16]);
    let mut attempt = |op0, op1, crn, crm, op2| {
        for value in [0, u64::MAX, 0x5555_5555_5555_5555] {
            let (_, caught) = run(&mut code, msr(op0, op1, crn, crm, op2), value);
            if let Some(caught) = caught
                && !caught.is_undefined()
            {
                return Some((msr(op0, op1, crn, crm, op2), caught.esr));
            }
        }
        None
    };
    for op1 in 0..8 {
        for crm in 0..16 {
            for op2 in 0..8 {
                // MDSCR_EL1 is the guest's own: with SS set it would step itself.
                if (op1, crm, op2) != (0, 2, 2)
                    && let Some(wrong) = (0..2).find_map(|crn| attempt(2, op1, crn, crm, op2))
                {
                    return Some(wrong);
                }
                // Performance monitors; implementation-defined registers.
                if let Some(wrong) = [9, 11, 15].into_iter().find_map(|crn| attempt(3, op1, crn, crm, op2)) {
                    return Some(wrong);
                }
                // EL2's registers and its timers.
                if op1 >= 4
                    && let Some(wrong) =
                        [1, 2, 4, 5, 6, 10, 12, 13, 14].into_iter().find_map(|crn| attempt(3, op1, crn, crm, op2))
                {
                    return Some(wrong);
                }
            }
        }
    }
    // The physical timer.
    (0..3).find_map(|op2| attempt(3, 3, 14, 2, op2))
}

fn id_registers() -> Option<(&'static str, u64)> {
    let (pfr0, dfr0, mmfr1): (u64, u64, u64);
    // SAFETY: reads registers.
    unsafe {
        asm!("mrs {}, id_aa64pfr0_el1", "mrs {}, id_aa64dfr0_el1", "mrs {}, id_aa64mmfr1_el1", out(reg) pfr0, out(reg) dfr0, out(reg) mmfr1, options(nomem, nostack));
    }
    let field = |register: u64, at: u32| register >> at & 0xf;
    if field(pfr0, 32) != 0 || field(pfr0, 28) != 0 {
        return Some(("SVE or RAS", pfr0));
    }
    if !matches!(field(dfr0, 8), 0 | 0xf) {
        return Some(("PMU", dfr0));
    }
    if field(pfr0, 8) != 0 || field(pfr0, 12) != 0 || field(mmfr1, 8) != 0 {
        return Some(("EL2 or EL3", pfr0));
    }
    None
}

fn set_way() -> Option<u64> {
    let end = time::deadline(core::time::Duration::from_millis(150));
    let mut count = 0_u64;
    while !time::passed(end) {
        for way in 0..16_u64 {
            for set in 0..64_u64 {
                // SAFETY: clean and invalidate: no data is lost, here or elsewhere.
                unsafe { asm!("dc cisw, {}", in(reg) way << 28 | set << 6, options(nostack, preserves_flags)) };
                count += 1;
            }
        }
        // SAFETY: only cleans.
        unsafe { asm!("dc csw, {}", "dsb sy", in(reg) count & 0xff0, options(nostack, preserves_flags)) };
    }
    (count == 0).then_some(count)
}

fn fp_survives() -> Option<(usize, u64, u64)> {
    (0..300_u64).find_map(|round| {
        // SAFETY: this guest is built without FP.
        unsafe { registers::fill_fp(round) };
        give_away(round);
        registers::check_fp(round)
    })
}

fn el1_survives() -> Option<(usize, u64, u64)> {
    (0..300_u64).find_map(|round| registers::survive(round, || give_away(round)))
}

/// Lets others run: by a block, a yield, or only by time.
fn give_away(round: u64) {
    match round % 3 {
        0 => {
            let _ = hvc::vcpu_block(time::now() + time::Scale::read().ticks(200_000));
        }
        1 => hvc::vcpu_yield(),
        _ => {
            for n in 0..20_000_u64 {
                black_box(n);
            }
        }
    }
}
