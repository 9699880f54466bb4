//! Links by which a person decides without an account's session: what they say, and that nobody else can make one.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::channel::{Approval, decode_hex, encode_hex};
use crate::telemetry::clock::Timestamp;

/// What is signed begins with this, so that the key signs nothing else.
const PURPOSE: &str = "exeat approval link 1";
/// Bytes of a token beyond which it is none.
const LONGEST: usize = 256;

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The call may be made, once.
    Approve,
    /// It may not.
    Deny,
}

impl Verdict {
    /// Its word in a link.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }
}

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The approval's id.
    pub id: String,
    /// What it decides.
    pub verdict: Verdict,
    /// For whom it was made.
    pub approver: String,
}

/// Why a token is not a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LinkFault {
    /// It was not made here, or changed since.
    #[error("this link was not made by this daemon, or was changed since")]
    Forged,
    /// It was good once.
    #[error("the time of this link is over, and so is its call's")]
    Expired,
    /// The configuration changed since.
    #[error("whom this link was made for is no approver any more")]
    Nobody,
}

/// Makes links and reads them. A token is `ID/VERDICT/APPROVER/EXPIRY/MAC`: the expiry in seconds since 1970, the MAC
/// HMAC-SHA256 over the others, in lower-case hexadecimal.
pub struct Links(hmac::Key);

impl Links {
    /// By this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The token by which `approver` decides so. It is good as long as the call waits.
    pub fn token(&self, approval: &Approval, verdict: Verdict, approver: &str) -> String {
        let until = approval.until.microseconds().div_euclid(1_000_000);
        let said = format!("{}/{}/{approver}/{until}", approval.id, verdict.word());
        let mac = hmac::sign(&self.0, signed(&said).as_bytes());
        format!("{said}/{}", encode_hex(mac.as_ref()))
    }

    /// What a token says, if it was made here and its time is not over at `now`.
    ///
    /// # Errors
    /// [`LinkFault`].
    pub fn read(&self, token: &str, now: Timestamp) -> Result<Link, LinkFault> {
        if token.len() > LONGEST {
            return Err(LinkFault::Forged);
        }
        let (said, mac) = token.rsplit_once('/').ok_or(LinkFault::Forged)?;
        let bytes = decode_hex(mac).ok_or(LinkFault::Forged)?;
        // One writing alone.
        if encode_hex(&bytes) != mac {
            return Err(LinkFault::Forged);
        }
        // In constant time.
        hmac::verify(&self.0, signed(said).as_bytes(), &bytes)
            .map_err(|_unspecified| LinkFault::Forged)?;
        // What follows was written by `token`.
        let mut parts = said.split('/');
        let parts = [(); 5].map(|()| parts.next());
        let [Some(id), Some(verdict), Some(approver), Some(until), None] = parts else {
            return Err(LinkFault::Forged);
        };
        let verdict = [Verdict::Approve, Verdict::Deny]
            .into_iter()
            .find(|one| one.word() == verdict)
            .ok_or(LinkFault::Forged)?;
        let until: i64 = until.parse().map_err(|_other| LinkFault::Forged)?;
        if now.microseconds() >= until.saturating_mul(1_000_000) {
            return Err(LinkFault::Expired);
        }
        Ok(Link {
            id: id.to_owned(),
            verdict,
            approver: approver.to_owned(),
        })
    }
}

fn signed(said: &str) -> String {
    format!("{PURPOSE}\0{said}")
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn approval(id: &str) -> Approval {
        Approval {
            until: Timestamp::from_microseconds(600_999_999),
            ..Approval::for_tests(id)
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_microseconds(seconds * 1_000_000)
    }

    #[test]
    fn a_link_says_one_thing_to_one_person_for_its_time() {
        let links = Links::new(&[7; 32]);
        let one = approval("0123456789ab");
        let token = links.token(&one, Verdict::Approve, "dana");
        assert!(
            token.starts_with("0123456789ab/approve/dana/600/"),
            "{token}"
        );
        let link = links.read(&token, at(599)).unwrap();
        assert_eq!(
            (&*link.id, link.verdict, &*link.approver),
            ("0123456789ab", Verdict::Approve, "dana")
        );
        // Expired, at the second.
        assert_eq!(links.read(&token, at(600)), Err(LinkFault::Expired));
        // Every other statement under this signature: verdict, approval, approver, expiry.
        for (from, to) in [
            ("approve", "deny"),
            ("0123456789ab", "0123456789ac"),
            ("dana", "bob"),
            ("/600/", "/6000/"),
            ("/approve/dana/", "/approve/dana//"),
            ("/approve/", "/APPROVE/"),
        ] {
            let altered = token.replace(from, to);
            assert_ne!(altered, token);
            assert_eq!(
                links.read(&altered, at(1)),
                Err(LinkFault::Forged),
                "{altered}"
            );
        }
        // Another approval's, another verdict's and another key's signature.
        let (said, mac) = token.rsplit_once('/').unwrap();
        let others = [
            links.token(&approval("aaaaaaaaaaaa"), Verdict::Approve, "dana"),
            links.token(&one, Verdict::Deny, "dana"),
            Links::new(&[8; 32]).token(&one, Verdict::Approve, "dana"),
        ];
        for other in others {
            let (_, mac) = other.rsplit_once('/').unwrap();
            let forged = format!("{said}/{mac}");
            assert_eq!(
                links.read(&forged, at(1)),
                Err(LinkFault::Forged),
                "{forged}"
            );
        }
        // Other writings, and less of it.
        let upper = format!("{said}/{}", mac.to_ascii_uppercase());
        let short = format!("{said}/{}", mac.get(..32).unwrap());
        for text in [&*upper, &*short, "", "/", "////", said, &token.repeat(4)] {
            assert_eq!(links.read(text, at(1)), Err(LinkFault::Forged), "{text}");
        }
        // The key signs for this purpose alone.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let plain = hmac::sign(&key, said.as_bytes());
        let plain = format!("{said}/{}", encode_hex(plain.as_ref()));
        assert_eq!(links.read(&plain, at(1)), Err(LinkFault::Forged));
        assert_eq!(format!("{links:?}"), "Links { .. }");
    }

    proptest! {
        #[test]
        fn nothing_else_is_a_link(text in ".{0,300}", place in 0_usize..400, byte: u8) {
            let links = Links::new(&[7; 32]);
            prop_assert_eq!(links.read(&text, at(1)), Err(LinkFault::Forged));
            let token = links.token(&approval("0123456789ab"), Verdict::Deny, "dana");
            let mut bytes = token.clone().into_bytes();
            let place = place % bytes.len();
            bytes[place] = byte;
            if let Ok(text) = String::from_utf8(bytes) && text != token {
                prop_assert_eq!(links.read(&text, at(1)), Err(LinkFault::Forged));
            }
        }
    }
}
