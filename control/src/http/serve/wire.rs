//! A client's stream, on which who speaks no HTTP is told so in words.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client's stream. Who speaks no HTTP is answered by hyper with a status alone; here it gets a body
/// that says what is wrong.
pub(super) struct Wire<S> {
    stream: S,
    /// What is to be sent before all else.
    pending: Vec<u8>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Wire { stream, pending: Vec::new() }
    }
}

/// The answer in the place of one without a body; none for all others.
fn in_words(answer: &[u8]) -> Option<Vec<u8>> {
    let head = answer.strip_prefix(b"HTTP/1.1 4").filter(|head| head.ends_with(b"\r\n\r\n"))?;
    let head = std::str::from_utf8(head).ok()?;
    // Whatever comes from a handler has one.
    head.contains("\r\ncontent-length: 0\r\n").then_some(())?;
    let (title, detail) = match head.get(..2)? {
        "14" => ("URI too long", "the target of the request is too long"),
        "31" => ("Request head too long", "the head of the request is too long"),
        _ => (
            "The request cannot be read",
            "what was received is no HTTP/1.1 request (RFC 9112): expected as GET /api/v1/services \
             HTTP/1.1, header fields, and an empty line",
        ),
    };
    let status: u16 = format!("4{}", head.get(..2)?).parse().ok()?;
    let body = json!({
        "type": "urn:sluice:problem:bad-request",
        "title": title,
        "status": status,
        "detail": detail,
        "problems": [],
    })
    .to_string();
    let line = head.lines().next()?;
    let text = format!(
        "HTTP/1.1 4{line}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    Some(text.into_bytes())
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(context))?;
        if let Some(answer) = in_words(bytes) {
            self.pending = answer;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
