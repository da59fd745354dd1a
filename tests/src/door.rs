//! A door between the clients and one broker. While it is shut nothing passes, and no connection ends: for both sides that is a
//! network that is cut between them. What waits before a shut door passes when it opens, as TCP sends it again.
//!
//! ```text
//!  client --127.0.0.2--> door --127.0.0.1--> broker, on the same port
//! ```
//!
//! The broker makes itself known with the door's address (`brokerIP1`) and listens on its own (`bindAddress`).

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use escrowmq_common::task::{Shutdown, Tasks};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where doors listen.
pub const DOORS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Room for one read, in bytes.
const READ: usize = 1 << 16;

/// See the module. Ends when it is dropped.
#[derive(Debug)]
pub struct Door {
    is_open: watch::Sender<bool>,
    waited: Arc<AtomicU64>,
    end: Shutdown,
}

impl Door {
    /// An open door before the broker that listens on this port, now or later.
    pub async fn before(port: u16) -> Door {
        let listener = TcpListener::bind((DOORS, port)).await.expect("the broker's port is free for its door");
        let (tasks, end) = (Tasks::new(), Shutdown::new());
        let door = Door { is_open: watch::Sender::new(true), waited: Arc::default(), end: end.clone() };
        let (is_open, waited) = (door.is_open.subscribe(), Arc::clone(&door.waited));
        let all = tasks.clone();
        tasks.spawn("door", async move {
            let accept = async {
                while let Ok((client, _)) = listener.accept().await {
                    let way = Way { is_open: is_open.clone(), waited: Arc::clone(&waited) };
                    let ended = end.clone();
                    all.spawn("connection through a door", async move {
                        tokio::select! {
                            () = ended.cancelled() => {}
                            _ = way.carry_both(client, port) => {}
                        }
                    });
                }
            };
            tokio::select! {
                () = end.cancelled() => {}
                () = accept => {}
            }
        });
        door
    }

    /// Nothing passes from now on.
    pub fn shut(&self) {
        self.is_open.send_replace(false);
    }

    /// Everything passes again.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// How often something came to the door while it was shut: a connection, or bytes of one.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// What the connections through a door need.
#[derive(Clone)]
struct Way {
    is_open: watch::Receiver<bool>,
    waited: Arc<AtomicU64>,
}

impl Way {
    async fn carry_both(mut self, client: TcpStream, port: u16) -> io::Result<()> {
        self.until_open().await;
        let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_broker, to_broker) = broker.into_split();
        let back = self.clone();
        // Whatever ends one direction ends the connection.
        tokio::select! {
            result = self.carry(from_client, to_broker) => result,
            result = back.carry(from_broker, to_client) => result,
        }
    }

    async fn carry(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut buffer = vec![0; READ];
        loop {
            let read = from.read(&mut buffer).await?;
            self.until_open().await;
            if read == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..read]).await?;
        }
    }

    async fn until_open(&mut self) {
        if !*self.is_open.borrow() {
            self.waited.fetch_add(1, Ordering::Relaxed);
            // A door that is gone ends its connections.
            let _ = self.is_open.wait_for(|is_open| *is_open).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::free_port;
    use crate::wait::until;

    #[tokio::test]
    async fn what_waits_before_a_shut_door_passes_when_it_opens() {
        let port = free_port();
        let door = Door::before(port).await;
        let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let mut client = TcpStream::connect((DOORS, port)).await.unwrap();
        let (mut served, _) = broker.accept().await.unwrap();
        client.write_all(b"one").await.unwrap();
        let mut bytes = [0; 3];
        served.read_exact(&mut bytes).await.unwrap();
        assert_eq!((&bytes, door.waited()), (b"one", 0));

        door.shut();
        client.write_all(b"two").await.unwrap();
        served.write_all(b"ans").await.unwrap();
        let late = TcpStream::connect((DOORS, port)).await.unwrap();
        until("what waits", async || (door.waited() == 3).then_some(())).await;
        door.open();
        served.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"two");
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ans");
        broker.accept().await.unwrap();
        drop(late);

        drop(client);
        assert_eq!(served.read(&mut bytes).await.unwrap(), 0, "an end passes too");
    }
}
