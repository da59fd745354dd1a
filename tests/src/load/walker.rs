//! A consumer by single frames that goes through all queues of a broker group, commits its offsets, waits for the answer, and
//! asks for them again, at one member until that does not answer, then at the next one.

use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{OffsetResponse, QueryConsumerOffsetHeader, UpdateConsumerOffsetHeader};
use escrowmq_common::remoting::CallError;

use super::{QUEUES, Shared, TOPIC, Target, WALKERS, key_of, place};
use crate::history::{What, hash};
use crate::wire::Wire;

/// Between two rounds over all queues.
const ROUND: Duration = Duration::from_millis(100);

struct Walker<'a> {
    shared: &'a Shared,
    broker: &'a str,
    wire: Wire,
    /// The next offset of each queue.
    next: [i64; QUEUES as usize],
}

/// Walks until the load has ended.
pub(super) async fn walk(shared: &Shared, target: &Target) {
    let mut members = target.members.iter().map(|(address, _)| address.clone()).cycle();
    let mut wire = || Wire::to(members.next().expect("a target has members"));
    let mut walker = Walker { shared, broker: &target.name, wire: wire(), next: [0; QUEUES as usize] };
    let walking = async {
        loop {
            for queue in 0..QUEUES {
                if walker.step(queue).await.is_err() {
                    walker.wire = wire();
                }
            }
            tokio::time::sleep(ROUND).await;
        }
    };
    tokio::select! {
        () = shared.ended.cancelled() => {}
        () = walking => {}
    }
}

impl Walker<'_> {
    async fn step(&mut self, queue: i32) -> Result<(), CallError> {
        let (history, next) = (&self.shared.history, &mut self.next[queue as usize]);
        let pulled = self.wire.try_pull(WALKERS, TOPIC, queue, *next, 32).await?;
        if pulled.code == response::SUCCESS {
            for message in pulled.messages {
                let delivered = What::Delivered {
                    group: WALKERS.to_owned(),
                    key: key_of(&message.body),
                    place: place(self.broker, queue, message.queue_offset),
                    hash: hash(&message.body),
                    attempt: 0,
                };
                history.note("walker", delivered);
            }
            *next = pulled.next;
            let header = UpdateConsumerOffsetHeader {
                consumer_group: WALKERS,
                topic: TOPIC,
                queue_id: queue,
                commit_offset: *next,
            };
            let commit = Frame::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header);
            if self.wire.call(commit).await?.code == response::SUCCESS {
                let place = place(self.broker, queue, *next);
                history.note("walker", What::OffsetCommitted { group: WALKERS.to_owned(), place });
            }
        }
        let header = QueryConsumerOffsetHeader {
            consumer_group: WALKERS,
            topic: TOPIC,
            queue_id: queue,
            set_zero_if_not_found: None,
        };
        let asked = Frame::request(request::QUERY_CONSUMER_OFFSET).with_header(&header);
        let answer = self.wire.call(asked).await?;
        if answer.code == response::SUCCESS {
            let offset: OffsetResponse = answer.header().expect("an offset is well-formed");
            let place = place(self.broker, queue, offset.offset);
            history.note("walker", What::OffsetSeen { group: WALKERS.to_owned(), place });
        }
        Ok(())
    }
}
