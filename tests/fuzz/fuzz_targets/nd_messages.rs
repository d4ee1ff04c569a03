//! [`isatap_fuzz::discovery::nd_messages`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::discovery::nd_messages(data));
