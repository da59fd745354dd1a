//! What openraft sends to other members, over [`Links`].

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};

use super::contacts::Contacts;
use super::counts::{Counts, Traffic};
use super::links::{Lane, Link, Links};
use super::timing::{APPEND_PATIENCE, APPEND_WINDOW, APPEND_WINDOW_BYTES};
use super::wire::{self, Answer};
use super::{LogId, TypeConfig};
use crate::executor::{Executor, Sleep, Timeout};
use crate::planted::{Bug, planted};

type RpcError = RPCError<TypeConfig>;
type Request = AppendEntriesRequest<TypeConfig>;
type Response = Result<StreamAppendResult<TypeConfig>, RpcError>;

/// Makes the clients of other members.
pub(super) struct Network<L> {
    links: Arc<L>,
    executor: Executor,
    contacts: Arc<Contacts>,
    counts: Arc<Counts>,
}

impl<L> Network<L> {
    pub(super) fn new(links: Arc<L>, executor: Executor, contacts: Arc<Contacts>, counts: Arc<Counts>) -> Self {
        Self { links, executor, contacts, counts }
    }
}

/// The client of one member.
pub(super) struct Client<L> {
    member: u64,
    contacts: Arc<Contacts>,
    traffic: Arc<Traffic>,
    /// For entries; for a heartbeat's client the same as `pulse`.
    append: L,
    pulse: L,
    executor: Executor,
}

impl<L: Links> RaftNetworkFactory<TypeConfig> for Network<L> {
    type Network = Client<L::Link>;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Self::Network {
        Client {
            member: target,
            contacts: Arc::clone(&self.contacts),
            traffic: self.counts.traffic_to(target),
            append: self.links.link(target, &node.addr, Lane::Append),
            pulse: self.links.link(target, &node.addr, Lane::Pulse),
            executor: self.executor.clone(),
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Self::Network {
        let pulse = self.links.link(target, &node.addr, Lane::Pulse);
        let (contacts, traffic) = (Arc::clone(&self.contacts), self.counts.traffic_to(target));
        Client { member: target, contacts, traffic, append: pulse.clone(), pulse, executor: self.executor.clone() }
    }
}

fn network(error: &io::Error) -> RpcError {
    match error.kind() {
        io::ErrorKind::NotConnected => RPCError::Unreachable(Unreachable::new(error)),
        _ => RPCError::Network(NetworkError::new(error)),
    }
}

fn unexpected() -> RpcError {
    network(&io::Error::new(io::ErrorKind::InvalidData, "an answer to another request"))
}

/// Waits for the answer to a request, but not longer than until `sleep` is over.
async fn answer(call: impl Future<Output = io::Result<Bytes>> + Send, sleep: Sleep) -> Result<Answer, RpcError> {
    let late = |_| network(&io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    let bytes = Timeout::new(Box::pin(call), sleep).await.map_err(late)?.map_err(|error| network(&error))?;
    let invalid = |error| network(&io::Error::new(io::ErrorKind::InvalidData, error));
    match Answer::decode(&bytes).map_err(invalid)? {
        // It is asked again later, not at once.
        Answer::Failed(why) => Err(RPCError::Unreachable(Unreachable::new(&io::Error::other(why)))),
        answer => Ok(answer),
    }
}

impl<L: Link> Client<L> {
    /// Sends a request over the connection for small ones.
    fn ask(
        &self,
        request: Bytes,
        option: &RPCOption,
    ) -> impl Future<Output = Result<Answer, RpcError>> + Send + use<'_, L> {
        answer(self.pulse.call(request), self.executor.sleep_until(self.executor.now() + option.soft_ttl()))
    }

    async fn ask_vote(&self, request: Bytes, option: &RPCOption) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.ask(request, option).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    /// Sends a request to append. It is on its way when this returns.
    fn send(&self, request: &Request, patience: Duration) -> Sent {
        // Before it is on its way: the lease begins here, and this process may stand still for a while at any point after it.
        let (term, at) = (request.vote.leader_id.term, self.executor.now());
        let last = request.entries.last().map(super::entry::LogEntry::id).or(request.prev_log_id);
        let encoded = wire::encode_append(request);
        let bytes = encoded.as_ref().map_or(0, Bytes::len);
        let prev = request.prev_log_id;
        let answered: BoxFuture<'static, _> = match encoded {
            Ok(bytes) => {
                let sleep = self.executor.sleep_until(self.executor.now() + patience);
                Box::pin(answer(self.append.call(bytes), sleep))
            }
            Err(error) => Box::pin(std::future::ready(Err(network(&error)))),
        };
        self.traffic.sent.add(bytes as u64, at);
        Sent { prev, last, bytes, term, at, answered }
    }
}

/// A request to append that was not answered yet.
struct Sent {
    prev: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
    /// The leader's term, and a time before it was sent.
    term: u64,
    at: Duration,
    answered: BoxFuture<'static, Result<Answer, RpcError>>,
}

impl Sent {
    fn response(&self, answer: Result<Answer, RpcError>) -> Response {
        if planted(Bug::AckBeforeMajority) {
            return Ok(Ok(self.last));
        }
        match answer? {
            // Openraft would panic: nothing lies before the first entry that could be missing.
            Answer::Append(AppendEntriesResponse::Conflict) if self.prev.is_none() => Err(unexpected()),
            Answer::Append(answer) => Ok(answer.into_stream_result(self.prev, self.last)),
            _ => Err(unexpected()),
        }
    }
}

/// Requests to append on their way, answered in their order. Holds both ends: openraft must get its requests back, by their
/// being dropped, the moment that the answers end.
struct Pipeline<'a, L, S> {
    client: &'a Client<L>,
    patience: Duration,
    /// None after the last request, and after an error.
    requests: Option<S>,
    sent: VecDeque<Sent>,
    bytes: usize,
}

