//! [`isatap_fuzz::offload::checksum`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::offload::checksum(data));
