//! [`isatap_fuzz::http::http`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::http::http(data));
