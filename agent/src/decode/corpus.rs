//! The fuzz targets' properties over their corpus, so that every test run has them.

use std::fs;
use std::path::Path;

use super::oracle;

/// Runs `property` over every file of `agent/fuzz/corpus/{target}`, and over each with one bit turned.
pub(crate) fn run(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files = 0_usize;
    for entry in fs::read_dir(&folder).expect("the corpus is in the repository") {
        let path = entry.expect("a readable folder").path();
        let bytes = fs::read(&path).expect("a readable file");
        property(&bytes);
        for place in 0..bytes.len().min(512) {
            for bit in 0..8 {
                let mut turned = bytes.clone();
                turned[place] ^= 1_u8 << bit;
                property(&turned);
            }
            property(&bytes[..place]);
        }
        files = files.saturating_add(1);
    }
    assert!(files > 5, "the corpus of {target} is gone");
}

#[test]
fn json() {
    run("json", oracle::json);
}

#[test]
fn lines() {
    run("lines", oracle::lines);
}

#[test]
fn rpc() {
    run("rpc", oracle::rpc);
}

#[test]
fn scan() {
    run("scan", oracle::scan);
}

#[test]
fn sse() {
    run("sse", oracle::sse);
}
