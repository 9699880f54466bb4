//! Refusals of ordinary HTTP requests.

use hyper::http::StatusCode;

use super::Refusal;
use crate::decode::json::write_text;

/// A refusal as an HTTP response of type [`HttpRefusal::MEDIA_TYPE`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRefusal {
    /// The status.
    pub status: StatusCode,
    /// Machine-readable name, stable.
    pub code: &'static str,
    /// One sentence for people.
    pub message: String,
}

impl HttpRefusal {
    /// The media type of [`HttpRefusal::body`].
    pub const MEDIA_TYPE: &'static str = "application/json";

    /// `{"error":{"code":"...","message":"..."}}`, without a line end.
    pub fn body(&self) -> String {
        let mut out = String::from("{\"error\":{\"code\":");
        write_text(self.code, &mut out);
        out.push_str(",\"message\":");
        write_text(&self.message, &mut out);
        out.push_str("}}");
        out
    }
}

impl From<Refusal<'_>> for HttpRefusal {
    fn from(refusal: Refusal<'_>) -> HttpRefusal {
        let entry = refusal.entry();
        HttpRefusal {
            status: entry.status,
            code: entry.code,
            message: refusal.text(),
        }
    }
}
