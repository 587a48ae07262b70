//! Logging: text for people, JSON for machines. Fields are dotted and the same everywhere (`task.id`, `attempt.no`,
//! `schedule.name`, `node.id`), units are in names (`duration_ms`). Never payloads, addresses or secrets.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error. A second call has no effect.
pub fn start(config: &LogConfig) {
    let mut filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // It tells of every start that there is nothing to apply; what is applied, we tell ourselves.
    if let (false, Ok(quiet)) = (config.level.contains("refinery"), "refinery_core=warn".parse()) {
        filter = filter.add_directive(quiet);
    }
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    // An embedding program may have its own subscriber: that one stays.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(terminal).with_target(false).compact().try_init()
    };
}
