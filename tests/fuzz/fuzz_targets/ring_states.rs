//! [`isatap_fuzz::ring::ring_states`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::ring::ring_states(data));
