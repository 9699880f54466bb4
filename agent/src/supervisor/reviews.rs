//! Servers whose review is overdue: a finding for each on each day (UTC), also over restarts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use exeat_policy::{PolicySet, Timestamp};
use serde::{Deserialize, Serialize};

use super::core::Supervisor;
use super::kept;
use crate::telemetry::clock;

const DAY_MS: i64 = 86_400_000;
/// The version of [`Stored`] that this daemon reads and writes.
const VERSION: u32 = 1;

/// The file's form.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    /// Days since 1970-01-01.
    day: i64,
    /// The servers of which it was said on that day.
    servers: BTreeSet<String>,
}

/// Of which servers it was said today.
#[derive(Debug)]
pub(super) struct Reviews {
    path: PathBuf,
    said: Stored,
    /// The day and the policy's generation that were looked at last.
    looked: Option<(i64, u64)>,
}

impl Reviews {
    /// Reads what an earlier daemon said. Where that cannot be read, it is said once more.
    pub(super) fn load(state: &Path) -> Self {
        let path = state.join("reviews.json");
        let said = match read(&path) {
            Ok(said) => said,
            Err(error) => {
                tracing::warn!(%error, "what was said of overdue reviews cannot be read");
                Stored::default()
            }
        };
        Self {
            path,
            said,
            looked: None,
        }
    }

    /// What is to be said at `now`: a sentence for each server of which it was not said today.
    fn due(&mut self, set: &PolicySet, generation: u64, now: Timestamp) -> Vec<String> {
        let day = now.as_millis().div_euclid(DAY_MS);
        if self.looked.replace((day, generation)) == Some((day, generation)) {
            return Vec::new();
        }
        if self.said.day != day {
            self.said = Stored {
                version: VERSION,
                day,
                servers: BTreeSet::new(),
            };
        }
        let refused = if set.strict_review() {
            "; it is refused until then"
        } else {
            ""
        };
        let overdue = set.servers().filter(|server| server.is_overdue(now));
        let sentences = overdue.filter_map(|server| {
            let date = server.review_by?;
            let owner = server.owner.as_deref().unwrap_or("nobody is named");
            self.said.servers.insert(server.name.to_string()).then(|| {
                format!(
                    "server `{}` was to be reviewed by {date} (owner: {owner}){refused}",
                    server.name
                )
            })
        });
        sentences.collect()
    }

    /// Has the next daemon know what was said.
    fn keep(&self) -> io::Result<()> {
        kept::write(&self.path, &serde_json::to_vec(&self.said)?)
    }
}

fn read(path: &Path) -> io::Result<Stored> {
    let stored = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice::<Stored>(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
        Err(error) => return Err(error),
    };
    if stored.version != VERSION {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "another version",
        ));
    }
    Ok(stored)
}

impl Supervisor {
    /// Says of each overdue server that it is, once a day, when there is a gate to record it.
    pub(super) async fn say_overdue(&mut self) {
        if !self.gate.as_ref().is_some_and(|gate| gate.ready) {
            return;
        }
        let now = Timestamp::from_millis(clock::wall().microseconds().div_euclid(1000));
        let set = &self.parts.policy.set;
        let due = self.reviews.due(set, self.generation, now);
        if due.is_empty() {
            return;
        }
        for sentence in due {
            self.finding("review_overdue", None, vec![sentence]).await;
        }
        if let Err(error) = self.reviews.keep() {
            tracing::warn!(%error, "what was said of overdue reviews is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use exeat_policy::{Source, compile};

    use super::*;

    const POLICY: &str = "version: 1
servers:
  old: { url: 'https://a.example/', review_by: 2026-11-01, owner: ann@example.com }
  new: { url: 'https://b.example/', review_by: 2026-11-22 }
  never: { url: 'https://c.example/' }
";

    fn set(text: &str) -> PolicySet {
        let source = Source {
            name: "p.yaml".to_owned(),
            text: text.to_owned(),
        };
        compile(&[source]).unwrap()
    }

    /// So many hours after the beginning of 2026-11-21.
    fn hour(hours: i64) -> Timestamp {
        Timestamp::from_seconds(1_795_219_200 + hours * 3600)
    }

    const OLD: &str = "server `old` was to be reviewed by 2026-11-01 (owner: ann@example.com)";
    const NEW: &str = "server `new` was to be reviewed by 2026-11-22 (owner: nobody is named)";

    #[test]
    fn it_is_said_of_each_server_once_a_day() {
        let state = tempfile::tempdir().unwrap();
        let set = set(POLICY);
        let mut reviews = Reviews::load(state.path());
        assert_eq!(reviews.due(&set, 1, hour(0)), [OLD]);
        assert_eq!(reviews.due(&set, 1, hour(1)), [""; 0]);
        assert_eq!(reviews.due(&set, 2, hour(23)), [""; 0]);
        assert_eq!(reviews.due(&set, 2, hour(24)), [OLD]);
        assert_eq!(reviews.due(&set, 2, hour(47)), [""; 0]);
        assert_eq!(reviews.due(&set, 2, hour(48)), [NEW, OLD]);
    }

    #[test]
    fn a_restart_says_it_no_second_time() {
        let state = tempfile::tempdir().unwrap();
        let set = set(POLICY);
        let mut reviews = Reviews::load(state.path());
        assert_eq!(reviews.due(&set, 1, hour(0)), [OLD]);
        reviews.keep().unwrap();
        let mut again = Reviews::load(state.path());
        assert_eq!(again.due(&set, 1, hour(2)), [""; 0]);
        assert_eq!(again.due(&set, 1, hour(25)), [OLD]);
        // What cannot be read is said once more, rather than never.
        for text in ["", "{", r#"{"version":2,"day":1,"servers":[]}"#] {
            fs::write(state.path().join("reviews.json"), text).unwrap();
            assert_eq!(Reviews::load(state.path()).due(&set, 1, hour(25)), [OLD]);
        }
    }

    #[test]
    fn a_policy_that_is_changed_is_looked_at_anew() {
        let state = tempfile::tempdir().unwrap();
        let mut reviews = Reviews::load(state.path());
        let reviewed = POLICY.replace("2026-11-01", "2027-11-01");
        assert_eq!(reviews.due(&set(&reviewed), 1, hour(0)), [""; 0]);
        let strict = format!("{POLICY}strict_review: true\n");
        let refused = format!("{OLD}; it is refused until then");
        assert_eq!(reviews.due(&set(&strict), 2, hour(0)), [refused]);
    }
}
