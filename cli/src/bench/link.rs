//! One connection to a broker, read and written without blocking, with as few system calls as there can be.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use escrowmq_common::body::{ConsumerData, Form, HeartbeatData, ProducerData, SubscriptionData, json};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, FrameError, HeaderEncoding};

use super::answer::{self, Answer};

/// How long a connection and its first heartbeat may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Room for input at the start; grows with the longest answer.
const INPUT_BYTES: usize = 128 * 1024;
/// Less free room than this is not worth a read.
const READ_BYTES: usize = 16 * 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    /// Requests that are to be sent; [`flush`](Link::flush) does.
    pub(super) out: Vec<u8>,
    /// How much of `out` is with the operating system.
    written: usize,
    pub(super) input: Input,
}

/// The bytes that have arrived and are not used up.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn new(room: usize) -> Input {
        Input { bytes: vec![0; room], start: 0, end: 0 }
    }

    /// The next whole frame. It stays until it is [used up](Input::consume).
    pub(super) fn peek(&self) -> Result<Option<(Answer<'_>, usize)>, FrameError> {
        answer::next(&self.bytes[self.start..self.end])
    }

    pub(super) fn consume(&mut self, used: usize) {
        self.start += used;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for more, after the bytes that are there.
    fn room(&mut self) -> &mut [u8] {
        let needed = answer::needed(&self.bytes[self.start..self.end]);
        if self.start > 0 && (self.bytes.len() - self.end < READ_BYTES || self.bytes.len() - self.start < needed) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let wanted = needed.max(self.end - self.start + 1);
        if self.bytes.len() < self.start + wanted {
            self.bytes.resize(self.start + wanted, 0);
        }
        &mut self.bytes[self.end..]
    }
}

impl Link {
    /// Connects to `host:port`.
    pub(super) fn connect(address: &str) -> anyhow::Result<Link> {
        Link::connect_with(address, INPUT_BYTES)
    }

    /// A connection that is not to receive much.
    pub(super) fn connect_idle(address: &str) -> anyhow::Result<Link> {
        Link::connect_with(address, 512)
    }

    fn connect_with(address: &str, room: usize) -> anyhow::Result<Link> {
        let found: Vec<SocketAddr> = address.to_socket_addrs().with_context(|| address.to_owned())?.collect();
        let mut last = None;
        for address in &found {
            match TcpStream::connect_timeout(address, PATIENCE) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(Link { stream, out: Vec::new(), written: 0, input: Input::new(room) });
                }
                Err(error) => last = Some(error),
            }
        }
        let reason = last.map_or_else(|| "no address".to_owned(), |error| error.to_string());
        bail!("no connection to {address}: {reason}")
    }

    /// Sends a heartbeat and does not wait. For a connection that still blocks.
    pub(super) fn start_heartbeat(&mut self, heartbeat: &Frame) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        heartbeat.try_encode(&mut bytes)?;
        self.stream.write_all(&bytes)?;
        Ok(())
    }

    /// Waits for the answer to the heartbeat. For a connection that still blocks.
    pub(super) fn finish_heartbeat(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some((answer, used)) = self.input.peek()? {
                let (code, is_response) = (answer.code, answer.is_response);
                let remark = answer.frame()?.remark.unwrap_or_default();
                self.input.consume(used);
                if !is_response {
                    continue;
                }
                if code != response::SUCCESS {
                    bail!("the broker answered a heartbeat with {code}: {remark}");
                }
                return Ok(());
            }
            let room = self.input.room();
            match self.stream.read(room).context("no answer to a heartbeat")? {
                0 => bail!("the broker closed a new connection"),
                read => self.input.end += read,
            }
        }
    }

    /// Says hello, and does not block from now on.
    pub(super) fn greet(mut self, heartbeat: &Frame) -> anyhow::Result<Link> {
        self.start_heartbeat(heartbeat)?;
        self.finish_heartbeat()?;
        self.unblocked()
    }

    /// Does not block from now on.
    pub(super) fn unblocked(self) -> anyhow::Result<Link> {
        self.stream.set_nonblocking(true)?;
        Ok(self)
    }

    /// Whether the other side has ended an idle connection.
    pub(super) fn is_closed(&self) -> bool {
        let mut byte = [0];
        let _ = self.stream.set_nonblocking(true);
        match self.stream.peek(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once; answers whether there may be more. The end of the stream is an error.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let room = self.input.room();
        let wanted = room.len();
        match self.stream.read(room) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.input.end += read;
                Ok(read == wanted)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes what can be written; the rest goes when the connection is ready again.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}

/// The hello of a client: as a producer, or with a topic as its consumer.
pub(super) fn heartbeat(client: &str, group: &str, consumes: Option<&str>, encoding: HeaderEncoding) -> Frame {
    let mut data = HeartbeatData { client_id: client.to_owned(), ..HeartbeatData::default() };
    match consumes {
        None => data.producer_data_set.push(ProducerData { group_name: group.to_owned() }),
        Some(topic) => data.consumer_data_set.push(ConsumerData {
            group_name: group.to_owned(),
            subscription_data_set: vec![SubscriptionData {
                topic: topic.to_owned(),
                sub_string: "*".to_owned(),
                ..SubscriptionData::default()
            }],
            ..ConsumerData::default()
        }),
    }
    let mut frame = Frame::request(request::HEART_BEAT).with_body(json::to_bytes(&data, Form::Strict));
    frame.encoding = encoding;
    frame.opaque = 1;
    frame
}
