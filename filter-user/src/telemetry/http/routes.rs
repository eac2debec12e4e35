//! What is asked for, and who answers.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use axum::routing::get;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::spawn_blocking;

use super::answer::{self, JSON, Kept, Refused, TEXT, Whole};
use super::budget::Budget;
use super::page;
use super::query::{Query, number, one_of};
use super::readings::Readings;
use super::stream::{Asked, Stream};
use super::top;
use crate::datapath::Status;
use crate::telemetry::document;
use crate::telemetry::families::{Reading, Scrape};
use crate::telemetry::live::Live;
use crate::telemetry::openmetrics::Format;
use crate::telemetry::tops::By;

/// The description of all this, for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// Items of a top, at most.
const LONGEST_TOP: u64 = 1_000;

/// What answers are made of.
pub(super) struct App {
    pub live: Arc<Live>,
    pub readings: Readings<Moment>,
    pub budget: Budget,
    /// Places for streams.
    pub streams: Arc<Semaphore>,
    pub most_streams: usize,
    pub closing: watch::Receiver<bool>,
}

/// What was read at a moment, and what scrapers are told of it.
pub(super) struct Moment {
    reading: Arc<Reading>,
    openmetrics: OnceCell<Kept>,
    classic: OnceCell<Kept>,
}

impl Moment {
    pub(super) fn of(reading: Reading) -> Self {
        Self {
            reading: Arc::new(reading),
            openmetrics: OnceCell::new(),
            classic: OnceCell::new(),
        }
    }
}

type Answer = Result<Response<Body>, Refused>;

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/openapi.json", get(openapi))
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/v1/rules", get(rules))
        .route("/v1/policies", get(policies))
        .route("/v1/top", get(heaviest))
        .route("/v1/events", get(events))
        .fallback(file)
        .with_state(Arc::new(app))
}

/// Refuses every parameter.
fn no_query(uri: &Uri) -> Result<(), Refused> {
    Query::read(uri.query())?.end(uri.path())
}

impl App {
    fn clients(&self) -> usize {
        self.most_streams - self.streams.available_permits()
    }

    /// Makes an answer, where nobody else waits for it: a long list of rules takes its
    /// time.
    async fn make(
        self: &Arc<Self>,
        moment: &Moment,
        make: impl FnOnce(&Self, Arc<Reading>) -> Result<Whole, Refused> + Send + 'static,
    ) -> Result<Kept, Refused> {
        let _turn = self.budget.turn().await;
        let (app, reading) = (Arc::clone(self), Arc::clone(&moment.reading));
        let done = spawn_blocking(move || make(&app, reading)).await;
        let whole = done.unwrap_or_else(|error| {
            let message = format_args!("the answer could not be made: {error}");
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message))
        })?;
        Ok(Kept {
            content_type: whole.content_type,
            text: self.budget.keep(whole.text)?,
        })
    }

    /// Makes an answer of what is read now.
    async fn answer(
        self: Arc<Self>,
        make: impl FnOnce(&Self, Arc<Reading>) -> Result<Whole, Refused> + Send + 'static,
    ) -> Answer {
        let moment = self.readings.now().await?;
        Ok(self.make(&moment, make).await?.into_response())
    }

    /// Likewise, where there must be something to tell.
    async fn document(
        self: Arc<Self>,
        make: impl FnOnce(&[Status]) -> Result<Whole, Refused> + Send + 'static,
    ) -> Answer {
        self.answer(|_, reading| make(read(&reading)?)).await
    }
}

/// What was read, or why nothing was: nobody is told zeros instead.
fn read(reading: &Reading) -> Result<&[Status], Refused> {
    reading.as_deref().map_err(|error| {
        Refused::unavailable(format_args!("the counters can't be read: {error}")).again_after("5")
    })
}

