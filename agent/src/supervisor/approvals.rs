//! Calls that wait for a person, kept on disk for the gate: what was waiting outlives it, and what was used does not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::core::Supervisor;
use super::kept;
use crate::channel::{Approval, MOST_APPROVALS, ToGate};

/// The file's form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    waiting: Vec<Approval>,
}

/// The version of [`Stored`] that this daemon reads and writes.
const VERSION: u32 = 1;

/// The calls that wait.
#[derive(Debug)]
pub(super) struct Approvals {
    path: PathBuf,
    waiting: Vec<Approval>,
    /// Why those of an earlier daemon are forgotten, if they are.
    pub(super) forgotten: Option<String>,
}

impl Approvals {
    /// Reads what an earlier daemon kept. What cannot be read is no approval: the calls wait anew.
    pub(super) fn load(state: &Path) -> Self {
        let path = state.join("approvals.json");
        let (waiting, forgotten) = match read(&path) {
            Ok(waiting) => (waiting, None),
            Err(error) => {
                let text = format!("`{}` could not be read: {error}", path.display());
                (Vec::new(), Some(text))
            }
        };
        Self {
            path,
            waiting,
            forgotten,
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Approval> {
        self.waiting.clone()
    }

    /// Keeps `waiting` in the place of those before. What could not be written is not handed to another gate either.
    fn keep(&mut self, waiting: Vec<Approval>) -> Result<(), String> {
        if waiting.len() > MOST_APPROVALS {
            return Err(format!("more than {MOST_APPROVALS} calls"));
        }
        let stored = Stored {
            version: VERSION,
            waiting,
        };
        let written = serde_json::to_vec(&stored)
            .map_err(io::Error::from)
            .and_then(|text| kept::write(&self.path, &text));
        // What was used must not come back, whether it can be written or not.
        self.waiting = stored.waiting;
        written.map_err(|error| format!("`{}` could not be written: {error}", self.path.display()))
    }
}

fn read(path: &Path) -> io::Result<Vec<Approval>> {
    let stored = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice::<Stored>(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if stored.version != VERSION || stored.waiting.len() > MOST_APPROVALS {
        let text = "it is of another version, or holds too much";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(stored.waiting)
}

impl Supervisor {
    /// Keeps what the gate says. A gate that lies gives approvals to itself, which it could without.
    pub(super) async fn keep_approvals(&mut self, request: u64, waiting: Vec<Approval>) {
        let fault = self.approvals.keep(waiting).err();
        if let Some(fault) = &fault {
            tracing::error!(fault, "calls that wait for an approval are not kept");
        }
        self.tell(ToGate::ApprovalsKept { request, fault }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_what_cannot_be_read_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let mut approvals = Approvals::load(state.path());
        assert_eq!((approvals.all().len(), &approvals.forgotten), (0, &None));
        let one = Approval::for_tests("0123456789ab");
        approvals.keep(vec![one.clone()]).unwrap();
        assert_eq!(
            Approvals::load(state.path()).all(),
            std::slice::from_ref(&one)
        );
        approvals
            .keep(vec![one.clone(); MOST_APPROVALS + 1])
            .unwrap_err();
        approvals.keep(Vec::new()).unwrap();
        assert!(Approvals::load(state.path()).all().is_empty());
        let path = state.path().join("approvals.json");
        for text in ["", "{", r#"{"version":2,"waiting":[]}"#, r#"{"version":1}"#] {
            fs::write(&path, text).unwrap();
            let read = Approvals::load(state.path());
            assert!(read.all().is_empty() && read.forgotten.is_some(), "{text}");
        }
        // What could not be written does not come back either.
        fs::remove_file(&path).unwrap();
        let mut approvals = Approvals::load(state.path());
        approvals.keep(vec![one]).unwrap();
        fs::create_dir(state.path().join("approvals.new")).unwrap();
        approvals.keep(Vec::new()).unwrap_err();
        assert!(approvals.all().is_empty());
    }
}
