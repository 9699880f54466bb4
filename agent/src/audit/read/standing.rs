//! What lines say of the exchanges that they are about: which are open, and which are over.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::audit::id::RecordId;
use crate::audit::record::{Cut, Kind};

/// The few members of a line that tell an exchange that is open from one that is over.
#[derive(Deserialize)]
pub(in crate::audit) struct Standing {
    pub(super) id: RecordId,
    kind: Kind,
    open: Option<IgnoredAny>,
    /// So many more lines of what was open before the segment follow.
    carried: Option<u64>,
    lifecycle: Option<Event>,
}

#[derive(Deserialize)]
struct Event {
    event: Option<String>,
    cut: Option<Cut>,
}

impl Standing {
    /// Reads a line; it is not checked.
    pub(in crate::audit) fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// Whether the exchange was under way.
    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a writer began here, which left nothing open that was open before.
    pub(super) fn is_start(&self) -> bool {
        let event = self.lifecycle.as_ref().and_then(|it| it.event.as_deref());
        self.kind == Kind::Lifecycle && event == Some("log_started")
    }

    /// The end of another segment that does not count.
    pub(super) fn cut(&self) -> Option<&Cut> {
        let lifecycle = self.lifecycle.as_ref()?;
        lifecycle
            .cut
            .as_ref()
            .filter(|_| self.kind == Kind::Lifecycle)
    }
}

/// The exchanges of one segment; `T` is what is kept of a line that says that one is open.
pub(in crate::audit) struct Exchanges<T> {
    open: BTreeMap<RecordId, T>,
    over: HashSet<RecordId>,
    beginning: Beginning,
    /// Where it says that older segments end.
    pub(in crate::audit) limits: BTreeMap<u64, u64>,
}

/// How much of what a segment begins with was seen.
#[derive(PartialEq, Eq)]
enum Beginning {
    /// Records of cuts, if anything.
    Cuts,
    /// Some of what is open, not all.
    Open,
    /// All.
    Whole,
}

impl<T> Default for Exchanges<T> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            over: HashSet::new(),
            beginning: Beginning::Cuts,
            limits: BTreeMap::new(),
        }
    }
}

impl<T> Exchanges<T> {
    /// Takes the next line of the segment; what it says is open is kept as `keep` says.
    pub(in crate::audit) fn take(&mut self, standing: &Standing, keep: impl FnOnce() -> T) {
        if self.beginning == Beginning::Cuts
            && let Some(cut) = standing.cut()
        {
            self.limits.insert(cut.segment, cut.offset);
            return;
        }
        if self.beginning != Beginning::Whole {
            self.beginning = match standing.carried {
                Some(1..) => Beginning::Open,
                Some(0) | None => Beginning::Whole,
            };
        }
        if standing.is_open() {
            self.open.insert(standing.id, keep());
        } else {
            self.open.remove(&standing.id);
            self.over.insert(standing.id);
        }
    }
}

/// What is open at the end of a log, found from its newest segment backwards.
pub(in crate::audit) struct AtEnd<T> {
    /// Each once, by what the newest line says.
    pub(in crate::audit) open: BTreeMap<RecordId, T>,
    over: HashSet<RecordId>,
    /// Nothing older can add to it.
    pub(in crate::audit) whole: bool,
}

impl<T> Default for AtEnd<T> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            over: HashSet::new(),
            whole: false,
        }
    }
}

impl<T> AtEnd<T> {
    /// Takes the next older segment. One whose beginning was written says all there is to know of older ones;
    /// where the writer died before that, they are asked too.
    pub(in crate::audit) fn take(&mut self, segment: Exchanges<T>) {
        if self.whole {
            return;
        }
        for (id, kept) in segment.open {
            if !self.over.contains(&id) {
                self.open.entry(id).or_insert(kept);
            }
        }
        self.over.extend(segment.over);
        self.whole = segment.beginning == Beginning::Whole;
    }
}
