//! The names that a verified certificate gives its subject, as far as they can be read in one way only.

use std::time::Duration;

use exeat_policy::{CertifiedName, NameKind};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::fault::CertificateFault;
use crate::identify::token::Expiry;

/// Names in one certificate.
const MOST: usize = 64;
/// Bytes of one name: the longest SPIFFE ID.
const LENGTH: usize = 2048;

/// The names in `leaf`, in its order, the common name last; never empty.
pub(super) fn read(leaf: &CertificateDer<'_>) -> Result<Vec<CertifiedName>, CertificateFault> {
    let (rest, certificate) =
        X509Certificate::from_der(leaf).map_err(|_malformed| CertificateFault::Unreadable)?;
    if !rest.is_empty() {
        return Err(CertificateFault::Unreadable);
    }
    let alternative = certificate
        .subject_alternative_name()
        .map_err(|_malformed| CertificateFault::Unreadable)?;
    let alternative = alternative.map(|extension| &extension.value.general_names);
    let mut names = Vec::new();
    for name in alternative.into_iter().flatten() {
        if let Some((kind, text)) = given(name)? {
            names.push(CertifiedName {
                kind,
                text: plain(kind, text)?,
            });
        }
        if names.len() > MOST {
            return Err(CertificateFault::Names);
        }
    }
    if is_ambiguous_svid(&names) {
        return Err(CertificateFault::Svid);
    }
    let mut common = certificate.subject().iter_common_name();
    // Of several, none is the name. In a form that is no text, it is none either.
    if let (Some(one), None) = (common.next(), common.next())
        && let Ok(text) = one.as_str()
    {
        let kind = NameKind::CommonName;
        let text = plain(kind, text)?;
        names.push(CertifiedName { kind, text });
    }
    // A pattern is nobody's name, and policy's own patterns are not to meet it.
    names.retain(|name| !name.text.contains('*'));
    if names.is_empty() {
        return Err(CertificateFault::Nameless);
    }
    Ok(names)
}

/// When it ceases to be valid: it is valid in the second that it names (RFC 5280 section 4.1.2.5), and not after.
pub(super) fn expiry(leaf: &CertificateDer<'_>) -> Result<Expiry, CertificateFault> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|_malformed| CertificateFault::Unreadable)?;
    let last = u64::try_from(certificate.validity().not_after.timestamp());
    let last = last.map_err(|_before_1970| CertificateFault::Expired)?;
    Ok(Expiry::at(Duration::from_secs(last.saturating_add(1))))
}

fn given<'a>(name: &GeneralName<'a>) -> Result<Option<(NameKind, &'a str)>, CertificateFault> {
    match name {
        GeneralName::URI(text) => Ok(Some((NameKind::Uri, text))),
        GeneralName::DNSName(text) => Ok(Some((NameKind::Dns, text))),
        GeneralName::RFC822Name(text) => Ok(Some((NameKind::Email, text))),
        GeneralName::Invalid(..) => Err(CertificateFault::Name),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::IPAddress(_)
        | GeneralName::RegisteredID(_) => Ok(None),
    }
}

/// A name as it is compared. Alternative names are ASCII by their type (RFC 5280 section 4.2.1.6); a NUL or a line's end in
/// any name would end it for some readers.
fn plain(kind: NameKind, text: &str) -> Result<String, CertificateFault> {
    let is_plain = match kind {
        NameKind::CommonName => !text.chars().any(char::is_control),
        NameKind::Uri | NameKind::Dns | NameKind::Email => {
            text.bytes().all(|byte| byte.is_ascii_graphic())
        }
    };
    if !is_plain || text.is_empty() || text.len() > LENGTH {
        return Err(CertificateFault::Name);
    }
    Ok(match kind {
        NameKind::Dns => text.to_ascii_lowercase(),
        NameKind::Uri | NameKind::Email | NameKind::CommonName => text.to_owned(),
    })
}

/// An X.509-SVID has exactly one URI, and who validates it must refuse more (SPIFFE X.509-SVID section 2).
fn is_ambiguous_svid(names: &[CertifiedName]) -> bool {
    let mut uris = names.iter().filter(|name| name.kind == NameKind::Uri);
    let spiffe = |name: &CertifiedName| {
        let scheme = name.text.split(':').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("spiffe")
    };
    uris.clone().any(spiffe) && uris.nth(1).is_some()
}
