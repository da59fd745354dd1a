//! The application of the demo: local transactions on orders, and the checks on them.

use std::sync::Arc;

use escrowmq_client::{Decision, Half, Message, MessageExt, TransactionListener};

use super::ledger::{Ledger, word};
use super::observer::Observer;
use super::stage::{Event, Stage};
use super::timeline::{Fact, Timeline};
use crate::words::counted;

/// Decided at once: commit.
pub(super) const COMMITTED: &str = "TAGA";
/// Decided at once: rollback.
pub(super) const ROLLED_BACK: &str = "TAGB";
/// The local transaction commits, but the producer answers "unknown": the check finds out.
pub(super) const UNKNOWN: &str = "TAGC";
/// Sent by a producer that dies before it decides.
pub(super) const ORPHANED: &str = "TAGD";
/// The local transaction still runs when the broker dies.
pub(super) const RUNNING: &str = "TAGE";

/// Runs local transactions by tag, looks at what is visible meanwhile, and answers checks from the ledger.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) timeline: Timeline,
    pub(super) stage: Stage,
    pub(super) ledger: Ledger,
    pub(super) observer: Arc<Observer>,
}

impl Orders {
    /// Proves that a half message cannot be seen now, and says so.
    pub(super) async fn prove_hidden(&self, name: &str, half: &Half) -> anyhow::Result<()> {
        let visible = self.observer.look().await?;
        anyhow::ensure!(!visible.has(&half.transaction_id), "{name} is visible before its decision");
        let end = self.observer.end_of(&half.queue).await?;
        self.timeline.tell(
            Fact::Hidden,
            &format!(
                "{name}: queue {} ends at {end}; pulling all queues brings {}, not this one",
                half.queue.id(),
                messages(visible.count())
            ),
        );
        Ok(())
    }

    async fn run(&self, message: &Message, half: &Half) -> anyhow::Result<Decision> {
        let (name, tag) = (text(message.body()), message.get("TAGS").unwrap_or_default());
        self.timeline.tell(
            Fact::Half,
            &format!("{name} {tag} for queue {}, transaction {}", half.queue.id(), short(&half.transaction_id)),
        );
        self.prove_hidden(&name, half).await?;
        let (outcome, answer) = match tag {
            COMMITTED => (Decision::Commit, Decision::Commit),
            ROLLED_BACK => (Decision::Rollback, Decision::Rollback),
            UNKNOWN => (Decision::Commit, Decision::Unknown),
            _ => (Decision::Unknown, Decision::Unknown),
        };
        if outcome != Decision::Unknown {
            self.ledger.write(&half.transaction_id, outcome)?;
        }
        Ok(answer)
    }
}

impl TransactionListener for Orders {
    async fn execute_local_transaction(&self, message: &Message, half: &Half) -> Decision {
        match self.run(message, half).await {
            Ok(decision) => decision,
            Err(error) => {
                self.stage.push(Event::Broken(format!("{error:#}")));
                Decision::Unknown
            }
        }
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        let (name, id) = (text(message.body()), message.transaction_id().unwrap_or_default().to_owned());
        let answer = self.ledger.look_up(&id);
        let tag = message.tag().unwrap_or_default();
        self.timeline.tell(
            Fact::Checked,
            &format!("{name} {tag}: the broker asks process {}, the ledger says {}", std::process::id(), word(answer)),
        );
        if tag == COMMITTED || tag == ROLLED_BACK {
            self.stage.push(Event::Broken(format!("{name} {tag} was decided, and yet the broker asks")));
        }
        self.stage.push(Event::Checked { transaction_id: id });
        answer
    }
}

/// The event that a consumer makes of a message.
pub(super) fn arrival(timeline: Timeline, message: &MessageExt) -> Event {
    let (body, tag) = (text(message.body()), message.tag().unwrap_or_default());
    let queue = message.queue();
    timeline
        .tell(Fact::Delivered, &format!("{body} {tag} from queue {}, offset {}", queue.id(), message.queue_offset()));
    if tag == ROLLED_BACK {
        Event::Broken(format!("{body} was rolled back and arrived"))
    } else {
        Event::Delivered { body }
    }
}

/// A body in words.
fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// The part of a transaction id that tells it from others.
pub(super) fn short(transaction_id: &str) -> &str {
    transaction_id.get(transaction_id.len().saturating_sub(8)..).unwrap_or(transaction_id)
}

/// A number of messages in words.
pub(super) fn messages(count: usize) -> String {
    match count {
        0 => "nothing".to_owned(),
        _ => counted(count, "message"),
    }
}
