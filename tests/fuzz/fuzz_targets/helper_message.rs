//! [`isatap_fuzz::monitor::helper_message`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::monitor::helper_message(data));
