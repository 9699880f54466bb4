//! Feeds arbitrary bytes to the recogniser of MCP.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::decode::oracle::scan(bytes));
