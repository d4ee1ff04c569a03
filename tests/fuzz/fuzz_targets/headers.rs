//! [`isatap_fuzz::packets::headers`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::packets::headers(data));
