//! Guided fuzzing of `frames_of_service`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico_fuzz::run("frames_of_service", bytes));
