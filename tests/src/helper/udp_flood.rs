//! Datagrams at a steady rate to whom they do not interest: nobody waits for an answer.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use super::record::now_us;

/// What to send to whom.
#[derive(Args, Clone, Debug)]
pub struct UdpFlood {
    /// Where to send.
    #[arg(long)]
    target: SocketAddrV4,
    /// The address to send from.
    #[arg(long)]
    source: Ipv4Addr,
    /// Datagrams per second.
    #[arg(long)]
    rate: u64,
    /// For how long, in ms.
    #[arg(long)]
    for_ms: u64,
}

impl UdpFlood {
    /// Send, and print how many left.
    pub fn run(&self) -> std::io::Result<()> {
        let socket = UdpSocket::bind((self.source, 0))?;
        socket.connect(self.target)?;
        println!("READY {}", now_us());
        let (start, length) = (Instant::now(), Duration::from_millis(self.for_ms));
        let mut sent = 0;
        while start.elapsed() < length {
            let due = start.elapsed().as_micros() as u64 * self.rate / 1_000_000;
            for _ in sent..due {
                // Refused where the way is full: that datagram is lost, as on any wire.
                let _ = socket.send(&[0x5a; 64]);
            }
            sent = sent.max(due);
            sleep(Duration::from_micros(500));
        }
        println!("SENT {sent}");
        Ok(())
    }
}
