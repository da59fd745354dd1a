//! `GIVE_UP_LOG`: an operator gives up messages whose bytes are damaged or missing.
//!
//! Their queues wait at them, since what is skipped in silence is lost without anybody knowing. Only a tool on the broker's own
//! machine may do this: it makes acknowledged messages disappear.

use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GiveUpLogHeader, GiveUpLogResponse, Header as _};

use super::{local, slow};
use crate::broker::Broker;
use crate::creation::done;
use crate::reply::Reply;
use crate::shard::{Admission, Command, GiveUp, GiveUpError};
use crate::terms::Position;

pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    if !local::is_local(reply.connection()) {
        return local::refuse(reply, "log positions are given up");
    }
    let header: GiveUpLogHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let (operator, reason) = (header.operator.to_owned(), header.reason.to_owned());
    if operator.trim().is_empty() || reason.trim().is_empty() {
        return reply.error(response::INVALID_PARAMETER, "operator and reason must say something");
    }
    let asked = header.position;
    slow::run(broker, "give up log", reply, move |broker, reply| {
        let Ok(position) = u64::try_from(asked) else {
            return reply.error(response::INVALID_PARAMETER, &format!("a log position is not negative: {asked}"));
        };
        let looked = broker.shard.to_give_up(Position(position)).and_then(|range| {
            let messages = broker.shard.entries_within(&range)?;
            Ok((range, messages))
        });
        let (positions, messages) = match looked {
            Ok(found) => found,
            Err(error @ GiveUpError::Read(_)) => return reply.error(response::SYSTEM_ERROR, &error.to_string()),
            Err(error) => return reply.error(response::ILLEGAL_OPERATION, &error.to_string()),
        };
        let theirs = Arc::clone(broker);
        broker.tasks.spawn("give up log", async move {
            let command = Command::GiveUp(GiveUp { positions: positions.clone(), messages, by: &operator, why: &reason });
            if let Err(error) = done(theirs.shard.propose(&command, Admission::Reserved).await) {
                return reply.refuse(error);
            }
            let (from, upto, peer) = (positions.start.get(), positions.end.get(), reply.connection().peer());
            tracing::warn!(from, upto, messages, operator, reason, %peer, "messages of the log are given up: they are lost");
            let header = GiveUpLogResponse {
                from: from.cast_signed(),
                upto: upto.cast_signed(),
                messages: messages.cast_signed(),
            };
            reply.send(response::SUCCESS, None, |fields| header.write(fields), &[]);
        });
    });
}
