//! What `cargo xtask` is made of, as a library so that the on-target tests start machines the same way.
//!
//! One file a subcommand; beside them the parts they share: [`project`] (where things are), [`toolchain`]
//! (which compiler builds for the bare machine), [`guests`] (which guests exist), [`flat`] (ELF to `Image`),
//! [`machine`] (the QEMU line) and [`qemu`] (a running QEMU).
//!
//! It only ever stops processes it started itself.

pub mod bench;
pub mod bootcode;
pub mod build;
pub mod cc;
pub mod ci;
pub mod cli;
pub mod csource;
pub mod devices;
pub mod disk;
pub mod dtb;
pub mod flat;
pub mod gdb;
pub mod guests;
pub mod image;
pub mod linux;
pub mod machine;
pub mod package;
pub mod project;
pub mod qemu;
pub mod qmp;
pub mod record;
pub mod run;
pub mod setup;
pub mod sizes;
pub mod source;
pub mod system;
pub mod terminal;
pub mod test;
pub mod toolchain;
pub mod trace;
