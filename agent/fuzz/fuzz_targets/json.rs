//! Feeds arbitrary bytes to strict JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::decode::oracle::json(bytes));
