//! Feeds an expression and arguments to the conditions of rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat_policy::cel::oracle::expression(bytes));
