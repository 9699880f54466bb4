//! Why a token is refused: for the record in full, for the caller without a word about policy.

use thiserror::Error;

use super::keys::TRIED;

/// Why a token that is Exeat's to verify is refused. No variant holds a part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenFault {
    /// More than one `Authorization` header: receivers would choose differently.
    #[error("more than one Authorization header")]
    Several,
    /// Larger than anything that is looked into.
    #[error("a bearer token of more than 16 KiB")]
    TooLarge,
    /// It is a token by its form and cannot be read in one way only.
    #[error("a token whose {0} cannot be read")]
    Malformed(&'static str),
    /// It demands an extension that is not understood (RFC 7515 section 4.1.11).
    #[error("a token with a critical extension")]
    Critical,
    /// Its type is one of a token for something else.
    #[error("a token that is not for access")]
    Type,
    /// Policy names the issuer, and the configuration has no keys for it.
    #[error("a token of an issuer that `issuers` does not configure")]
    Unconfigured,
    /// Nobody named its issuer, and the server whose own it might be gets no token of its callers.
    #[error(
        "a token of an issuer that neither the configuration nor the policy names, for a server that gets no tokens of its callers"
    )]
    Foreign,
    /// The issuer's keys could not be fetched, or not for too long.
    #[error("a token of an issuer whose keys cannot be fetched")]
    Unavailable,
    /// None of the issuer's keys has its key id, or one of that algorithm.
    #[error("a token by a key that its issuer does not publish")]
    UnknownKey,
    /// The key is for another algorithm than the token names.
    #[error("a token by another algorithm than its key is for")]
    Algorithm,
    /// Its key id, or that it has none, leaves more keys than are tried, and it is by none of those.
    #[error(
        "a token by none of the first {TRIED} keys of its issuer that it may mean, of which there are more: give tokens and keys a `kid` that names one"
    )]
    Ambiguous,
    /// The signature is not the key's.
    #[error("a token with a wrong signature")]
    Signature,
    /// Its time is over.
    #[error("a token that has expired")]
    Expired,
    /// Its time has not begun.
    #[error("a token that is not valid yet")]
    Early,
    /// It is for another audience.
    #[error("a token for another audience")]
    Audience,
    /// It lacks what a token must claim, or claims it in another type.
    #[error("a token whose claim `{0}` is missing or malformed")]
    Claim(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_tokens() {
        let said = [
            TokenFault::Several,
            TokenFault::TooLarge,
            TokenFault::Malformed("header"),
            TokenFault::Critical,
            TokenFault::Type,
            TokenFault::Unconfigured,
            TokenFault::Foreign,
            TokenFault::Unavailable,
            TokenFault::UnknownKey,
            TokenFault::Algorithm,
            TokenFault::Ambiguous,
            TokenFault::Signature,
            TokenFault::Expired,
            TokenFault::Early,
            TokenFault::Audience,
            TokenFault::Claim("exp"),
        ]
        .map(|fault| fault.to_string());
        insta::assert_snapshot!(said.join("\n"));
    }
}
