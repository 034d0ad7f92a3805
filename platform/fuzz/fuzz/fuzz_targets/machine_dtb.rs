//! Guided fuzzing of `machine_dtb`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico_fuzz::run("machine_dtb", bytes));
