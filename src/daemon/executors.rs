//! The executors of this node, from its configuration.

use super::DaemonError;
use crate::config::{Config, ProgramConfig};
use crate::executor::exec::{Program, Programs};
use crate::executor::native::Handlers;
use crate::executor::{Executors, Unusable, http, smtp};

/// Everything that this node can perform.
pub(super) fn build(config: &Config, handlers: Handlers) -> Result<Executors, DaemonError> {
    let connections = &config.connections;
    // Looked up only where they are needed: it takes a moment.
    let roots =
        if connections.http.is_empty() { Vec::new() } else { rustls_native_certs::load_native_certs().certs };
    Ok(Executors {
        native: handlers,
        exec: Programs::new(config.programs.iter().map(|(name, it)| (name.clone(), program(it))).collect()),
        http: http::Connections::new(&connections.http, &roots).map_err(|error| wrong(&error))?,
        smtp: smtp::Connections::new(&connections.smtp).map_err(|error| wrong(&error))?,
        #[cfg(feature = "kafka")]
        kafka: crate::executor::kafka::Connections::new(&connections.kafka).map_err(|error| wrong(&error))?,
    })
}

fn wrong(error: &Unusable) -> DaemonError {
    DaemonError::Configuration(error.to_string())
}

fn program(config: &ProgramConfig) -> Program {
    Program {
        path: config.path.clone(),
        args: config.args.clone(),
        env: config.env.clone(),
        working_dir: config.working_dir.clone(),
    }
}
