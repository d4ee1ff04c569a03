//! [`isatap_fuzz::control::name_answers`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::control::name_answers(data));
