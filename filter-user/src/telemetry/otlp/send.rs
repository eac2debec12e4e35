//! One push, over HTTP or gRPC. What takes too long is the caller's to end: a push that
//! is dropped leaves nothing behind.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use super::settings::{Protocol, Settings};

/// As much of an answer as is read.
const MOST_ANSWERED: usize = 64 * 1024;
const PROTOBUF: &str = "application/x-protobuf";
const AGENT: &str = concat!("nodewall/", env!("CARGO_PKG_VERSION"));

/// Sends to a collector.
pub(super) enum Sender {
    /// A connection a push: it is made once in seconds, and one that died is no trouble.
    Http(Uri),
    /// A connection that comes again by itself.
    Grpc(MetricsServiceClient<Channel>),
}

impl Sender {
    /// Connects when there is something to send. Needs a runtime.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let endpoint = &settings.endpoint;
        match settings.protocol {
            Protocol::Http => Ok(Self::Http(endpoint.clone())),
            Protocol::Grpc => {
                let endpoint = Endpoint::from(endpoint.clone())
                    .user_agent(AGENT)
                    .map_err(|error| format!("cannot speak gRPC: {}", chain(&error)))?;
                let client = MetricsServiceClient::new(endpoint.connect_lazy());
                Ok(Self::Grpc(client))
            }
        }
    }

    /// Sends, and waits for the answer.
    pub(super) async fn send(
        &mut self,
        request: ExportMetricsServiceRequest,
    ) -> Result<(), String> {
        let answer = match self {
            Self::Http(endpoint) => post(endpoint, request.encode_to_vec().into()).await?,
            Self::Grpc(client) => {
                let answer = client.export(request).await;
                let answer = answer.map_err(|status| match status.message() {
                    "" => format!("{:?}", status.code()),
                    message => format!("{:?}: {message}", status.code()),
                })?;
                answer.into_inner()
            }
        };
        match answer.partial_success {
            Some(partial) if partial.rejected_data_points > 0 => Err(format!(
                "the collector rejected {} data points: {}",
                partial.rejected_data_points, partial.error_message
            )),
            _ => Ok(()),
        }
    }
}

async fn post(endpoint: &Uri, body: Bytes) -> Result<ExportMetricsServiceResponse, String> {
    let authority = endpoint
        .authority()
        .map_or("", |authority| authority.as_str());
    let host = endpoint.host().unwrap_or_default();
    // Brackets are of the address in the URL alone.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, endpoint.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| chain(&error))?;
    let request = Request::post(endpoint.path())
        .header(HOST, authority)
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, PROTOBUF)
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| chain(&error))?;
        let status = answer.status();
        let is_protobuf = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind == PROTOBUF);
        let body = Limited::new(answer.into_body(), MOST_ANSWERED)
            .collect()
            .await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if !status.is_success() {
            return Err(format!("the collector answers {status}"));
        }
        if !is_protobuf {
            // It took it, and says no more that could be read.
            return Ok(ExportMetricsServiceResponse::default());
        }
        ExportMetricsServiceResponse::decode(body)
            .map_err(|error| format!("the collector's answer is no OTLP: {error}"))
    };
    // Who drives the connection has nothing to say that the exchange does not.
    tokio::pin!(connection, exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(chain(&error)),
            Ok(()) => exchange.await,
        },
    }
}

/// An error with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
