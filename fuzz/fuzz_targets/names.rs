#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weave_router::names::fuzz::names(data));
