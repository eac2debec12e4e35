//! The daemon's HTTP server: what it knows, for people, scrapers and programs. It is
//! read-only, and nobody who reads can hold up anybody else: there is a limit for all
//! that a client could have too much of, and a time for all it could take too long for.

mod answer;
mod budget;
mod connection;
mod guard;
mod page;
mod query;
mod readings;
mod routes;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod top;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use budget::Budget;
use connection::{Host, Limits};
use readings::Readings;
use routes::{App, Moment};

use super::families::Reading;
use super::live::Live;

/// Whether the daemon may listen there. There is no password: who reaches it reads all.
pub fn check_listen(address: SocketAddr, allow_remote: bool) -> Result<(), String> {
    if allow_remote || is_loopback(address) {
        return Ok(());
    }
    Err(format!(
        "--listen {address} can be reached from other hosts, and whoever reaches it reads all \
         about the filters and the packets they drop: there is no password and no encryption. \
         Listen on 127.0.0.1 or [::1], or say --allow-remote as well."
    ))
}

/// Whether nobody but this host reaches it.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Listens there. Who comes waits until there is somebody to [`serve`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "Another program has that port, perhaps another nodewall: end it, choose another \
                 port with --listen, or serve nothing with --no-http."
            }
            io::ErrorKind::AddrNotAvailable => {
                "No interface has that address: give one that `ip address` lists to --listen."
            }
            io::ErrorKind::PermissionDenied => {
                "Ports below 1024 need CAP_NET_BIND_SERVICE: choose another one with --listen."
            }
            _ => "Choose another address with --listen, or serve nothing with --no-http.",
        };
        format!("cannot listen on {address} for HTTP: {error}. {help}")
    })
}

/// Serves what a daemon knows, until `shutdown`. An error is one of the runtime's.
pub async fn serve(
    listener: TcpListener,
    live: Arc<Live>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let of = Arc::clone(&live);
    let read = move || of.read();
    serve_within(Limits::default(), listener, live, read, shutdown).await
}

/// The parameters of a request as they are read, for `fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn parameters(text: &str) -> Result<Vec<(String, String)>, String> {
    match query::Query::read(Some(text)) {
        Ok(query) => Ok(query.pairs()),
        Err(refused) => Err(refused.message().to_owned()),
    }
}

/// What a request for events with these parameters comes to, likewise: which are wanted, or
/// why it is refused.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn events_wanted(text: &str) -> Result<super::Wanted, String> {
    let request = axum::http::Request::get(format!("/v1/events?{text}")).body(());
    let request = request.map_err(|error| error.to_string())?;
    let asked = || {
        guard::check(&request, true)?;
        let mut query = query::Query::read(request.uri().query())?;
        let asked = stream::Asked::read(&mut query, request.headers())?;
        query.end(request.uri().path())?;
        Ok(asked.wanted)
    };
    asked().map_err(|refused: answer::Refused| refused.message().to_owned())
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    live: Arc<Live>,
    read: impl Fn() -> Reading + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // Where it can't be told, names are checked.
    let loopback = listener.local_addr().map_or(true, is_loopback);
    let (close, closing) = watch::channel(false);
    let app = App {
        live,
        readings: Readings::new(move || Moment::of(read()), limits.reading),
        budget: Budget::new(limits.untaken),
        streams: Arc::new(Semaphore::new(limits.streams)),
        most_streams: limits.streams,
        closing: closing.clone(),
    };
    let host = Host {
        router: routes::router(app),
        loopback,
        limits,
        closing,
    };
    connection::serve(listener, host, close, shutdown).await;
    Ok(())
}
