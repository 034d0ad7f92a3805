//! Guided fuzzing of `image_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico_fuzz::run("image_header", bytes));
