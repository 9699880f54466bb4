//! Roles: who belongs to them, and what they grant.

use std::sync::Arc;

use super::rule::Selector;
use crate::fault::Place;

/// A group of callers, and what it may call. A grant is an allow rule by another name.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its name, unique over all files and apart from those of hosts and identities.
    pub name: Arc<str>,
    /// The identities and hosts that belong to it; never empty.
    pub members: Vec<Arc<str>>,
    /// What they may use.
    pub grants: Vec<Grant>,
    /// Where it is defined.
    pub place: Place,
}

/// What a role may use.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The servers; never empty.
    pub servers: Vec<Arc<str>>,
    /// Which of their tools; [`Selector::Any`]: everything that the servers offer.
    pub tools: Selector,
    /// Where it stands.
    pub place: Place,
}
