//! Runs against a server that only pretends: what is counted, and from when latency counts.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, FrameDecoder, HeaderEncoding};
use escrowmq_common::header::{EndTransactionHeader, SendMessageHeader};
use escrowmq_common::task::Tasks;

use super::engine::{Engine, Peer, now};
use super::link::{Link, heartbeat};
use super::pace::Pace;
use super::sender::{Letters, Sender, Work};
use super::tally::{Gauge, Tally, Timing};

/// The requests that the server saw.
#[derive(Default)]
struct Seen {
    sends: Vec<(i32, String)>,
    commits: Vec<i64>,
}

/// How the server behaves.
#[derive(Clone, Copy, Default)]
struct Manner {
    /// It answers nothing for so long from this message on.
    stall: Option<(usize, Duration)>,
    /// It refuses each message of such a number, and those after it by the same distance.
    refuse_each: Option<usize>,
    /// It ends the connection instead of answering this message.
    hang_up_at: Option<usize>,
}

/// Serves one connection until it ends.
fn serve(mut stream: TcpStream, manner: Manner) -> Seen {
    let mut seen = Seen::default();
    let (mut input, mut chunk) = (BytesMut::new(), vec![0; 64 * 1024]);
    loop {
        let mut out = BytesMut::new();
        while let Some(frame) = FrameDecoder::default().next(&mut input).unwrap() {
            let mut answer = Frame::response(&frame, response::SUCCESS);
            match frame.code {
                request::SEND_MESSAGE_V2 => {
                    let header: SendMessageHeader<'_> = frame.header().unwrap();
                    seen.sends.push((header.queue_id, header.properties.unwrap().to_owned()));
                    let nth = seen.sends.len();
                    if manner.hang_up_at == Some(nth) {
                        return seen;
                    }
                    if let Some((at, pause)) = manner.stall
                        && at == nth
                    {
                        let (_keep, never) = channel::<()>();
                        assert_eq!(never.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
                    }
                    if manner.refuse_each.is_some_and(|each| nth.is_multiple_of(each)) {
                        answer.code = response::SYSTEM_BUSY;
                        answer.remark = Some("busy".to_owned());
                    } else {
                        answer = answer
                            .with_field("msgId", format!("7F00000100002A9F{nth:016X}"))
                            .with_field("queueId", header.queue_id)
                            .with_field("queueOffset", nth);
                    }
                }
                request::END_TRANSACTION => {
                    let header: EndTransactionHeader<'_> = frame.header().unwrap();
                    assert_eq!(header.commit_log_offset, header.tran_state_table_offset);
                    seen.commits.push(header.commit_log_offset);
                }
                code => assert_eq!(code, request::HEART_BEAT),
            }
            if !frame.is_oneway() {
                answer.encode(&mut out);
            }
        }
        if stream.write_all(&out).is_err() {
            return seen;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return seen,
            Ok(read) => input.extend_from_slice(&chunk[..read]),
        }
    }
}

struct Plan {
    work: Work,
    encoding: HeaderEncoding,
    in_flight: usize,
    rate: Option<f64>,
    millis: u64,
    count: Option<u64>,
}

const CLOSED: Plan =
    Plan { work: Work::Send, encoding: HeaderEncoding::Json, in_flight: 4, rate: None, millis: 500, count: None };

/// Runs one connection against a server of that manner.
fn against(manner: Manner, plan: &Plan) -> (Tally, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = channel();
    let tasks = Tasks::new();
    tasks
        .spawn_thread("server", move || {
            let (stream, _) = listener.accept().unwrap();
            tell.send(serve(stream, manner)).unwrap();
        })
        .unwrap();
    let link = Link::connect(&address).unwrap().greet(&heartbeat("C", "G", None, plan.encoding)).unwrap();
    let letters = Arc::new(Letters::new(plan.work, ("G", "T"), &[0, 1, 2], 100, plan.encoding, 77));
    let start = now();
    let to = if plan.count.is_some() { u64::MAX } else { start + plan.millis * 1_000_000 };
    let timing = Timing { start, from: start, to };
    let pace = plan.rate.map(|rate| Pace::new(rate, start, 0, 1));
    let peer = Peer::Sender(Sender::new(letters, 0, plan.in_flight, pace));
    let engine = Engine::new(vec![(link, peer)], timing, plan.count, Arc::new(Gauge::default())).unwrap();
    let tally = engine.run().unwrap();
    (tally, told.recv_timeout(Duration::from_secs(20)).unwrap())
}

#[test]
fn a_stall_makes_every_message_late_that_was_to_be_sent_meanwhile() {
    let stall = Duration::from_millis(400);
    let manner = Manner { stall: Some((100, stall)), ..Manner::default() };
    // One message per millisecond, of which forty percent fall into the stall.
    let (tally, seen) = against(manner, &Plan { rate: Some(1000.0), millis: 1000, ..CLOSED });
    assert_eq!((tally.sent, tally.acknowledged, seen.sends.len()), (1000, 1000, 1000));
    assert!(tally.latency.max() >= stall, "{:?}", tally.latency.max());
    assert!(tally.latency.per_mille(900) >= stall / 2, "{:?}", tally.latency.per_mille(900));
    assert!(tally.latency.per_mille(700) >= stall / 20, "{:?}", tally.latency.per_mille(700));
    // That the window was full is the server's doing, not lateness of the generator.
    assert!(tally.lag.per_mille(900) < stall / 4, "{:?}", tally.lag.per_mille(900));

    // A closed loop sends nothing meanwhile, so its percentiles cannot know.
    let (tally, _) = against(manner, &Plan { millis: 1000, ..CLOSED });
    assert!(tally.latency.max() >= stall);
    assert!(tally.latency.per_mille(900) < stall / 4, "{:?}", tally.latency.per_mille(900));
}

#[test]
fn a_count_is_sent_exactly_and_goes_round_the_queues() {
    for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
        let (tally, seen) = against(Manner::default(), &Plan { encoding, count: Some(1001), ..CLOSED });
        assert_eq!((tally.sent, tally.acknowledged, tally.unanswered), (1001, 1001, 0));
        assert_eq!(tally.measured, 1001);
        let of_queue = |queue| seen.sends.iter().filter(|send| send.0 == queue).count();
        assert_eq!([0, 1, 2].map(of_queue), [334, 334, 333]);
        let mut ids: Vec<&str> = seen.sends.iter().map(|send| send.1.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1001, "unique ids differ");
    }
}

