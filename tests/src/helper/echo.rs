//! A server: answers each UDP datagram with its own name and what it got; accepts and closes TCP
//! connections on the same port, for the health checks.

use std::net::SocketAddrV4;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Who answers, and where.
#[derive(Args, Clone, Debug)]
pub struct EchoServer {
    /// The name to answer with.
    #[arg(long)]
    name: String,
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddrV4,
}

impl EchoServer {
    /// Serve for ever. Prints READY when it listens.
    pub async fn run(self) -> std::io::Result<()> {
        let udp = UdpSocket::bind(self.listen).await?;
        let tcp = TcpListener::bind(self.listen).await?;
        println!("READY");
        tokio::try_join!(answer_datagrams(&udp, &self.name), answer_connections(&tcp, &self.name))?;
        Ok(())
    }
}

async fn answer_datagrams(socket: &UdpSocket, name: &str) -> std::io::Result<()> {
    let mut buffer = [0; 65_536];
    let mut answer = Vec::new();
    loop {
        // An ICMP error of an earlier answer is reported here: it concerns one client only.
        let Ok((len, client)) = socket.recv_from(&mut buffer).await else { continue };
        answer.clear();
        answer.extend_from_slice(name.as_bytes());
        answer.push(b' ');
        answer.extend_from_slice(&buffer[..len]);
        let _ = socket.send_to(&answer, client).await;
    }
}

async fn answer_connections(listener: &TcpListener, name: &str) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let name = name.to_owned();
        tokio::spawn(async move {
            // A client that goes away ends its own conversation only.
            let _ = converse(stream, &name).await;
        });
    }
}

/// Send the name, then everything back until the client closes.
async fn converse(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len]).await?,
        }
    }
}
