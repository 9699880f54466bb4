//! A trust store for Java, which reads no PEM: the key store format of Sun (JKS), version 2.
//!
//! Written by hand, as it is a header and a list; every Java since 1.2 reads it, of whatever name, and takes its
//! certificates without a password. Source: `sun.security.provider.JavaKeyStore`, `engineStore`.

use std::io;

use rustls_pki_types::CertificateDer;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
/// An entry that is a certificate to trust.
const TRUSTED: u32 = 2;

/// What keeps the checksum apart from a plain digest; part of the format.
const SALT: &[u8] = b"Mighty Aphrodite";

/// Java's own for stores without secrets. Only programs that ask for a check of the checksum need it.
const PASSWORD: &str = "changeit";

/// Writes these certificates, in order, under the aliases `exeat-0`, `exeat-1`, ...
pub(super) fn store(certificates: &[CertificateDer<'_>]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for word in [MAGIC, VERSION, length(certificates.len())?] {
        out.extend(word.to_be_bytes());
    }
    for (index, certificate) in certificates.iter().enumerate() {
        out.extend(TRUSTED.to_be_bytes());
        text(&mut out, &format!("exeat-{index}"))?;
        // When the entry was made, in milliseconds: nobody asks, and equal roots are to make equal files.
        out.extend(0_u64.to_be_bytes());
        text(&mut out, "X.509")?;
        out.extend(length(certificate.len())?.to_be_bytes());
        out.extend_from_slice(certificate);
    }
    let mut checked: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    checked.extend_from_slice(SALT);
    checked.extend_from_slice(&out);
    // The format's own; it guards against accidents, and the file's owner against everything else.
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        checked.as_slice(),
    );
    out.extend_from_slice(digest.as_ref());
    Ok(out)
}

/// Java's form of a text, for the ASCII that is all there is here.
fn text(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(io::Error::other)?;
    out.extend(length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_header_a_list_and_a_checksum() {
        let certificate = CertificateDer::from(vec![0x30, 0x01, 0x00]);
        let store = store(&[certificate]).unwrap();
        let wanted = [
            &[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 1][..],
            &[0, 0, 0, 2, 0, 7],
            b"exeat-0",
            &[0; 8],
            &[0, 5],
            b"X.509",
            &[0, 0, 0, 3, 0x30, 0x01, 0x00],
        ]
        .concat();
        assert_eq!(store[..wanted.len()], wanted);
        assert_eq!(store.len(), wanted.len() + 20);
    }
}
