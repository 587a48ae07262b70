//! The exit codes, for scripts and service managers.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Success = 0,
    /// It did not; standard error says why.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The database cannot be reached (`EX_UNAVAILABLE` of sysexits.h): trying again may help.
    Unavailable = 69,
    /// The configuration or the schema does not fit (`EX_CONFIG`): somebody has to act; systemd does not restart on it.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
