//! Changes: watched tables write a log, the router turns it into tasks.

pub mod router;
