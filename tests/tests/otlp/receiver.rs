//! A collector in the test's own process, listening on the node: over gRPC by tonic, over
//! HTTP by hand, so that what is sent is read by something that did not write it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, NumberDataPoint};
use prost::Message as _;
use tests::lab::{Node, Side};
use tokio_stream::wrappers::TcpListenerStream;

/// The labels of a series.
pub(crate) type Labels = BTreeMap<String, String>;

/// A value that was pushed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) value: i64,
    /// Of a counter.
    pub(crate) start: u64,
    pub(crate) time: u64,
}

/// A series: the name of its metric, and its labels.
pub(crate) type Series = (String, Labels);

/// What was pushed so far.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) requests: u64,
    pub(crate) resource: Labels,
    /// Units of the metrics.
    pub(crate) units: BTreeMap<String, String>,
    /// The metrics that count up.
    pub(crate) counters: BTreeMap<String, bool>,
    /// All points of each series, in the order in which they came.
    pub(crate) points: BTreeMap<Series, Vec<Point>>,
}

impl Received {
    fn take(&mut self, request: ExportMetricsServiceRequest) {
        self.requests += 1;
        for of_resource in request.resource_metrics {
            self.resource = labels(&of_resource.resource.unwrap().attributes);
            for metric in of_resource
                .scope_metrics
                .into_iter()
                .flat_map(|scope| scope.metrics)
            {
                assert!(
                    !metric.description.is_empty(),
                    "{} is not described",
                    metric.name
                );
                self.units.insert(metric.name.clone(), metric.unit);
                let (points, counts) = match metric.data.unwrap() {
                    Data::Gauge(gauge) => (gauge.data_points, false),
                    Data::Sum(sum) => {
                        let cumulative = AggregationTemporality::Cumulative as i32;
                        assert_eq!(sum.aggregation_temporality, cumulative);
                        assert!(sum.is_monotonic);
                        (sum.data_points, true)
                    }
                    other => panic!("{}: {other:?}", metric.name),
                };
                self.counters.insert(metric.name.clone(), counts);
                for point in points {
                    self.point(&metric.name, &point);
                }
            }
        }
    }

    fn point(&mut self, name: &str, point: &NumberDataPoint) {
        let Some(Number::AsInt(value)) = point.value else {
            panic!("{name} is no integer: {point:?}");
        };
        let series = (name.to_owned(), labels(&point.attributes));
        self.points.entry(series).or_default().push(Point {
            value,
            start: point.start_time_unix_nano,
            time: point.time_unix_nano,
        });
    }

    /// What was pushed last of a metric.
    pub(crate) fn last(&self, name: &str) -> BTreeMap<Labels, i64> {
        let of_metric = self.points.iter().filter(|((of, _), _)| of == name);
        of_metric
            .map(|((_, labels), points)| (labels.clone(), points.last().unwrap().value))
            .collect()
    }
}

fn labels(attributes: &[KeyValue]) -> Labels {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.clone().and_then(|value| value.value);
        let Some(Value::StringValue(value)) = value else {
            panic!("{attribute:?} is no text");
        };
        (attribute.key.clone(), value)
    };
    attributes.iter().map(text).collect()
}

/// A collector, until it is dropped.
pub(crate) struct Receiver {
    received: Arc<Mutex<Received>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

enum Stop {
    Http(Arc<AtomicBool>),
    Grpc(Option<tokio::sync::oneshot::Sender<()>>),
}

fn listen(node: &Node, port: u16) -> TcpListener {
    let listener = node
        .lab()
        .in_ns(Side::Node, || TcpListener::bind(("127.0.0.1", port)));
    let listener = listener.unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

impl Receiver {
    /// One that is spoken to in HTTP; it answers with this status.
    pub(crate) fn http(node: &Node, port: u16, status: &'static str) -> Self {
        let listener = listen(node, port);
        let received = Arc::<Mutex<Received>>::default();
        let stopped = Arc::<AtomicBool>::default();
        let (theirs, stop) = (Arc::clone(&received), Arc::clone(&stopped));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        if let Some(request) = post(stream, status)
                            && status.starts_with('2')
                        {
                            theirs.lock().unwrap().take(request);
                        }
                    }
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self {
            received,
            stop: Stop::Http(stopped),
            thread: Some(thread),
        }
    }

    /// One that is spoken to in gRPC.
    pub(crate) fn grpc(node: &Node, port: u16) -> Self {
        let listener = listen(node, port);
        let received = Arc::<Mutex<Received>>::default();
        let service = MetricsServiceServer::new(Service(Arc::clone(&received)));
        let (sender, stopped) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(listener.try_into().unwrap());
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming_shutdown(incoming, async {
                        let _ = stopped.await;
                    })
                    .await
                    .unwrap();
            });
        });
        Self {
            received,
            stop: Stop::Grpc(Some(sender)),
            thread: Some(thread),
        }
    }

    /// What it has got.
    pub(crate) fn received<T>(&self, look: impl FnOnce(&Received) -> T) -> T {
        look(&self.received.lock().unwrap())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        match &mut self.stop {
            Stop::Http(stop) => stop.store(true, Ordering::Relaxed),
            Stop::Grpc(stop) => drop(stop.take()),
        }
        let ended = self.thread.take().unwrap().join();
        // What it found wrong is what the test fails for.
        if let Err(panic) = ended
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Reads one request, and answers.
fn post(stream: TcpStream, status: &str) -> Option<ExportMetricsServiceRequest> {
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // Who goes away in between did not push.
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_ascii_lowercase());
    }
    assert_eq!(lines[0], "post /v1/metrics http/1.1");
    let header = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
    assert_eq!(header("content-type: "), Some("application/x-protobuf"));
    assert!(header("host: ").is_some() && header("user-agent: nodewall/").is_some());
    let length = header("content-length: ").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
    );
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(ExportMetricsServiceRequest::decode(&body[..]).unwrap())
}

struct Service(Arc<Mutex<Received>>);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().take(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}
