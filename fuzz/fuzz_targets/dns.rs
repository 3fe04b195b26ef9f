#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weave_router::dns::fuzz::dns(data));
