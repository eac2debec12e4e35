//! Connections: how many there are, and how long each may take for what.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::JSON;
use super::guard;
use super::socket::Impatient;

/// How much is given to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Streams of events among them.
    pub streams: usize,
    /// Bytes of answers that were made and not taken yet, together.
    pub untaken: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// For a request's head to come, from the answer before on.
    pub asking: Duration,
    /// For a reader to take something of what is written.
    pub taking: Duration,
    /// For the counters to be read.
    pub reading: Duration,
    /// For all to end, when the daemon does.
    pub ending: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            streams: 32,
            untaken: 256 << 20,
            head: 16 << 10,
            asking: Duration::from_secs(10),
            taking: Duration::from_secs(15),
            reading: Duration::from_secs(5),
            ending: Duration::from_secs(2),
        }
    }
}

/// Who is turned away is told why, as long as not too many are at a time.
const TURNED_AWAY: usize = 64;
/// How long who is turned away has to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long to wait where no connection can be taken, for want of descriptors or memory.
const RECOVERY: Duration = Duration::from_millis(100);

/// Who answers, and within which limits.
#[derive(Clone)]
pub(super) struct Host {
    pub router: Router,
    /// Whether it is reached by loopback alone.
    pub loopback: bool,
    pub limits: Limits,
    /// Turns true when all are to end.
    pub closing: watch::Receiver<bool>,
}

/// Serves whoever comes until `shutdown`, then lets those who are there end: what is
/// being answered is answered to its end, if that comes soon.
pub(super) async fn serve(
    listener: TcpListener,
    host: Host,
    closing: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(host.limits.connections));
    let door = Arc::new(Semaphore::new(TURNED_AWAY));
    let mut all = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = all.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    all.spawn(converse(socket, host.clone(), place));
                } else if let Ok(place) = Arc::clone(&door).try_acquire_owned() {
                    all.spawn(turn_away(socket, host.limits.connections, place));
                }
            }
            Err(_) => sleep(RECOVERY).await,
        }
    }
    drop(listener);
    closing.send_replace(true);
    let ended = async { while all.join_next().await.is_some() {} };
    // Who is left is cut off.
    timeout(host.limits.ending, ended).await.ok();
}

async fn converse(socket: TcpStream, mut host: Host, _place: OwnedSemaphorePermit) {
    socket.set_nodelay(true).ok();
    let socket = TokioIo::new(Impatient::new(socket, host.limits.taking));
    let router = TowerToHyperService::new(host.router);
    let loopback = host.loopback;
    let answer = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            match guard::check(&request, loopback) {
                Ok(()) => router.call(request).await,
                Err(refused) => Ok(refused.into_response()),
            }
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(host.limits.asking)
            .max_header_size(host.limits.head)
            .serve_connection(socket, answer)
    );
    // An error is the other side's, who is gone: there is nobody to tell.
    tokio::select! {
        _ = &mut connection => return,
        () = closed(&mut host.closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.ok();
}

/// Waits until all are to end.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // Where nobody can say so any more, it is so.
    closing.wait_for(|closing| *closing).await.ok();
}

/// Says why, and closes. To close with something unread would take back what was said.
async fn turn_away(mut socket: TcpStream, most: usize, _place: OwnedSemaphorePermit) {
    let why = json!({
        "schema": 1,
        "error": format!(
            "all {most} connections are taken; close some, or try again in a few seconds"
        ),
    });
    let why = format!("{why}\n");
    let said = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nretry-after: 5\r\nconnection: close\r\n\r\n{why}",
        why.len()
    );
    let farewell = async {
        socket.write_all(said.as_bytes()).await?;
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
    };
    timeout(FAREWELL, farewell).await.ok();
}
