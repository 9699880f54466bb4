//! Safe access to the kernel programs.
