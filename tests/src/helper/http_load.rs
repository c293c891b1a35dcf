//! HTTP clients: each request on a new connection from a new source port, each answer checked byte
//! for byte.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::content;
use super::pace::Pace;
use super::record::{Record, now_us};

/// What to ask of whom.
#[derive(Args, Clone, Debug)]
pub struct HttpLoad {
    /// Where to connect.
    #[arg(long)]
    target: SocketAddrV4,
    /// The address to connect from.
    #[arg(long)]
    source: Ipv4Addr,
    /// Ask for the large file, and say when its first bytes come.
    #[arg(long)]
    big: bool,
    /// A request that takes longer has failed, in ms.
    #[arg(long, default_value_t = 2_000)]
    timeout_ms: u64,
    #[command(flatten)]
    pace: Pace,
}

impl HttpLoad {
    /// Make the requests and print what became of them.
    pub async fn run(self) -> std::io::Result<()> {
        let HttpLoad { target, source, big, timeout_ms, pace } = self;
        pace.run(move |port, records| async move {
            let mut record = Record {
                start_us: now_us(),
                end_us: 0,
                source_port: port,
                backend: None,
                error: None,
                done: true,
            };
            let source = SocketAddr::from((source, port));
            let request = get(target, source, big, &mut record, &records);
            let result = timeout(Duration::from_millis(timeout_ms), request).await;
            match result.unwrap_or_else(|_| Err(format!("no answer within {timeout_ms} ms"))) {
                Ok(backend) => record.backend = Some(backend),
                Err(error) => record.error = Some(error),
            }
            record.end_us = now_us();
            let _ = records.send(record);
        })
        .await
    }
}

/// One request on its own connection; the backend that answered it.
async fn get(
    target: SocketAddrV4,
    source: SocketAddr,
    big: bool,
    record: &mut Record,
    records: &mpsc::UnboundedSender<Record>,
) -> Result<String, String> {
    let stream = connect(target, source).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("http: {error}"))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(if big { "/big" } else { "/" })
        .header("host", target.to_string())
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("http: {error}"))?;
    let result = async {
        let response =
            sender.send_request(request).await.map_err(|error| format!("request: {error}"))?;
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status()));
        }
        if big {
            let name = response.headers().get("x-backend").and_then(|name| name.to_str().ok());
            record.backend = name.map(str::to_owned);
            let begun = Record { done: false, end_us: now_us(), ..record.clone() };
            let _ = records.send(begun);
        }
        let body =
            response.into_body().collect().await.map_err(|error| format!("body: {error}"))?;
        content::backend_of(&body.to_bytes(), big)
    }
    .await;
    connection.abort();
    result
}

async fn connect(target: SocketAddrV4, source: SocketAddr) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("connect: {error}");
    let socket = TcpSocket::new_v4().map_err(failed)?;
    // A port whose last connection is in TIME-WAIT may be taken again.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(source).map_err(|error| format!("bind {source}: {error}"))?;
    socket.connect(SocketAddr::V4(target)).await.map_err(failed)
}
