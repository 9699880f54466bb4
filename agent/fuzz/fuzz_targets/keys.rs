//! Feeds arbitrary bytes to the reader of key sets of issuers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::identify::token::oracle::keys(bytes));
