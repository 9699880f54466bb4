//! Exeat: binds managed processes to a policy and records what leaves them.
