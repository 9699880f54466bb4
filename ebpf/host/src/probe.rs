//! What the running kernel offers.

/// What was found; everything mandatory is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// Where cgroup2 is mounted.
    pub cgroup_root: std::path::PathBuf,
    /// Refused connects fail with ECONNREFUSED (else with EPERM).
    pub refusal_errno: bool,
    /// Connections older than management can be ended.
    pub destroy: bool,
}

/// Something mandatory that is not there; displays as one sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub(crate) String);

/// Looks for everything that the programs need.
///
/// # Errors
/// All that is missing.
pub fn probe() -> Result<Features, Vec<Missing>> {
    Err(vec![Missing("not probed".to_owned())])
}
