//! The words in which the manager tells what became of a guest.
//!
//! One line for each event, with its cause. Tests and people search for them: they are part of what the
//! project promises.

use alloc::format;
use alloc::string::String;
use portico_abi::record::{DomainStatus, EndReason, FaultKind, FaultRecord};

use crate::restart::Ending;

/// Tells how a guest ended. `fault` is the record of the vCPU that `status.code` names, if there is one.
pub fn describe(name: &str, status: &DomainStatus, fault: Option<&FaultRecord>) -> String {
    let code = status.code;
    match EndReason::from_raw(status.reason) {
        Some(EndReason::None) => format!("guest \"{name}\": ended"),
        Some(EndReason::Exit) => format!("guest \"{name}\": exited with code {code}"),
        Some(EndReason::Panic) => format!("guest \"{name}\": panicked, code {code}"),
        Some(EndReason::Reboot) => format!("guest \"{name}\": asked to be rebooted"),
        Some(EndReason::Off) => format!("guest \"{name}\": powered off"),
        Some(EndReason::AllOff) => format!("guest \"{name}\": its last vCPU turned itself off"),
        Some(EndReason::Fault) => match fault {
            Some(fault) => format!("guest \"{name}\": vCPU {code} {}", describe_fault(fault)),
            None => format!("guest \"{name}\": vCPU {code} faulted"),
        },
        None => format!("guest \"{name}\": ended for a reason that this manager does not know ({})", status.reason),
    }
}

/// How the restart policy sees it.
pub fn ending(status: &DomainStatus) -> Ending {
    match EndReason::from_raw(status.reason) {
        Some(EndReason::Exit) if status.code == 0 => Ending::Orderly,
        Some(EndReason::Off | EndReason::AllOff) => Ending::Orderly,
        Some(EndReason::Reboot) => Ending::Reboot,
        Some(EndReason::Exit | EndReason::Panic | EndReason::Fault | EndReason::None) | None => Ending::Crash,
    }
}

/// Tells what a fault was: `stage-2 fault, write to IPA 0x9000000, pc 0x40001234`.
pub fn describe_fault(fault: &FaultRecord) -> String {
    let pc = fault.pc;
    match FaultKind::from_raw(fault.kind) {
        Some(FaultKind::Stage2) => {
            let access = match fault.flags & 0b11 {
                0b00 => "read from",
                0b01 => "write to",
                _ => "instruction fetch from",
            };
            format!("stage-2 fault, {access} IPA {:#x}, pc {pc:#x}", fault.ipa)
        }
        Some(FaultKind::Trapped) => format!("{}, pc {pc:#x}", describe_trap(fault.syndrome)),
        Some(FaultKind::SError) => format!("SError, syndrome {:#x}, pc {pc:#x}", fault.syndrome),
        Some(FaultKind::Other) | None => format!("exception, syndrome {:#x}, pc {pc:#x}", fault.syndrome),
    }
}

/// Decodes a trapped instruction. (Arm DDI 0487, "ESR_EL2, Exception Syndrome Register (EL2)")
fn describe_trap(syndrome: u64) -> String {
    let class = syndrome >> 26 & 0x3f;
    match class {
        0x18 => {
            let field = |shift: u32, mask: u64| syndrome >> shift & mask;
            let what = if syndrome & 1 == 0 { "write of" } else { "read of" };
            format!(
                "{what} system register S{}_{}_C{}_C{}_{}",
                field(20, 3),
                field(14, 7),
                field(10, 15),
                field(1, 15),
                field(17, 7)
            )
        }
        0x17 => String::from("SMC instruction"),
        0x07 => String::from("floating-point instruction"),
        0x19 => String::from("SVE instruction"),
        0x01 => String::from("WFI or WFE instruction"),
        0x00 => String::from("unknown instruction"),
        _ => format!("trapped instruction, syndrome {syndrome:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{describe, ending};
    use crate::restart::Ending;
    use alloc::string::String;
    use portico_abi::record::{DomainStatus, EndReason, FaultKind, FaultRecord};

    fn ended(reason: EndReason, code: u64) -> DomainStatus {
        DomainStatus { reason: reason as u32, code, ..DomainStatus::default() }
    }

    fn fault(kind: FaultKind, flags: u32, syndrome: u64) -> String {
        let record = FaultRecord {
            kind: kind as u32,
            flags,
            syndrome,
            ipa: 0x900_0000,
            pc: 0x4000_1234,
            ..FaultRecord::default()
        };
        describe("web", &ended(EndReason::Fault, 0), Some(&record))
    }

    #[test]
    fn lines_are_exactly_these() {
        assert_eq!(
            fault(FaultKind::Stage2, 1, 0),
            "guest \"web\": vCPU 0 stage-2 fault, write to IPA 0x9000000, pc 0x40001234"
        );
        assert_eq!(
            fault(FaultKind::Stage2, 2, 0),
            "guest \"web\": vCPU 0 stage-2 fault, instruction fetch from IPA 0x9000000, pc 0x40001234"
        );
        // MRS x0, S3_0_C15_C2_0.
        let syndrome = 0x18 << 26 | 3 << 20 | 15 << 10 | 2 << 1 | 1;
        assert_eq!(
            fault(FaultKind::Trapped, 0, syndrome),
            "guest \"web\": vCPU 0 read of system register S3_0_C15_C2_0, pc 0x40001234"
        );
        assert_eq!(describe("x", &ended(EndReason::Exit, 0), None), "guest \"x\": exited with code 0");
        assert_eq!(describe("x", &ended(EndReason::Panic, 3), None), "guest \"x\": panicked, code 3");
    }

    #[test]
    fn every_reason_has_words_and_a_verdict() {
        for &(reason, raw, _) in EndReason::TABLE {
            assert!(describe("x", &ended(reason, 1), None).starts_with("guest \"x\": "), "{raw}");
        }
        assert_eq!(ending(&ended(EndReason::Exit, 0)), Ending::Orderly);
        assert_eq!(ending(&ended(EndReason::Exit, 2)), Ending::Crash);
        assert_eq!(ending(&ended(EndReason::Reboot, 0)), Ending::Reboot);
        assert_eq!(ending(&DomainStatus { reason: 99, ..DomainStatus::default() }), Ending::Crash);
    }
}
