//! What the daemon serves beside its status, from its configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::db::connect::Connector;
use crate::plugin::serve::catalogue::Catalogue;
use crate::plugin::serve::{Server, Surroundings};
use crate::status::More;
use crate::status::snapshot::Snapshots;

/// The endpoints of plugins and the daemon's own paths.
pub(super) fn more(
    config: &Config,
    listen: SocketAddr,
    connector: &Connector,
    catalogue: Catalogue,
    snapshots: Arc<Snapshots>,
) -> More {
    let kafka = config.connections.kafka.values();
    let surroundings = Surroundings {
        plugin_dir: config.http.plugin_dir.clone(),
        disk: config.private_postgres.data_dir.clone().or_else(|| config.node.state_dir.clone()),
        brokers: kafka
            .flat_map(|kafka| kafka.bootstrap_servers.split(','))
            .map(|broker| broker.trim().to_owned())
            .collect(),
    };
    let server = Server::new(&config.http, listen, connector, catalogue, snapshots, surroundings);
    More {
        routes: Arc::new(server).routes(),
        root_page: config.http.root_page.as_deref().and_then(|page| page.parse().ok()),
    }
}
