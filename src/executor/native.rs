//! `native`: async Rust handlers of the program that embeds this library, by the name of their task definition.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use super::{Effect, Failure};

type HandlerFuture = Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send>>;
type Handler = Arc<dyn Fn(Effect) -> HandlerFuture + Send + Sync>;

/// The handlers of this program.
///
/// A handler that panics has failed its attempt, nothing else. It is dropped at its next await when its attempt times out or is cancelled: what ignores that belongs into a
/// program (`exec`), which can be killed.
#[derive(Clone, Default)]
pub struct Handlers {
    handlers: Arc<HashMap<String, Handler>>,
}

impl Handlers {
    /// No handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handler of a definition whose executor is `native`; it gets the effect (payload in `effect.task`) and
    /// returns the response, which becomes the task's result.
    #[must_use]
    pub fn with<F, R>(mut self, definition: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Effect) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        Arc::make_mut(&mut self.handlers)
            .insert(definition.into(), Arc::new(move |effect| Box::pin(handler(effect))));
        self
    }

    pub(crate) fn has(&self, definition: &str) -> bool {
        self.handlers.contains_key(definition)
    }

    pub(crate) async fn perform(&self, effect: Effect) -> Result<Value, Failure> {
        let Some(handler) = self.handlers.get(&effect.task.definition) else {
            return Err(Failure::retry(format!("this node has no handler for {}", effect.task.definition)));
        };
        handler(effect).await
    }
}
