//! The API's own description, OpenAPI 3.1, at `/openapi.json`. A route and what the document says of it
//! are added in one line, so that neither is without the other; fields come from the types.

mod operation;
mod schemas;

use axum::extract::Extension;
use axum::handler::Handler;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Router, middleware};
use serde_json::{Map, Value, json};

use super::{App, query};

pub use operation::Operation;
pub use schemas::{Schemas, without};

/// Routes, and what is said of each.
#[derive(Default)]
pub struct Api {
    router: Router<App>,
    operations: Vec<Entry>,
}

struct Entry {
    path: String,
    method: &'static str,
    operation: Operation,
}

impl Api {
    /// None.
    pub fn new() -> Api {
        Api::default()
    }

    /// And what a path answers to GET, and to HEAD.
    pub fn get<H: Handler<T, App>, T: 'static>(self, path: &str, handler: H, is: Operation) -> Api {
        self.on(MethodFilter::GET, "get", path, handler, is)
    }

    /// And what a path does at POST.
    pub fn post<H: Handler<T, App>, T: 'static>(
        self,
        path: &str,
        handler: H,
        is: Operation,
    ) -> Api {
        self.on(MethodFilter::POST, "post", path, handler, is)
    }

    /// And what a path does at PUT.
    pub fn put<H: Handler<T, App>, T: 'static>(self, path: &str, handler: H, is: Operation) -> Api {
        self.on(MethodFilter::PUT, "put", path, handler, is)
    }

    /// And what a path does at PATCH.
    pub fn patch<H: Handler<T, App>, T: 'static>(
        self,
        path: &str,
        handler: H,
        is: Operation,
    ) -> Api {
        self.on(MethodFilter::PATCH, "patch", path, handler, is)
    }

    /// And what a path does at DELETE.
    pub fn delete<H: Handler<T, App>, T: 'static>(
        self,
        path: &str,
        handler: H,
        is: Operation,
    ) -> Api {
        self.on(MethodFilter::DELETE, "delete", path, handler, is)
    }

    fn on<H: Handler<T, App>, T: 'static>(
        mut self,
        filter: MethodFilter,
        method: &'static str,
        path: &str,
        handler: H,
        operation: Operation,
    ) -> Api {
        let known = query::Known(operation.parameters().collect());
        let handler = handler.layer(middleware::from_fn_with_state(known, query::check));
        self.router = self.router.route(path, on(filter, handler));
        self.operations.push(Entry { path: path.to_owned(), method, operation });
        self
    }

    /// And those of others.
    pub fn merge(mut self, other: Api) -> Api {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// And those of others, below a path.
    pub fn nest(mut self, prefix: &str, other: Api) -> Api {
        self.router = self.router.nest(prefix, other.router);
        let below = |entry: Entry| Entry { path: format!("{prefix}{}", entry.path), ..entry };
        self.operations.extend(other.operations.into_iter().map(below));
        self
    }

    /// The routes, and the document that describes them.
    pub fn into_parts(self) -> (Router<App>, Value) {
        let document = document(&self.operations);
        (self.router, document)
    }
}

fn document(operations: &[Entry]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for Entry { path, method, operation } in operations {
        let described = operation.describe(path, method, &mut schemas);
        let path = paths.entry(path.clone()).or_insert_with(|| json!({}));
        path[*method] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice",
            "summary": "A layer-4 load balancer: services, backends and pools, and what is observed of them",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas.into_components()},
    })
}

/// The document as it is answered with.
#[derive(Clone)]
pub struct Document(pub std::sync::Arc<str>);

/// The document.
pub async fn answer(Extension(Document(text)): Extension<Document>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
