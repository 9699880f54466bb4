//! The engine and the naive reading of the same policy, which the policy's own tests have.
#![no_main]
#![expect(
    dead_code,
    clippy::format_push_string,
    clippy::string_slice,
    clippy::too_many_lines,
    reason = "as where these files are tests"
)]

#[path = "../../../policy/tests/naive/mod.rs"]
mod naive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naive::bytes::agree(bytes));
