//! Feeds arbitrary bytes to the reader of queries for names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::resolve::oracle::query(bytes));
