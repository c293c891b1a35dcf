//! The HTTP API, under `/api/v1`. JSON in and out; every error is `application/problem+json`
//! (RFC 9457).
//!
//! [`routes`] lists them, each with what `/openapi.json` says of it; `/healthz` (control is alive),
//! `/readyz` (changes reach packets), `/metrics` and that document stand outside of `/api/v1`.
//!
//! A change answers what became of it under `change`, and 202 when packets are not treated by it yet;
//! `?wait_ms=N` says how long to wait for that.
//!
//! PUT replaces what exists (404 otherwise); PATCH is a merge patch (RFC 7396). Answers show the
//! configured fields of a resource and beside them, as `observed`, what was observed of it; bodies may
//! have that key, and it is ignored. A service, backend or pool has an `ETag`
//! of its own, lists have the state's version; a change with `If-Match` is refused with 412 when what it
//! changes has changed meanwhile.

mod backends;
mod body;
mod extract;
mod guard;
mod json;
mod metrics;
mod nodes;
mod observe;
mod openapi;
mod pools;
mod problem_json;
mod query;
mod resource;
mod revisions;
mod serve;
mod services;
mod state;
mod status;
mod view;
mod vips;

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderValue, Method, Uri, header};
use axum::{Extension, Router, middleware};
use serde_json::json;
use sluice_api::Service;
use sluice_api::stats::{ServiceStats, Stats};
use tower_http::cors::CorsLayer;
use tower_http::trace::TraceLayer;

use crate::events::{KEPT, Page};
use crate::manager::{Committed, Manager};
use crate::model::ApiProblem;
use crate::model::resource::{Change, Resource, Subject};
use crate::publish::{Dataplane, Outcome, Patience};
use crate::store::History;
use crate::world::World;

use extract::Terms;
use nodes::Nodes;
use observe::{Alive, Neighbours, Ready};
use openapi::{Api, Document, Operation};
use problem_json::types;
use resource::only_change;
use vips::Vips;

pub use body::MAX_BODY;
pub use guard::{CLIENT, Guard};
pub use problem_json::HttpProblem;
pub use serve::{Patience as ClientPatience, serve};

/// What every handler has.
#[derive(Clone)]
pub struct App {
    /// What is known, and who changes it.
    pub manager: Arc<Manager>,
    /// The way to the data plane.
    pub dataplane: Dataplane,
    /// When control started.
    pub started: Instant,
    /// Where the state is kept, for people to read.
    pub database: Arc<str>,
    /// Former states.
    pub history: Arc<History>,
}

/// A change that was made.
struct Done {
    /// What is known when it is answered, with the state that the change has made.
    world: World,
    /// What became of it.
    outcome: Outcome,
}

impl App {
    /// Make a change durable, off the async threads, and learn what became of it. It is seen
    /// through even when the client goes.
    async fn commit<R: Resource>(
        &self,
        change: Change<R>,
        terms: Terms,
    ) -> Result<Done, HttpProblem> {
        let Terms { wanted, patience, author, .. } = terms;
        let Subject { service, backend } = R::subject(&change.key());
        let commit = move |manager: &Manager| manager.commit(change, wanted, author);
        let mut done = self.done(self.blocking(commit).await?, patience).await;
        if let Some(service) = service.filter(|name| done.world.state.service(name).is_some()) {
            done.outcome.unless(done.world.left_out.part(&service, backend));
        }
        Ok(done)
    }

    /// Learn what became of a change.
    async fn done(&self, committed: Committed, patience: Patience) -> Done {
        let outcome = self.dataplane.outcome(committed.revision, patience).await;
        // Others may have changed the state meanwhile: what is answered is what was asked for.
        let world = World { state: committed.state, ..World::clone(&self.manager.world()) };
        Done { world, outcome }
    }

    /// Have the manager do something that blocks while the disk does.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manager) -> Result<T, ApiProblem> + Send + 'static,
    ) -> Result<T, HttpProblem> {
        let manager = self.manager.clone();
        match tokio::task::spawn_blocking(move || work(&manager)).await {
            Ok(done) => done.map_err(HttpProblem::Api),
            Err(error) => Err(HttpProblem::Internal(error.to_string())),
        }
    }
}

