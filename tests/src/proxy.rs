//! A network that loses, repeats, delays and reorders: between a client and a broker, for the frames of some requests alone.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use escrowmq_common::frame::Frame;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A frame that is held back goes on after at most this many others.
const BEHIND_MAX: u64 = 16;
/// Or when nothing else has come for this long.
const SILENCE: Duration = Duration::from_millis(20);

/// Counts of frames by their fate.
#[derive(Debug, Default)]
pub struct Tally {
    /// They never arrived.
    pub dropped: AtomicU64,
    /// They arrived twice.
    pub copied: AtomicU64,
    /// They arrived after later ones.
    pub held: AtomicU64,
}

/// Listens, and hands on to a broker what comes; runs until the test ends.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    tally: Arc<Tally>,
}

impl Proxy {
    /// In front of the process at `broker`. Of the requests with these codes, and of the answers to them, a fifth each is
    /// dropped, copied or held back, by `seed`.
    pub async fn before(broker: String, codes: &'static [i32], seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let tally = Arc::new(Tally::default());
        let counting = Arc::clone(&tally);
        let tasks = Tasks::new();
        let all = tasks.clone();
        tasks.spawn("proxy", async move {
            let mut seed = seed;
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&broker).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let asked = Arc::new(Mutex::new(HashSet::new()));
                for (from, to) in [(from_client, to_server), (from_server, to_client)] {
                    seed = seed.wrapping_add(1);
                    let (asked, tally) = (Arc::clone(&asked), Arc::clone(&counting));
                    let mut way = Way { codes, asked, tally, random: seed, held: Vec::new() };
                    all.spawn("proxied connection", async move {
                        // One end has closed: so does the other.
                        let _ = way.carry(from, to).await;
                    });
                }
            }
        });
        Proxy { address, tally }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// The fates of the frames so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// One direction of a connection.
struct Way {
    codes: &'static [i32],
    /// The opaques of requests that were meddled with: so are their answers, which come the other way.
    asked: Arc<Mutex<HashSet<i32>>>,
    tally: Arc<Tally>,
    random: u64,
    /// Frames that wait, and the number of others to let pass first.
    held: Vec<(u64, Bytes)>,
}

impl Way {
    async fn carry(&mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(frame) = whole(&mut buffer) {
                self.hand_on(frame, &mut to).await?;
            }
            match tokio::time::timeout(SILENCE, from.read_buf(&mut buffer)).await {
                Ok(read) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                Err(_) => {
                    for (_, frame) in std::mem::take(&mut self.held) {
                        to.write_all(&frame).await?;
                    }
                }
            }
        }
    }

    async fn hand_on(&mut self, frame: Bytes, to: &mut OwnedWriteHalf) -> io::Result<()> {
        match if self.is_meddled_with(&frame) { self.below(5) } else { 4 } {
            0 => drop(self.tally.dropped.fetch_add(1, Ordering::Relaxed)),
            1 => {
                self.tally.copied.fetch_add(1, Ordering::Relaxed);
                to.write_all(&frame).await?;
                to.write_all(&frame).await?;
            }
            2 => {
                self.tally.held.fetch_add(1, Ordering::Relaxed);
                // This one is counted at once, below.
                let behind = 2 + self.below(BEHIND_MAX);
                self.held.push((behind, frame));
            }
            _ => to.write_all(&frame).await?,
        }
        for (behind, _) in &mut self.held {
            *behind -= 1;
        }
        for (_, frame) in self.held.extract_if(.., |(behind, _)| *behind == 0) {
            to.write_all(&frame).await?;
        }
        Ok(())
    }

    fn is_meddled_with(&self, frame: &Bytes) -> bool {
        let frame = Frame::decode(frame.slice(4..)).expect("both ends write whole frames");
        if frame.is_response() {
            return self.asked.lock().remove(&frame.opaque);
        }
        let is_one = self.codes.contains(&frame.code);
        if is_one && !frame.is_oneway() {
            self.asked.lock().insert(frame.opaque);
        }
        is_one
    }

    /// A number below `bound` (splitmix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Takes a whole frame, its length in front, from the buffer, or the line in front of a client's frames that names the client.
pub(crate) fn whole(buffer: &mut BytesMut) -> Option<Bytes> {
    let first = *buffer.first_chunk::<4>()?;
    // As a length it would be beyond that of every frame.
    if first == *b"PROX" {
        let length = buffer.windows(2).position(|end| end == b"\r\n")? + 2;
        return Some(buffer.split_to(length).freeze());
    }
    let length = u32::from_be_bytes(first) as usize + 4;
    (buffer.len() >= length).then(|| buffer.split_to(length).freeze())
}
