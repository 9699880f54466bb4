//! Feeds arbitrary bytes to JSON-RPC messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::decode::oracle::rpc(bytes));
