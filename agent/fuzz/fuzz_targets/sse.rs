//! Feeds arbitrary bytes to server-sent events.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::decode::oracle::sse(bytes));