async fn metrics(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Answer {
    no_query(&uri)?;
    let accept = headers.get_all(ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|accept| accept.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let moment = app.readings.now().await?;
    let make = move |app: &App, reading: Arc<Reading>| {
        read(&reading)?;
        let scrape = Scrape::of(&app.live, reading, Some(app.clients()));
        let text = scrape.encode(format).map_err(|error| {
            let message = format_args!("the counters can't be written: {error}");
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        })?;
        Ok(Whole {
            content_type: format.content_type(),
            text: text.into(),
        })
    };
    let text = match format {
        Format::OpenMetrics => &moment.openmetrics,
        Format::Classic => &moment.classic,
    };
    // Scrapers that share a reading share its text.
    let kept = text.get_or_try_init(|| app.make(&moment, make)).await?;
    Ok(kept.clone().into_response())
}

async fn health(uri: Uri) -> Answer {
    no_query(&uri)?;
    Ok(answer::whole(TEXT, "ok\n"))
}

async fn readiness(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    no_query(&uri)?;
    let why = match app.readings.now().await {
        Ok(moment) => app.live.not_ready(&moment.reading),
        Err(refused) => Some(refused.message().to_owned()),
    };
    Ok(match why {
        None => answer::whole(TEXT, "ready\n"),
        Some(why) => {
            let mut response = answer::whole(TEXT, one_line(&why));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    })
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ") + "\n"
}

async fn openapi(uri: Uri) -> Answer {
    no_query(&uri)?;
    Ok(answer::whole(JSON, OPENAPI))
}

async fn status(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    no_query(&uri)?;
    app.answer(|app, reading| answer::document(&app.live.status(&reading, app.clients())))
        .await
}

async fn stats(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    no_query(&uri)?;
    app.document(|all| {
        let totals = all.iter().flat_map(Status::totals);
        answer::document(&document::stats(totals, SystemTime::now()))
    })
    .await
}

async fn rules(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let mut query = Query::read(uri.query())?;
    let interface = query.text("interface").map(String::from);
    query.end(uri.path())?;
    app.document(move |all| {
        let Some(name) = interface else {
            return answer::document(&document::rules(all, |_| true));
        };
        match all.iter().find(|status| status.interface == name) {
            Some(one) => answer::document(&document::rules(std::slice::from_ref(one), |_| true)),
            None => Err(Refused::new(
                StatusCode::NOT_FOUND,
                format_args!("no filter is attached to {name:?}; /v1/status lists those that are"),
            )),
        }
    })
    .await
}

async fn policies(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    no_query(&uri)?;
    app.document(|all| answer::document(&document::policies(all)))
        .await
}

async fn heaviest(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    const BY: [(&str, Option<By>); 3] = [
        (By::Src.name(), Some(By::Src)),
        (By::Dport.name(), Some(By::Dport)),
        ("rule", None),
    ];
    let mut query = Query::read(uri.query())?;
    let by = query.value("by", one_of(&BY))?.unwrap_or(Some(By::Src));
    let n = query.value("n", number(LONGEST_TOP))?.unwrap_or(20);
    query.end(uri.path())?;
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    match by {
        Some(by) => answer::document(&app.live.hub.top(by, n)).map(Whole::into_response),
        None => {
            app.document(move |all| answer::document(&top::rules(all, n)))
                .await
        }
    }
}

async fn events(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Answer {
    let mut query = Query::read(uri.query())?;
    let asked = Asked::read(&mut query, &headers)?;
    query.end(uri.path())?;
    let place = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        let message = format_args!(
            "all {} streams of events are taken; close some, or try again in a few seconds",
            app.most_streams
        );
        Refused::unavailable(message).again_after("5")
    })?;
    let stream = Stream::new(asked, &app.live.hub, place, app.closing.clone());
    Ok(stream.into_response())
}

/// The page's files. They take no parameters, but may be asked for with any: scripts
/// read them.
async fn file(uri: Uri, headers: HeaderMap) -> Answer {
    page::file(uri.path(), &headers).ok_or_else(|| {
        let message = format_args!(
            "there is nothing at {:?}: /openapi.json lists all there is",
            uri.path()
        );
        Refused::new(StatusCode::NOT_FOUND, message)
    })
}
