//! An HTTP `GET`, of whose answer only status line and headers are read.

use std::net::SocketAddr;

use sluice_api::service::HealthCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::head::HeadReader;
use super::{Asked, Outcome, from_io, tcp};

/// What the checks call themselves.
const AGENT: &str = concat!("sluice-health/", env!("CARGO_PKG_VERSION"));
/// Asks for a status.
pub(super) async fn ask(to: SocketAddr, check: &HealthCheck) -> Asked {
    match tcp::connect(to, check.close).await {
        Ok(mut stream) => {
            let outcome = judged(&mut stream, to, check).await;
            Asked { outcome, stream: Some(stream) }
        }
        Err(outcome) => outcome.into(),
    }
}

async fn judged(stream: &mut TcpStream, to: SocketAddr, check: &HealthCheck) -> Outcome {
    let status = match status(stream, &request(to, check)).await {
        Ok(status) => status,
        Err(outcome) => return outcome,
    };
    if check.expected_status.contains(&status) {
        Outcome::Pass(format!("HTTP {status}"))
    } else {
        Outcome::Fail(format!("HTTP {status}, expected {}", any_of(&check.expected_status)))
    }
}

/// What is sent. Validation lets only through what can stand in it.
fn request(to: SocketAddr, check: &HealthCheck) -> String {
    let path = &check.path;
    let host = check.host.clone().unwrap_or_else(|| to.to_string());
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
}

/// Sends the request and reads the answer's head.
async fn status(stream: &mut TcpStream, request: &str) -> Result<u16, Outcome> {
    // A server may answer without reading the request and close: its answer counts.
    let sent = stream.write_all(request.as_bytes()).await;
    let mut reader = HeadReader::default();
    let mut bytes = [0; 4_096];
    let head = loop {
        match stream.read(&mut bytes).await {
            Ok(0) => break reader.end(),
            Ok(read) => match reader.take(&bytes[..read]) {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            },
            Err(error) => return Err(from_io(&sent.err().unwrap_or(error))),
        }
    };
    head.map_err(|error| Outcome::Fail(error.to_string()))
}

/// `200`, `200 or 204`, `200, 204 or 301`.
fn any_of(codes: &[u16]) -> String {
    let texts: Vec<String> = codes.iter().map(u16::to_string).collect();
    match texts.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_codes_read_as_a_sentence() {
        assert_eq!(any_of(&[200]), "200");
        assert_eq!(any_of(&[200, 204]), "200 or 204");
        assert_eq!(any_of(&[200, 204, 301]), "200, 204 or 301");
    }
}
