//! Lists of tools, prompts, resources and tasks: read, and written again without what a caller may not see.

use std::fmt;

use super::Era;
use super::result::{ResultFault, check_keys};
use crate::decode::json::{Object, Value};

/// Which list, by the method that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// tools/list.
    Tools,
    /// prompts/list.
    Prompts,
    /// resources/list.
    Resources,
    /// resources/templates/list.
    Templates,
    /// tasks/list.
    Tasks,
}

impl List {
    /// The list that `method` asks for.
    pub fn of(method: &str) -> Option<List> {
        match method {
            "tools/list" => Some(List::Tools),
            "prompts/list" => Some(List::Prompts),
            "resources/list" => Some(List::Resources),
            "resources/templates/list" => Some(List::Templates),
            "tasks/list" => Some(List::Tasks),
            _ => None,
        }
    }

    fn member(self) -> &'static str {
        match self {
            List::Tools => "tools",
            List::Prompts => "prompts",
            List::Resources => "resources",
            List::Templates => "resourceTemplates",
            List::Tasks => "tasks",
        }
    }

    /// The member of an entry that calls refer to.
    fn key(self) -> &'static str {
        match self {
            List::Tools | List::Prompts => "name",
            List::Resources => "uri",
            List::Templates => "uriTemplate",
            List::Tasks => "taskId",
        }
    }
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The tool's or prompt's name, the resource's URI, the template, the task's id.
    pub name: &'a str,
    /// What the server says that the tool does; all absent for other lists.
    pub hints: Hints,
    /// The whole entry.
    pub entry: &'a Object,
}

/// `annotations` of a tool as the server gave them: untrusted, and absent is not false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// `readOnlyHint`.
    pub read_only: Option<bool>,
    /// `destructiveHint`.
    pub destructive: Option<bool>,
    /// `idempotentHint`.
    pub idempotent: Option<bool>,
    /// `openWorldHint`.
    pub open_world: Option<bool>,
}

impl Hints {
    /// Whether the tool only reads: false unless said (schema, `ToolAnnotations`).
    pub fn is_read_only(self) -> bool {
        self.read_only.unwrap_or(false)
    }

    /// Whether it may destroy: true unless said, and meaningless for a tool that only reads.
    pub fn is_destructive(self) -> bool {
        !self.is_read_only() && self.destructive.unwrap_or(true)
    }

    /// Whether it reaches beyond its own data: true unless said.
    pub fn is_open_world(self) -> bool {
        self.open_world.unwrap_or(true)
    }

    fn read(entry: &Object) -> Result<Hints, ResultFault> {
        let Some(annotations) = entry.get("annotations").and_then(Value::as_object) else {
            return Ok(Hints::default());
        };
        check_keys(
            annotations,
            &[
                "readOnlyHint",
                "destructiveHint",
                "idempotentHint",
                "openWorldHint",
            ],
        )?;
        let hint = |key| annotations.get(key).and_then(Value::as_bool);
        Ok(Hints {
            read_only: hint("readOnlyHint"),
            destructive: hint("destructiveHint"),
            idempotent: hint("idempotentHint"),
            open_world: hint("openWorldHint"),
        })
    }
}

/// What [`filter`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filtered {
    /// Entries left.
    pub kept: usize,
    /// Entries taken out.
    pub removed: usize,
}

/// The entries of a list's result, in the server's order.
///
/// # Errors
/// [`ResultFault`] when an entry has no name or a client could read another list than the one judged.
pub fn listed(result: &Object, list: List) -> Result<Vec<Listed<'_>>, ResultFault> {
    check_keys(
        result,
        &[
            list.member(),
            "nextCursor",
            "cacheScope",
            "ttlMs",
            "resultType",
        ],
    )?;
    let entries = result
        .get(list.member())
        .and_then(Value::as_array)
        .ok_or(ResultFault::Shape)?;
    entries
        .iter()
        .map(|entry| read_entry(entry, list))
        .collect()
}

fn read_entry(entry: &Value, list: List) -> Result<Listed<'_>, ResultFault> {
    let entry = entry.as_object().ok_or(ResultFault::Shape)?;
    check_keys(entry, &[list.key(), "annotations"])?;
    let name = entry
        .get(list.key())
        .and_then(Value::as_str)
        .ok_or(ResultFault::Shape)?;
    let hints = if list == List::Tools {
        Hints::read(entry)?
    } else {
        Hints::default()
    };
    Ok(Listed { name, hints, entry })
}

/// Takes out of a list's result what `keep` does not keep. Whatever it keeps, the result is now one caller's
/// own, so `cacheScope` becomes `private` where the era has it (or the server sent it): no shared cache may
/// serve it to another. A `nextCursor` stays: a page may be empty and not the last.
///
/// # Errors
/// As [`listed`]; the result is then unchanged and must not be sent on.
pub fn filter(
    result: &mut Object,
    list: List,
    era: Era,
    mut keep: impl FnMut(&Listed<'_>) -> bool,
) -> Result<Filtered, ResultFault> {
    let verdicts: Vec<bool> = listed(result, list)?.iter().map(&mut keep).collect();
    let kept = verdicts.iter().filter(|verdict| **verdict).count();
    if let Some(Value::Array(entries)) = result.get_mut(list.member()) {
        // One verdict for each entry; an entry without one would go.
        let mut verdicts = verdicts.iter().copied();
        entries.retain(|_| verdicts.next().unwrap_or(false));
    }
    if era == Era::Modern || result.get("cacheScope").is_some() {
        result.insert("cacheScope", "private");
    }
    Ok(Filtered {
        kept,
        removed: verdicts.len().saturating_sub(kept),
    })
}

// Content is the caller's or the server's: not for logs.
impl fmt::Debug for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed").finish_non_exhaustive()
    }
}
