//! What a guest of the Portico hypervisor links.
//!
//! A guest on this crate is a program for one domain: it boots by the arm64 Linux protocol ([`entry!`]), prints
//! ([`println!`]), sleeps ([`time`]), is notified ([`port`]), talks to other guests ([`channel`]), uses all
//! its vCPUs ([`smp`]) and ends ([`exit`]). A kernel with a runtime of its own takes only what it
//! needs: [`hvc`] has every call and needs nothing else of this crate; `PORTING.md` tells which part replaces what.
//!
//! ```ignore
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! use portico_sdk::println;
//!
//! portico_sdk::entry!(guest);
//!
//! fn guest() -> u64 {
//!     println!("hello");
//!     0
//! }
//! ```
//!
//! Off the target (`cargo test` on a host) the calls go to [`fake`], a hypervisor in a few hundred lines, so that
//! guest code can be unit-tested.
//!
//! What this crate does not do: processes, user mode, demand paging. Stage-1 is an identity map ([`mem`]).
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc as alloc_crate;

pub mod alloc;
pub mod balloon;
pub mod channel;
pub mod console;
pub mod control;
pub mod device;
pub mod doorbell;
pub mod dtb;
pub mod entropy;
pub mod exit;
#[cfg(not(target_os = "none"))]
pub mod fake;
pub mod hvc;
pub mod irq;
pub mod log;
pub mod mem;
#[cfg(all(target_os = "none", feature = "runtime"))]
mod panic;
pub mod pipe;
pub mod port;
pub mod smp;
#[cfg(all(target_os = "none", feature = "runtime"))]
pub mod start;
pub mod sync;
pub mod text;
pub mod time;
pub mod trap;
pub mod vcpu;
pub mod window;

pub use portico_abi as abi;
pub use portico_abi::{Handle, Rights, Status};

/// Names the function that the guest begins in: `fn() -> u64`, whose result is the exit code of the domain.
///
/// By then the MMU, caches, vectors, heap, console and `log` are up and interrupts are unmasked. On a host
/// it makes a `main` that runs the guest on the fake hypervisor.
#[macro_export]
macro_rules! entry {
    ($function:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "Rust" fn portico_guest_main() -> u64 {
            let function: fn() -> u64 = $function;
            function()
        }

        #[cfg(not(any(target_os = "none", test)))]
        fn main() {
            let machine = $crate::fake::Machine::start();
            let function: fn() -> u64 = $function;
            let code = function();
            ::std::print!("{}", machine.output());
            ::std::process::exit((code & 0xff) as i32);
        }
    };
}

/// Prints to the console of the domain.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(::core::format_args!($($argument)*)) };
}

/// Prints a line to the console of the domain.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::console::print_line(::core::format_args!($($argument)*)) };
}
