//! Tests of masking.
