//! Sends: plain messages, half messages, batches, retries, replies.
//!
//! ```text
//!  header --> target (topic, queue; creates what is missing) --> when --> unit --> Publish or Prepare --> answer
//! ```
//!
//! Promises: a message passes the same checks, and keeps its own properties, whichever way it comes (alone, in a batch, as
//! a reply); a property that cannot be read or obeyed is refused, never taken for absent; a refused send creates nothing; the
//! checks come in the order that clients know; a message is answered with success only after its command was applied; every
//! answer, errors included, carries region and trace flag. A plain send copies its body once, from the frame into the batch, and
//! allocates one box, for its answer.
//!
//! Left to others: the life of a half (`shard::apply`, `transaction`), consumers (`pull`).

mod answer;
mod batch;
mod check;
mod known;
mod push;
mod single;
mod stamp;
mod target;
mod when;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{HeaderError, SendMessageHeader};
use escrowmq_common::message::{UnitBuilder, UnitError};

pub(super) use target::{next_of, not_writable};

use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::creation::{CreationError, Maker};
use crate::reply::{Refused, Reply};
use crate::shard::{SubmitError, WriteUnit};
use crate::terms::TopicSettings;

/// Stores a message, or several.
pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    attempt(broker, request, reply, store, 0);
}

/// Passes the reply of a request-reply exchange on.
pub(super) fn handle_reply(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    attempt(broker, request, reply, push::pass_on, 0);
}

/// One attempt to handle a request. The flag says whether something was created for it before; it stops where something is missing.
type Attempt = fn(&Arc<Broker>, &Frame, &Reply, bool) -> Result<(), Stop>;

fn illegal(remark: impl Into<Cow<'static, str>>) -> Refused {
    Refused::new(response::MESSAGE_ILLEGAL, remark)
}

/// Something that is created first.
#[derive(Debug)]
enum Missing {
    Topic(TopicSettings),
    Group(String),
}

/// Why handling a request stops before its command is submitted.
#[derive(Debug)]
enum Stop {
    Refused(Refused),
    NotDone(SubmitError),
    Missing(Missing),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<HeaderError> for Stop {
    fn from(error: HeaderError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<UnitError> for Refused {
    fn from(error: UnitError) -> Self {
        match error {
            UnitError::TooLong { part: "properties", bytes, limit } => {
                illegal(format!("message properties length too long: {bytes} bytes, at most {limit}"))
            }
            other => illegal(other.to_string()),
        }
    }
}

/// A message needs at most a topic, a group, its retry topic and its dead-letter topic.
const CREATIONS_MAX: u32 = 4;

/// Makes an attempt; where something is missing, it is created, and the next attempt follows.
fn attempt(broker: &Arc<Broker>, request: Frame, reply: Reply, make: Attempt, created: u32) {
    let done = make(broker, &request, &reply, created > 0);
    let missing = match done {
        Ok(()) => return,
        Err(Stop::Refused(refused)) => return answer::refuse(broker, reply, refused),
        Err(Stop::NotDone(error)) => {
            return answer::refuse(broker, reply, error.into());
        }
        Err(Stop::Missing(missing)) => missing,
    };
    if created == CREATIONS_MAX {
        let refused = Refused::new(response::SYSTEM_ERROR, "its topic or group is deleted again and again");
        return answer::refuse(broker, reply, refused);
    }
    let maker = Maker::Connection(reply.connection().id());
    let again = Arc::clone(broker);
    let then = move |result: Result<(), CreationError>| match result {
        Ok(()) => attempt(&again, request, reply, make, created + 1),
        Err(error) => answer::refuse(&again, reply, error.into()),
    };
    match missing {
        Missing::Topic(settings) => broker.creations.topic(maker, &settings, move |topic| then(topic.map(drop))),
        Missing::Group(group) => broker.creations.group(maker, &group, move |group| then(group.map(drop))),
    }
}

fn store(broker: &Arc<Broker>, request: &Frame, reply: &Reply, is_first: bool) -> Result<(), Stop> {
    let mut header: SendMessageHeader<'_> = request.header()?;
    header.batch |= request.code == request::SEND_BATCH_MESSAGE;
    let config = broker.config();
    if header.batch {
        batch::refuse_topic(header.topic)?;
    }
    let target = resolve(broker, reply, &config, request, &header, || {
        if header.batch {
            Ok(batch::Batch::read(&config, &header, &request.body).map(drop)?)
        } else {
            single::precheck(broker, &config, request, &header)
        }
    })?;
    let header = &header;
    let send = Send { broker, config: &config, request, header, target: &target, reply, is_first };
    if header.batch { batch::publish(&send) } else { single::store(&send) }
}

/// Finds the target of a message. `precheck` are the checks for which no target is needed: they come first where the target must
/// be created, since nothing is created for a message that is refused then.
fn resolve(
    broker: &Arc<Broker>,
    reply: &Reply,
    config: &BrokerConfig,
    request: &Frame,
    header: &SendMessageHeader<'_>,
    precheck: impl FnOnce() -> Result<(), Stop>,
) -> Result<target::Target, Stop> {
    let target = target::resolve(broker, config, header, request.version, reply.connection().peer());
    if let Err(Stop::Missing(_)) = target {
        precheck()?;
    }
    target
}

/// A request whose target is known.
struct Send<'a> {
    broker: &'a Arc<Broker>,
    config: &'a BrokerConfig,
    request: &'a Frame,
    header: &'a SendMessageHeader<'a>,
    target: &'a target::Target,
    reply: &'a Reply,
    /// The topic or group was created for it.
    is_first: bool,
}

/// A unit on its way into a batch. Its size was checked, so writing it cannot fail.
struct NewUnit<'a>(UnitBuilder<'a>);

impl WriteUnit for NewUnit<'_> {
    fn write_unit(&self, out: &mut BytesMut) {
        self.0.write(out).expect("the size was checked before");
    }
}
