//! Feeds arbitrary bytes to the reader of standard streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::decode::oracle::lines(bytes));
