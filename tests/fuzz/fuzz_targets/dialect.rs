#![no_main]

#[path = "../../support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::dialect(data));
