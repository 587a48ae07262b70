//! The endpoints that plugins declare, as the database has them: read by a loop, which hears when they change. Which function is called
//! and who may is decided by the database at each call; what is known here says where a request leads and what its input is.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;

use crate::db::doorbell::Topic;
use crate::db::query::{Db, DbError};
use crate::plugin::manifest::Endpoint;
use crate::service::{Loop, Pass};

/// An endpoint of a plugin.
#[derive(Debug, Clone, Deserialize)]
pub struct Declared {
    /// Whose it is.
    pub plugin: String,
    /// What it is.
    #[serde(flatten)]
    pub endpoint: Endpoint,
}

/// All endpoints; empty handed until they were read once.
#[derive(Clone, Default)]
pub struct Catalogue {
    endpoints: Arc<RwLock<Option<Arc<[Declared]>>>>,
}

/// Where a request leads.
#[derive(Debug)]
pub enum Route {
    /// To an endpoint, with the parameters of its path.
    Found(Box<Declared>, Vec<(String, String)>),
    /// To a path that takes other methods.
    OtherMethods(Vec<String>),
    /// Nowhere.
    Nowhere,
    /// Nobody knows yet.
    Unknown,
}

impl Catalogue {
    /// All of them.
    pub fn all(&self) -> Option<Arc<[Declared]>> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds the endpoint of a request; a literal part of a path counts more than a parameter, a slash at the end nothing.
    pub fn route(&self, method: &str, path: &str) -> Route {
        let Some(all) = self.all() else { return Route::Unknown };
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
        let mut fitting: Vec<_> = all
            .iter()
            .filter_map(|declared| Some((declared, parameters(&declared.endpoint.path, &segments)?)))
            .collect();
        if fitting.is_empty() {
            return Route::Nowhere;
        }
        let mut methods: Vec<String> =
            fitting.iter().map(|(declared, _)| declared.endpoint.method.clone()).collect();
        fitting.retain(|(declared, _)| declared.endpoint.method == method);
        let best = fitting.into_iter().min_by_key(|(declared, _)| {
            declared.endpoint.shape.split('/').map(|part| part == "{}").collect::<Vec<_>>()
        });
        match best {
            Some((declared, parameters)) => Route::Found(Box::new(declared.clone()), parameters),
            None => {
                if methods.iter().any(|method| method == "GET") {
                    methods.push("HEAD".to_owned());
                }
                methods.sort_unstable();
                methods.dedup();
                Route::OtherMethods(methods)
            }
        }
    }
}

/// The parameters of a path, if it has this pattern.
fn parameters(pattern: &str, segments: &[&str]) -> Option<Vec<(String, String)>> {
    let parts: Vec<&str> = pattern.trim_end_matches('/').split('/').collect();
    if parts.len() != segments.len() {
        return None;
    }
    let mut found = Vec::new();
    for (part, segment) in parts.iter().zip(segments) {
        let text = percent_decode_str(segment).decode_utf8().ok()?;
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) if !text.is_empty() => found.push((name.to_owned(), text.into_owned())),
            None if *part == text => {}
            _ => return None,
        }
    }
    Some(found)
}

/// Reads the endpoints whenever they changed.
pub struct EndpointReader {
    /// The database.
    pub db: Db,
    /// Where they are kept.
    pub catalogue: Catalogue,
    /// How often to look although nothing was heard.
    pub poll: Duration,
}

impl Loop for EndpointReader {
    const NAME: &'static str = "endpoints";
    const TOPIC: Topic = Topic::Endpoint;

    async fn run_once(&mut self) -> Result<Pass, DbError> {
        let rows = self.db.rows("endpoint.all", &[]).await?;
        let read = |row: &tokio_postgres::Row| {
            serde_json::from_value::<Declared>(row.get::<_, Value>("endpoint"))
                .map_err(|error| tracing::warn!(%error, "an endpoint cannot be read"))
                .ok()
        };
        let all: Arc<[Declared]> = rows.iter().filter_map(read).collect();
        *self.catalogue.endpoints.write().unwrap_or_else(PoisonError::into_inner) = Some(all);
        Ok(Pass::Idle(self.poll))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_its_pattern_part_by_part() {
        let fits = |pattern, path: &str| parameters(pattern, &path.split('/').collect::<Vec<_>>());
        assert_eq!(fits("/a/{x}/b", "/a/%C3%A4%2Fc/b"), Some(vec![("x".into(), "ä/c".into())]));
        assert_eq!(fits("/a/{x}", "/a/"), None, "a parameter is never empty");
        assert_eq!(fits("/a", "/a/b"), None);
        assert_eq!(fits("/a/{x}", "/a/%FF"), None, "what is no text is nowhere");
    }
}
