//! Messages.

use anyhow::Context as _;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{QueryMessageHeader, ViewMessageHeader};
use escrowmq_common::message::{Message, OffsetMessageId, decode_units};
use serde_json::{Value, json};

use super::connection::Cluster;
use super::output::Output;
use super::time::readable;
use crate::words::counted;

/// Bytes of a body that are shown.
const BODY_SHOWN: usize = 4096;
/// Bytes that a compressed body may have when it is unfolded.
const PLAIN_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show one message by its offset message id or, with --topic, by its unique id
    View {
        /// The id: 32 or 56 hexadecimal digits, or any unique id
        id: String,
        /// Topic of the message: looks for a unique id
        #[arg(long, short)]
        topic: Option<String>,
    },
    /// List the messages of a topic that have a key
    Find {
        /// Topic of the messages
        topic: String,
        /// One of the words of their keys, or their unique id
        key: String,
        /// Most messages to show from each broker
        #[arg(long, short, default_value_t = 32)]
        limit: u16,
    },
}

pub(super) async fn run(cluster: &Cluster, command: &Command) -> anyhow::Result<Output> {
    match command {
        Command::View { id, topic: None } => view(cluster, id).await,
        Command::View { id, topic: Some(topic) } => {
            let messages = query(cluster, topic, id, 1, true).await?;
            messages.first().map(details).with_context(|| format!("topic {topic} has no message {id}"))
        }
        Command::Find { topic, key, limit } => find(cluster, topic, key, *limit).await,
    }
}

async fn view(cluster: &Cluster, id: &str) -> anyhow::Result<Output> {
    let place: OffsetMessageId = id.parse().context("no offset message id; with --topic unique ids are found too")?;
    let header = ViewMessageHeader { offset: place.position, topic: None };
    let ask = Frame::request(request::VIEW_MESSAGE_BY_ID).with_header(&header);
    let answer = cluster.call(&place.host.to_string(), ask).await?;
    Ok(details(&Message::decode(&answer.body)?))
}

async fn query(
    cluster: &Cluster,
    topic: &str,
    key: &str,
    limit: u16,
    unique_key: bool,
) -> anyhow::Result<Vec<Message>> {
    let header = QueryMessageHeader::new(topic, key, unique_key, i32::from(limit));
    let mut messages = Vec::new();
    for master in cluster.masters_of(topic).await? {
        let ask = Frame::request(request::QUERY_MESSAGE).with_header(&header);
        let answer = cluster.call_for(&master.address, ask, &[response::QUERY_NOT_FOUND]).await?;
        for unit in decode_units(answer.body) {
            messages.push(unit?);
        }
    }
    messages.sort_by_key(|message| std::cmp::Reverse(message.store_timestamp));
    Ok(messages)
}

async fn find(cluster: &Cluster, topic: &str, key: &str, limit: u16) -> anyhow::Result<Output> {
    let messages = query(cluster, topic, key, limit, false).await?;
    let mut output = Output::new(&["STORED", "OFFSET MESSAGE ID", "UNIQUE ID", "QUEUE", "OFFSET", "TAG", "BYTES"]);
    for message in &messages {
        output.row([
            json!(readable(message.store_timestamp)),
            json!(id_of(message)),
            json!(message.property("UNIQ_KEY")),
            json!(message.queue_id),
            json!(message.queue_offset),
            json!(message.property("TAGS")),
            json!(message.body.len()),
        ]);
    }
    output.note(counted(messages.len(), "message"));
    Ok(output)
}

fn id_of(message: &Message) -> String {
    OffsetMessageId { host: message.store_host, position: message.position }.to_string()
}

/// Everything about one message.
fn details(message: &Message) -> Output {
    let mut output = Output::new(&["FIELD", "VALUE"]);
    let mut put = |field: &str, value: Value| output.row([json!(field), value]);
    put("topic", json!(message.topic));
    put("queue", json!(message.queue_id));
    put("queue offset", json!(message.queue_offset));
    put("offset message id", json!(id_of(message)));
    put("stored", json!(readable(message.store_timestamp)));
    put("born", json!(readable(message.born_timestamp)));
    put("born host", json!(message.born_host.to_string()));
    put("retries", json!(message.reconsume_times));
    if message.prepared_offset != 0 {
        put("half message", json!(message.prepared_offset));
    }
    for (name, value) in message.properties().iter() {
        put(&format!("property {name}"), json!(value));
    }
    put("body bytes", json!(message.body.len()));
    put("body", json!(shown_body(message)));
    output
}

fn shown_body(message: &Message) -> String {
    let mut plain = message.clone();
    if let Err(error) = plain.decompress(PLAIN_BYTES_MAX) {
        return format!("({error})");
    }
    let shown = &plain.body[..plain.body.len().min(BODY_SHOWN)];
    match std::str::from_utf8(shown) {
        Ok(text) => text.to_owned(),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&shown[..error.valid_up_to()]).into_owned()
        }
        Err(_) => format!("({} bytes that are no text)", plain.body.len()),
    }
}
