//! What the supervisor tells the kernel programs.

/// Deepest cgroup level at which a managed cgroup may sit; the root is level 0.
pub const MAX_LEVEL: u32 = 15;

/// The one value of the map `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Cookie of the network namespace that the gate listens in. Connections from any other
    /// namespace are refused.
    pub netns: u64,
    /// Id of the cgroup whose children are workloads.
    pub managed: u64,
    /// Level of `managed`.
    pub managed_level: u32,
    /// Bit n is set where some managed cgroup outside `managed` sits at level n.
    pub levels: u32,
    /// Port of the gate's TCP listeners on 127.0.0.1 and `::1`.
    pub proxy_port: u16,
    /// Port of the gate's UDP listeners on 127.0.0.1 and `::1`.
    pub dns_port: u16,
    /// Zero.
    pub pad: u32,
    /// Id of the gate's cgroup.
    pub gate: u64,
    /// Zero.
    pub reserved: u64,
}

/// The bit of [`Config::levels`] that stands for a level, or zero beyond [`MAX_LEVEL`].
#[must_use]
pub const fn levels(level: u32) -> u32 {
    if level > MAX_LEVEL { 0 } else { 1 << level }
}
