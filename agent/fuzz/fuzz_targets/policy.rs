//! Feeds arbitrary bytes to the loader of policies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat_policy::oracle::policy(bytes));
