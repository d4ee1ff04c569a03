//! [`isatap_fuzz::dns::resolv_conf`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::dns::resolv_conf(data));
