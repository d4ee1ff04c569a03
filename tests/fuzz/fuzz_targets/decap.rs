//! [`isatap_fuzz::packets::decap`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::packets::decap(data));
