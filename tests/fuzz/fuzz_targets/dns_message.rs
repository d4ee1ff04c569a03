//! [`isatap_fuzz::dns::dns_message`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::dns::dns_message(data));
