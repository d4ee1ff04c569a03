//! [`isatap_fuzz::errors::path_claim`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::errors::path_claim(data));
