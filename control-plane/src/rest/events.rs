//! Server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::State,
    response::{
        IntoResponse as _, Response,
        sse::{Event as Message, Sse},
    },
    routing::get,
};
use futures_util::Stream;
use http::{HeaderMap, Method, header};
use serde::Deserialize;
use tokio::sync::{broadcast::error::RecvError, mpsc};

use super::{
    Problem,
    body::Query,
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::Role,
    events::{Event, Resume},
};

const PING: Duration = Duration::from_secs(15);
/// A listener that does not read for so many events loses the stream, and comes back for the rest.
const DEPTH: usize = 64;

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![Route::new(
        Method::GET,
        "/api/v1/events",
        Role::Viewer,
        get(listen),
        Doc::new("events", "Events", "What happens, as server-sent events; Last-Event-ID resumes")
            .query(&[("types", "Only these, separated by commas: revision, node, backend, stats")])
            .responses(&[(200, "text/event-stream")]),
    )]
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    types: Option<String>,
}

async fn listen(
    State(app): State<App>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    // What is no number is no id of ours: as one that is too old.
    let last = last.filter(|text| !text.is_empty()).map(|text| text.parse().unwrap_or(0));
    let types: Option<Vec<String>> =
        query.types.map(|types| types.split(',').map(|kind| kind.trim().to_owned()).collect());
    let (out, messages) = mpsc::channel(DEPTH);
    tokio::spawn(pump(app, last, types, headers, out));
    let sse = Sse::new(Messages(messages));
    // Proxies in between must not collect events.
    Ok((
        [(header::CACHE_CONTROL, "no-store"), (http::HeaderName::from_static("x-accel-buffering"), "no")],
        sse,
    )
        .into_response())
}

/// Until the listener goes, the process stops, or whoever listens may not any more.
async fn pump(
    app: App,
    last: Option<u64>,
    types: Option<Vec<String>>,
    headers: HeaderMap,
    out: mpsc::Sender<Message>,
) {
    let (resume, mut live) = app.events.listen(last);
    let is_wanted =
        |event: &Event| types.as_ref().is_none_or(|types| types.iter().any(|kind| kind == event.kind));
    // At once, so that the other side knows that it is connected.
    let first = match resume {
        Resume::Reset(sequence) => {
            vec![Message::default().id(sequence.to_string()).event("reset").data("{}")]
        }
        Resume::Events(events) if events.is_empty() => vec![ping()],
        Resume::Events(events) => events.iter().filter(|event| is_wanted(event)).map(message).collect(),
    };
    for message in first {
        if out.send(message).await.is_err() {
            return;
        }
    }
    let mut pings = tokio::time::interval(PING);
    pings.tick().await;
    loop {
        let message = tokio::select! {
            event = live.recv() => match event {
                Ok(event) if is_wanted(&event) => message(&event),
                Ok(_) => continue,
                // It read too slowly: it comes back with the id of the last event that it has.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
            _ = pings.tick() => {
                let may = app.auth.identify(&headers).await;
                if !matches!(may, Ok(Some(_))) {
                    return;
                }
                ping()
            }
            () = app.stop.cancelled() => return,
            () = out.closed() => return,
        };
        tokio::select! {
            sent = out.send(message) => if sent.is_err() { return },
            () = app.stop.cancelled() => return,
        }
    }
}

fn message(event: &Event) -> Message {
    Message::default().id(event.sequence.to_string()).event(event.kind).data(&*event.data)
}

/// Without an id: the last one stays that of the last event.
fn ping() -> Message {
    Message::default().event("ping").data("{}")
}

struct Messages(mpsc::Receiver<Message>);

impl Stream for Messages {
    type Item = Result<Message, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|message| message.map(Ok))
    }
}
