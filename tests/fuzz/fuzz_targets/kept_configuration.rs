//! [`isatap_fuzz::control::kept_configuration`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::control::kept_configuration(data));
