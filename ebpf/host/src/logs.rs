//! The kernel programs' own messages.

use crate::KernelError;
use aya::Ebpf;
use aya_log::EbpfLogger;
use std::{fmt, io};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Messages of the programs, on rare paths only: no memory, a full map.
pub struct Logs {
    logger: AsyncFd<EbpfLogger<ToTracing>>,
}

impl fmt::Debug for Logs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Logs").finish_non_exhaustive()
    }
}

impl Logs {
    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let failed = |cause| KernelError::Map {
            what: "wait on",
            map: "AYA_LOGS",
            cause,
        };
        let logger = EbpfLogger::init_with_logger(ebpf, ToTracing)
            .map_err(|error| failed(io::Error::other(error)))?;
        // SAFETY: the logger keeps the one descriptor that it was made with, until it is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let logger = registered.map_err(|error| failed(error.into()))?;
        Ok(Self { logger })
    }

    /// Hands messages to `tracing` for ever. Safe to cancel.
    ///
    /// # Errors
    /// The ring cannot be waited on.
    pub async fn relay(&mut self) -> Result<(), KernelError> {
        loop {
            let mut guard = self
                .logger
                .readable_mut()
                .await
                .map_err(|cause| KernelError::Map {
                    what: "wait on",
                    map: "AYA_LOGS",
                    cause,
                })?;
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}

/// aya-log speaks to the `log` facade; the daemon speaks to `tracing`.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let message = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: "exeat_ebpf::probes", "{message}"),
            log::Level::Warn => tracing::warn!(target: "exeat_ebpf::probes", "{message}"),
            log::Level::Info => tracing::info!(target: "exeat_ebpf::probes", "{message}"),
            log::Level::Debug | log::Level::Trace => {
                tracing::debug!(target: "exeat_ebpf::probes", "{message}");
            }
        }
    }

    fn flush(&self) {}
}
