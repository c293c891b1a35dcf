//! UDP clients: each request a datagram from a new source port, sent once and never again.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use clap::Args;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::pace::Pace;
use super::record::{Record, now_us};

/// What to send to whom.
#[derive(Args, Clone, Debug)]
pub struct UdpLoad {
    /// Where to send.
    #[arg(long)]
    target: SocketAddrV4,
    /// The address to send from.
    #[arg(long)]
    source: Ipv4Addr,
    /// A request that takes longer has failed, in ms.
    #[arg(long, default_value_t = 2_000)]
    timeout_ms: u64,
    #[command(flatten)]
    pace: Pace,
}

impl UdpLoad {
    /// Make the requests and print what became of them.
    pub async fn run(self) -> std::io::Result<()> {
        let UdpLoad { target, source, timeout_ms, pace } = self;
        pace.run(move |port, records| async move {
            let start_us = now_us();
            let exchange = exchange(target, SocketAddrV4::new(source, port));
            let result = timeout(Duration::from_millis(timeout_ms), exchange)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {timeout_ms} ms")));
            let (backend, error) = match result {
                Ok(backend) => (Some(backend), None),
                Err(error) => (None, Some(error)),
            };
            let end_us = now_us();
            let record = Record { start_us, end_us, source_port: port, backend, error, done: true };
            let _ = records.send(record);
        })
        .await
    }
}

/// One datagram there and one back; the backend that answered.
async fn exchange(target: SocketAddrV4, source: SocketAddrV4) -> Result<String, String> {
    let socket =
        UdpSocket::bind(source).await.map_err(|error| format!("bind {source}: {error}"))?;
    socket.connect(target).await.map_err(|error| format!("connect: {error}"))?;
    let question = format!("{source} at {}", now_us());
    socket.send(question.as_bytes()).await.map_err(|error| format!("send: {error}"))?;
    let mut answer = [0; 2_048];
    let len = socket.recv(&mut answer).await.map_err(|error| format!("receive: {error}"))?;
    std::str::from_utf8(&answer[..len])
        .ok()
        .and_then(|answer| answer.strip_suffix(&format!(" {question}")))
        .map(str::to_owned)
        .ok_or_else(|| "the answer is not ours".to_owned())
}
