//! Feeds arbitrary bytes to the reader of what is shown as a token.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exeat::identify::token::oracle::token(bytes));
