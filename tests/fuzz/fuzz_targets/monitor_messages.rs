//! [`isatap_fuzz::monitor::monitor_messages`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::monitor::monitor_messages(data));
