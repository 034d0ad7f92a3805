//! What every service needs: its control page, the devices of the machine that it drives, memory that they may reach, limits.
//!
//! A service is a guest on the SDK that the manager builds and restarts. It holds no state that matters: the windows and their
//! ports outlive it, and whoever used it makes what was in flight again.
#![cfg_attr(target_os = "none", no_std)]

pub mod control;
pub mod limit;
pub mod machine;
