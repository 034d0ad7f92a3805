//! Small domains that do one thing, with their MMU off.

use core::arch::global_asm;
use core::time::Duration;
use portico_sdk::abi::call::{attrs, config};
use portico_sdk::abi::record::{DomainState, DomainStatus, EndReason};
use portico_sdk::abi::{Handle, PAGE_SIZE, Status, dt};
use portico_sdk::{hvc, mem, time};

use crate::books::{Books, WINDOW, map_here, poke, unmap_here};

/// IPA of a window lent to a child.
pub const CHILD_WINDOW: u64 = dt::WINDOWS;

// x0 is the argument of the program.
global_asm!(
    ".section .rodata.programs, \"a\"",
    ".balign 8",
    // Writes where nothing is.
    ".global program_crash",
    "program_crash:",
    "mov x1, #0x70000000",
    "str x0, [x1]",
    "b .",
    // Ends with x0 as its code.
    ".global program_exit",
    "program_exit:",
    "mov x2, x0",
    "mov w0, #0x0003",
    "movk w0, #0xc600, lsl #16",
    "mov x1, #0",
    "hvc #0",
    "b .",
    // Counts at x0 for ever.
    ".global program_count",
    "program_count:",
    "mov x2, #0",
    "1: add x2, x2, #1",
    "str x2, [x0]",
    "b 1b",
    // Writes x0 at x0, and ends.
    ".global program_mark",
    "program_mark:",
    "str x0, [x0]",
    "dsb sy",
    "mov w0, #0x0003",
    "movk w0, #0xc600, lsl #16",
    "mov x1, #0",
    "mov x2, #0",
    "hvc #0",
    "b .",
    // Notifies the port x0 for ever.
    ".global program_notify",
    "program_notify:",
    "mov x19, x0",
    "1: mov w0, #0x0020",
    "movk w0, #0xc600, lsl #16",
    "mov x1, x19",
    "hvc #0",
    "b 1b",
    // Answers each notification of the port x0, which is bound to bit 8, with one.
    ".global program_answer",
    "program_answer:",
    "mov x19, x0",
    "mov x20, #0x08000000",
    "mov w0, #0x0023",
    "movk w0, #0xc600, lsl #16",
    "mov x1, x19",
    "mov x2, #0",
    "mov x3, #8",
    "mov x4, #0",
    "hvc #0",
    "1: mov w0, #0x0030",
    "movk w0, #0xc600, lsl #16",
    "mov x1, #-1",
    "hvc #0",
    "strb wzr, [x20]",
    "dsb sy",
    "strb wzr, [x20, #64]",
    "dsb sy",
    "ldrb w1, [x20, #1032]",
    "cbz w1, 1b",
    "strb wzr, [x20, #1032]",
    "dsb sy",
    "mov w0, #0x0020",
    "movk w0, #0xc600, lsl #16",
    "mov x1, x19",
    "hvc #0",
    "b 1b",
    // Reads where nothing is, and ends with what it got.
    ".global program_read",
    "program_read:",
    "mov x1, #0x70000000",
    "ldr x2, [x1]",
    "mov w0, #0x0003",
    "movk w0, #0xc600, lsl #16",
    "mov x1, #0",
    "hvc #0",
    "b .",
    ".global program_end",
    "program_end:",
    ".quad 0",
);

unsafe extern "C" {
    safe static program_crash: u32;
    safe static program_exit: u32;
    safe static program_count: u32;
    safe static program_mark: u32;
    safe static program_notify: u32;
    safe static program_answer: u32;
    safe static program_read: u32;
    safe static program_end: u32;
}

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Writes where nothing is.
    Crash,
    /// Ends with its argument as code.
    Exit,
    /// Counts at the address that its argument is.
    Count,
    /// Writes at the address that its argument is, and ends.
    Mark,
    /// Notifies the port that its argument is.
    Notify,
    /// Answers each notification of that port with one.
    Answer,
    /// Reads where nothing is and ends with what it got as code.
    Read,
}

impl Program {
    /// Offset of its entry in the code page.
    fn offset(self) -> u64 {
        let start = core::ptr::from_ref(match self {
            Program::Crash => &program_crash,
            Program::Exit => &program_exit,
            Program::Count => &program_count,
            Program::Mark => &program_mark,
            Program::Notify => &program_notify,
            Program::Answer => &program_answer,
            Program::Read => &program_read,
        });
        (start.addr() - core::ptr::from_ref(&program_crash).addr()) as u64
    }
}