/// All routes, each with what the document says of it.
fn routes() -> Api {
    let sequence = json!({"type": "integer", "minimum": 0});
    let limit = json!({"type": "integer", "minimum": 1, "maximum": KEPT, "default": KEPT});
    let reads_events = Operation::reads_a::<Page>("What happened, oldest first")
        .parameter("since", "Only what follows on this sequence number.", sequence)
        .parameter("limit", "At most so many.", limit);
    let applies =
        Operation::changes("Make pools and services be as given, all or none", state::changes)
            .parameter("dry_run", "Only tell what would change.", json!({"type": "boolean"}))
            .takes(state::batch);
    let confirms =
        Operation::changes("Publish the state though it takes services away", only_change);
    let asks = |is: Operation| is.may_fail([&types::DATAPLANE_UNREACHABLE]);
    let api = Api::new()
        .merge(resource::edited::<Service>())
        .merge(backends::routes())
        .merge(pools::routes())
        .merge(resource::shown::<Vips>())
        .merge(resource::shown::<Nodes>())
        .get(
            "/stats",
            observe::stats,
            asks(Operation::reads_a::<Stats>("All counters of the data plane")),
        )
        .get(
            "/stats/services/{name}",
            observe::service_stats,
            asks(Operation::reads_a::<ServiceStats>("Counters of a service")),
        )
        .get(
            "/ports",
            observe::ports,
            asks(Operation::reads("The data plane's ports", observe::all_ports)),
        )
        .get(
            "/ports/{name}",
            observe::port,
            asks(Operation::reads("One of the data plane's ports", observe::one_port)),
        )
        .get("/events", observe::events, reads_events)
        .get(
            "/status",
            status::status,
            Operation::reads("How control and data plane are", status::schema),
        )
        .post("/apply", state::apply, applies.tagged())
        .post("/confirm", state::confirm, confirms.tagged())
        .get(
            "/neighbours",
            observe::neighbours,
            asks(Operation::reads_a::<Neighbours>("Next hops")),
        )
        .merge(revisions::routes())
        .merge(health());
    let document = Operation::reads("This document", |_| json!({"type": "object"}));
    let metrics = Operation::reads_text("Metrics for Prometheus, or as OpenMetrics", "text/plain");
    Api::new().nest("/api/v1", api).merge(health()).get("/metrics", metrics::metrics, metrics).get(
        "/openapi.json",
        openapi::answer,
        document,
    )
}

/// What those ask who watch over control.
fn health() -> Api {
    let readyz = Operation::reads_a::<Ready>("Whether changes reach packets")
        .may_fail([&types::NOT_READY, &types::DATAPLANE_UNREACHABLE]);
    Api::new()
        .get("/healthz", observe::healthz, Operation::reads_a::<Alive>("Control is alive"))
        .get("/readyz", observe::readyz, readyz)
}

/// The whole API, for those whom `guard` lets in.
pub fn router(app: App, guard: Guard) -> Router {
    let (routes, document) = routes().into_parts();
    let router = routes
        .layer(Extension(Document(document.to_string().into())))
        .route_layer(middleware::from_fn(body::hold))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app);
    let router = if guard.origins.is_empty() { router } else { router.layer(cors(&guard)) };
    router
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .layer(TraceLayer::new_for_http())
}

/// What browsers are told of the pages that may ask.
fn cors(guard: &Guard) -> CorsLayer {
    let origins = guard.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE, header::IF_MATCH, CLIENT.clone()])
        .expose_headers([header::ETAG, header::LOCATION])
}

async fn no_route(uri: Uri) -> HttpProblem {
    HttpProblem::NoRoute(uri.path().to_owned())
}

async fn wrong_method(method: Method, uri: Uri) -> HttpProblem {
    HttpProblem::WrongMethod { method: method.to_string(), path: uri.path().to_owned() }
}