#[test]
fn each_half_is_committed_by_its_own_position() {
    for is_awaited in [false, true] {
        let plan = Plan { work: Work::Transaction { is_awaited }, count: Some(500), ..CLOSED };
        let (tally, mut seen) = against(Manner::default(), &plan);
        assert_eq!((tally.sent, tally.acknowledged, tally.strays), (500, 500, 0));
        seen.commits.sort_unstable();
        assert!(seen.commits.iter().copied().eq(1..=500));
        assert!(seen.sends.iter().all(|send| send.1.contains("TRAN_MSG\u{1}true")));
    }
    let (tally, seen) = against(Manner::default(), &Plan { work: Work::Half, count: Some(50), ..CLOSED });
    assert_eq!((tally.acknowledged, seen.commits.len()), (50, 0));
}

#[test]
fn refusals_are_told_by_code_and_are_no_throughput() {
    let manner = Manner { refuse_each: Some(10), ..Manner::default() };
    let (tally, _) = against(manner, &Plan { count: Some(1000), ..CLOSED });
    let refusals = &tally.refusals[&response::SYSTEM_BUSY];
    assert_eq!((refusals.count, refusals.remark.as_str()), (100, "busy"));
    assert_eq!((tally.acknowledged, tally.measured), (900, 900));
}

#[test]
fn a_lost_connection_ends_the_run_and_is_told() {
    let manner = Manner { hang_up_at: Some(50), ..Manner::default() };
    let (tally, _) = against(manner, &Plan { millis: 20_000, ..CLOSED });
    assert!(tally.lost >= 1 && tally.lost <= 4, "{}", tally.lost);
    assert_eq!(tally.sent, tally.acknowledged + tally.lost);
    assert!(tally.broken.is_some());
}
