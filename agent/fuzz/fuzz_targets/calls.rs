//! A policy, and calls that are put to it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat_policy::oracle::calls(bytes));
