#![no_main]

#[path = "../../support/session/mod.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|data: &[u8]| session::fuzz::session(data));
