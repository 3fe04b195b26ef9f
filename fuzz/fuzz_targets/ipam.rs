#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    weave_router::ipam::fuzz::ipam(data);
});
