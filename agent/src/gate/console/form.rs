//! What the form on a link's page sends.

use crate::decide::approvals::Verdict;

/// What every form says.
const CONFIRM: &str = "confirm=yes";
/// What stands before a reason.
const REASON: &str = "&reason=";
/// Letters of a reason, as the page's field counts them at most.
pub(super) const LETTERS: usize = 256;
/// Bytes of a body: of a letter there are three at most, each as `%XX`.
pub(super) const LONGEST: usize = CONFIRM.len() + REASON.len() + 9 * LETTERS;

/// It is not what the page's form sends.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

/// The reason that a form gives, if it gives one. Only a denial's has a field for it.
pub(super) fn read(body: &[u8], verdict: Verdict) -> Result<Option<String>, Malformed> {
    let behind = body.strip_prefix(CONFIRM.as_bytes()).ok_or(Malformed)?;
    if behind.is_empty() {
        return Ok(None);
    }
    let written = behind.strip_prefix(REASON.as_bytes());
    let written = written.filter(|_| verdict == Verdict::Deny);
    let text = written.and_then(decoded).ok_or(Malformed)?;
    let letters = text.chars().filter(|letter| !letter.is_control());
    let reason: String = letters.take(LETTERS).collect();
    let reason = reason.trim();
    Ok((!reason.is_empty()).then(|| reason.to_owned()))
}

/// One value of a form (`application/x-www-form-urlencoded`), as browsers write it.
fn decoded(written: &[u8]) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = written.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'*' | b'-' | b'.' | b'_' => *byte,
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(body: &str) -> Result<Option<String>, Malformed> {
        read(body.as_bytes(), Verdict::Deny)
    }

    #[test]
    fn a_denial_may_give_a_reason() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(reason("confirm=yes"), Ok(None));
        assert_eq!(reason("confirm=yes&reason="), Ok(None));
        assert_eq!(reason("confirm=yes&reason=+%20+"), Ok(None));
        assert_eq!(
            reason("confirm=yes&reason=not+before+the+audit%2C+%26+%3Cb%3E+%C3%A9"),
            some("not before the audit, & <b> é")
        );
        // Nothing that a terminal or a line of a log would act on.
        assert_eq!(
            reason("confirm=yes&reason=a%1B%5B2Jb%0D%0Ac%00%C2%85"),
            some("a[2Jbc")
        );
        let long = "x".repeat(LETTERS + 7);
        let kept = reason(&format!("confirm=yes&reason={long}")).unwrap();
        assert_eq!(kept.unwrap().len(), LETTERS);
    }

    #[test]
    fn what_the_form_does_not_send_is_nothing() {
        for body in [
            "",
            "confirm=no",
            "reason=a&confirm=yes",
            "confirm=yes&",
            "confirm=yes&confirm=yes",
            "confirm=yes&reason=a&reason=b",
            "confirm=yes&reason=a=b",
            "confirm=yes&reason=%",
            "confirm=yes&reason=%1",
            "confirm=yes&reason=%zz",
            "confirm=yes&reason=%FF",
            "confirm=yes&reason=<b>",
            "confirm=yes&Reason=a",
        ] {
            assert_eq!(reason(body), Err(Malformed), "{body}");
        }
        // An approval's page has no field.
        assert_eq!(read(b"confirm=yes", Verdict::Approve), Ok(None));
        let beyond = read(b"confirm=yes&reason=a", Verdict::Approve);
        assert_eq!(beyond, Err(Malformed));
    }
}
