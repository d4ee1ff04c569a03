//! [`isatap_fuzz::control::control_request`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::control::control_request(data));
