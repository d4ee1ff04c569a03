//! [`isatap_fuzz::packets::encap`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::packets::encap(data));
