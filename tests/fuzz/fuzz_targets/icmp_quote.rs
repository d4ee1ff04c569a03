//! [`isatap_fuzz::errors::icmp_quote`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::errors::icmp_quote(data));