/// A page with all programs in it, not mapped anywhere.
///
/// # Errors
/// Those of the extent calls.
pub fn code(books: &mut Books) -> Result<Handle, Status> {
    let page = books.take(1)?;
    map_here(page, WINDOW)?;
    let start = core::ptr::from_ref(&program_crash).cast::<u64>();
    let words = (core::ptr::from_ref(&program_end).addr() - start.addr()) / 8 + 1;
    for word in 0..words {
        // SAFETY: the programs lie between the first and the end, in whole words.
        poke(WINDOW + word as u64 * 8, unsafe { start.add(word).read_volatile() });
    }
    mem::clean(WINDOW as usize, PAGE_SIZE as usize);
    unmap_here(page)?;
    Ok(page)
}

/// A domain of one vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// The domain.
    pub domain: Handle,
    /// Its vCPU.
    pub vcpu: Handle,
}

/// Pages that a child needs for its objects, with some to spare.
pub const BUDGET: u64 = 16;

impl Child {
    /// Builds one with `code` at the beginning of its RAM. It does not run yet.
    ///
    /// # Errors
    /// The name of the step that failed, and why; what there was is destroyed.
    pub fn build(code: Handle, budget: u64) -> Result<Child, (&'static str, Status)> {
        let domain = hvc::domain_create(budget, 1, 36, 0).map_err(|status| ("domain_create", status))?;
        Self::furnish(code, domain).inspect_err(|_| {
            let _ = destroy(domain);
        })
    }

    fn furnish(code: Handle, domain: Handle) -> Result<Child, (&'static str, Status)> {
        let step = |what| move |status| (what, status);
        hvc::domain_name(domain, "child").map_err(step("domain_config"))?;
        hvc::domain_config(domain, config::INFO_PAGE_IPA, dt::INFO_PAGE).map_err(step("information page"))?;
        hvc::domain_config(domain, config::GICV_IPA, dt::GICV).map_err(step("GICV page"))?;
        let vcpu = hvc::vcpu_create(domain, 0, 0, dt::VCPU_PAGES, 0).map_err(step("vcpu_create"))?;
        // Not writable: so the page stays untainted, and goes from child to child.
        hvc::complete(|| hvc::extent_map(code, domain, dt::RAM_BASE, attrs::READ | attrs::EXEC))
            .map_err(step("extent_map"))?;
        Ok(Child { domain, vcpu })
    }

    /// Builds and starts one.
    ///
    /// # Errors
    /// As [`Child::build`].
    pub fn run(code: Handle, program: Program, argument: u64) -> Result<Child, (&'static str, Status)> {
        let child = Self::build(code, BUDGET)?;
        child.start(program, argument).map_err(|status| ("vcpu_start", status))?;
        Ok(child)
    }

    /// Starts it.
    ///
    /// # Errors
    /// Those of `vcpu_start`.
    pub fn start(&self, program: Program, argument: u64) -> Result<(), Status> {
        hvc::vcpu_start(self.vcpu, dt::RAM_BASE + program.offset(), argument)
    }

    /// Waits until it has ended.
    pub fn wait(&self) -> Option<DomainStatus> {
        let end = time::deadline(Duration::from_secs(10));
        loop {
            let status = hvc::domain_status(self.domain).ok()?;
            if status.state == DomainState::Ended as u32 {
                return Some(status);
            }
            if time::passed(end) {
                return None;
            }
            hvc::vcpu_yield();
        }
    }

    /// Waits until it has ended, and says whether it was for this reason.
    pub fn ends_by(&self, reason: EndReason) -> bool {
        self.wait().is_some_and(|status| status.reason == reason as u32)
    }

    /// Destroys it.
    ///
    /// # Errors
    /// Those of `domain_destroy`; `TimedOut` if it does not come to an end.
    pub fn destroy(self) -> Result<(), Status> {
        destroy(self.domain)
    }
}

/// Destroys a domain.
///
/// # Errors
/// Those of `domain_destroy`; `TimedOut` if it does not come to an end.
pub fn destroy(domain: Handle) -> Result<(), Status> {
    let end = time::deadline(Duration::from_secs(10));
    while let hvc::Progress::Again(_) = hvc::domain_destroy(domain)? {
        if time::passed(end) {
            return Err(Status::TimedOut);
        }
    }
    Ok(())
}