impl<L: Link, S: Stream<Item = Request> + Unpin> Pipeline<'_, L, S> {
    fn may_send(&self) -> bool {
        self.sent.len() < APPEND_WINDOW && (self.sent.is_empty() || self.bytes < APPEND_WINDOW_BYTES)
    }

    fn send_all(&mut self, context: &mut Context<'_>) {
        while self.may_send() {
            let Some(requests) = &mut self.requests else { return };
            match requests.poll_next_unpin(context) {
                Poll::Ready(Some(request)) => {
                    let sent = self.client.send(&request, self.patience);
                    self.bytes += sent.bytes;
                    self.sent.push_back(sent);
                }
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => return,
            }
        }
    }
}

impl<L: Link, S: Stream<Item = Request> + Unpin> Stream for Pipeline<'_, L, S> {
    type Item = Response;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Response>> {
        loop {
            self.send_all(context);
            let Some(first) = self.sent.front_mut() else {
                return if self.requests.is_none() { Poll::Ready(None) } else { Poll::Pending };
            };
            let Poll::Ready(answer) = first.answered.as_mut().poll(context) else { return Poll::Pending };
            let Some(first) = self.sent.pop_front() else { continue };
            self.bytes -= first.bytes;
            let response = first.response(answer);
            if matches!(response, Ok(Ok(_))) {
                self.client.contacts.note(first.term, self.client.member, first.at);
                if first.last > first.prev {
                    self.client.traffic.appends.record(self.client.executor.now().saturating_sub(first.at));
                }
            } else {
                // What was sent after it cannot be stored either.
                self.requests = None;
                self.sent.clear();
            }
            return Poll::Ready(Some(response));
        }
    }
}

impl<L: Link> RaftNetworkV2<TypeConfig> for Client<L> {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: Request,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let bytes = wire::encode_append(&request).map_err(|error| network(&error))?;
        match self.ask(bytes, &option).await? {
            Answer::Append(AppendEntriesResponse::Conflict) if request.prev_log_id.is_none() => Err(unexpected()),
            Answer::Append(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Response>, RpcError>>
    where
        S: Stream<Item = Request> + Send + Unpin + 'static,
    {
        let (sent, patience) = (VecDeque::new(), APPEND_PATIENCE);
        let pipeline = Pipeline { client: &*self, patience, requests: Some(requests), sent, bytes: 0 };
        let responses: BoxStream<'s, Response> = Box::pin(pipeline);
        Box::pin(std::future::ready(Ok(responses)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(wire::encode_vote(&request, false), &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(wire::encode_vote(&request, true), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // Asked again after a pause: any other error ends what is sent to this member, or this leader.
        let later = |why: String| StreamingError::Unreachable(Unreachable::new(&io::Error::other(why)));
        let Some(upto) = snapshot.meta.last_log_id else { return Err(later("there is no state yet".to_owned())) };
        let own = snapshot.meta.last_membership.membership().get_node(&vote.leader_id.voted_for);
        let address = own.map_or("", |own| own.addr.as_str());
        // The member fetches the state by itself, and says yes once it has it.
        match self.ask(wire::encode_state(&vote, &upto, address), &option).await {
            Ok(Answer::State(vote)) => Ok(SnapshotResponse::new(vote)),
            Ok(_) => Err(later("an answer to another request".to_owned())),
            Err(error) => Err(later(error.to_string())),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        match self.ask(wire::encode_transfer(&request), &option).await? {
            Answer::Transfer(Ok(())) => Ok(Ok(())),
            Answer::Transfer(Err(why)) => Err(network(&io::Error::other(why))),
            _ => Err(unexpected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use escrowmq_common::clock::Clock;
    use futures_util::stream;

    use super::*;
    use crate::latch::FailureLatch;
    use crate::raft::Vote;

    /// The process stands still right after its request has left, and finds the answer when it goes on.
    #[derive(Clone)]
    struct StandsStill(Clock);

    impl Links for StandsStill {
        type Link = Self;

        fn link(&self, _to: u64, _address: &str, _lane: Lane) -> Self {
            self.clone()
        }
    }

    impl Link for StandsStill {
        fn call(&self, _request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static {
            self.0.advance(Duration::from_secs(10));
            std::future::ready(Ok(Answer::Append(AppendEntriesResponse::Success).encode()))
        }
    }

    #[tokio::test]
    async fn a_leader_that_stood_still_after_sending_counts_from_before() {
        let clock = Clock::manual(0);
        let executor = Executor::new(clock.clone(), FailureLatch::default(), None);
        let contacts = Arc::new(Contacts::default());
        let links = Arc::new(StandsStill(clock.clone()));
        let mut network = Network::new(links, executor, Arc::clone(&contacts), Arc::default());
        let mut client = network.new_client(2, &BasicNode::new("n2")).await;
        let request =
            Request { vote: Vote::new_committed(3, 1), prev_log_id: None, entries: Vec::new(), leader_commit: None };
        let before = clock.monotonic();
        let option = RPCOption::new(Duration::from_secs(1));
        let mut answers = client.stream_append(stream::iter([request]), option).await.expect("answers");
        let answer = answers.next().await;
        assert!(matches!(answer, Some(Ok(Ok(_)))), "{answer:?}");
        // The member may have promised its vote to another one since.
        let voters = [BTreeSet::from([1, 2])];
        assert_eq!(contacts.majority_since(3, 1, &voters, clock.monotonic()), Some(before));
    }
}
