//! The certificates of client authorities: read at the start, and again with the policy. Ones that cannot be used leave
//! the last good ones in force.

use super::core::Supervisor;
use super::error::DaemonError;
use crate::channel::ToGate;
use crate::config::{Config, read_text};
use crate::identify::certificate::Authorities;
use crate::launch::stage::chain;

/// Each authority's name and certificates.
pub(super) fn read(config: &Config) -> Result<Vec<(String, String)>, DaemonError> {
    let read = config.tls.client_authorities.iter().map(|authority| {
        let text = read_text(&authority.roots)?;
        Ok::<_, DaemonError>((authority.name.clone(), text))
    });
    let read = read.collect::<Result<Vec<_>, _>>()?;
    // What the gate could not use, it is not to get.
    let given = read.iter().map(|(name, text)| (&**name, &**text));
    let _usable = Authorities::new(given)?;
    Ok(read)
}

impl Supervisor {
    /// Reads them anew; the gate gets what changed.
    pub(super) async fn reread_authorities(&mut self) {
        match read(&self.parts.config) {
            Ok(authorities) if authorities == self.parts.material.client_authorities => {}
            Ok(authorities) => {
                self.parts
                    .material
                    .client_authorities
                    .clone_from(&authorities);
                self.tell(ToGate::ClientAuthorities(authorities)).await;
            }
            Err(error) => {
                let details = vec![chain(&error)];
                self.finding("client_authorities_refused", None, details)
                    .await;
            }
        }
    }
}
