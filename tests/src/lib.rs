//! On-target tests: boots a machine in QEMU, reads its serial port, and compares what the guests say with what they must say.
//!
//! The guests are in `guests/`, one crate each; the systems that run them in `systems/`; the tests in `target/`. Nothing
//! is built here: `cargo xtask test target` does that once, before.
//!
//! Every wait has a deadline, and a deadline that passes is a failure. A panic of EL2 fails any test at once that does not ask for one.

pub mod capture;
pub mod machine;
pub mod random;
pub mod scenario;
pub mod stub;
pub mod tap;

pub use machine::Machine;
pub use random::Random;
pub use scenario::Scenario;
