//! Each fuzz target on its seeds and on a fixed number of damaged ones.

use portico_fuzz::{TARGETS, smoke};

/// Inputs of each target in an ordinary test run.
const ROUNDS: u32 = 4000;

#[test]
fn every_target() {
    let asked = std::env::var("PORTICO_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    for target in TARGETS {
        assert!(!(target.seeds)().is_empty(), "{} has no seeds", target.name);
        smoke(target, asked.unwrap_or(ROUNDS));
    }
}

#[test]
fn the_seeds_are_what_they_should_be() {
    use portico_fuzz::seeds;
    assert!(
        seeds::bundles().iter().all(|seed| { portico_bundle::cpio::Archive::new(seed).entries().all(|e| e.is_ok()) })
    );
    assert_eq!(seeds::compiled().len(), 2);
    assert!(
        seeds::kernels().iter().all(|kernel| portico_manager::loader::plan(kernel, None, 0x4000_0000, 1 << 20).is_ok())
    );
    for tree in seeds::device_trees() {
        assert_eq!(portico_boards::Machine::default().read(&tree), Ok(()));
    }
}
