//! Every request code with anything in any field, sent to a real broker and a real nameserver beside a good client.
//!
//! ```text
//!  seed, number --> Scene --> generator (one per request) --> mutations --> wire --> Attack (lanes, connections)
//!                     ^                                                                |
//!                   Known  <-- what answers taught (halves, positions, handles) -------+
//!
//!  Good: the client that must not notice          Campaign: windows, restarts, checks, the report
//! ```
//!
//! Depth counts more than noise: each generator makes a *valid* request, so that a changed field reaches the code after
//! the first checks: a decision on a half that is stored, a send-back of a message that is there, a registration that is
//! taken. Then one or a few things are changed. Some requests stay as they are: they keep the ground on which the others
//! stand, and a test demands that each valid form is answered as one.
//!
//! Promises: the seed and the number of a request decide what it is, as far as it does not name what an answer taught; no
//! generator names the topics, groups and settings of the good client; a code of [`request::ALL`] without a generator
//! fails a test. The message of a failure has all that is needed to try it again.
//!
//! [`request::ALL`]: escrowmq_common::code::request::ALL

mod admin;
mod attack;
mod callbacks;
pub mod campaign;
mod consuming;
pub mod draft;
pub mod good;
pub mod json;
pub mod known;
mod line;
mod membership;
mod mutate;
mod nameserver;
mod pop;
mod ring;
pub mod scene;
mod sending;
mod topics;
mod transactions;
mod values;
pub mod wire;

pub use self::line::Counts;

use escrowmq_common::code::request;

use self::draft::Draft;
use self::known::Known;
use self::scene::Scene;
use crate::dice::Dice;

/// Stands for the codes that are none of [`ALL`](escrowmq_common::code::request::ALL).
pub const UNKNOWN_CODE: i32 = i32::MIN;

/// Counts requests that make the ground again. Like those of tools they succeed, and would hide that the generators of
/// their codes are refused.
pub const GROUND_CODE: i32 = i32::MIN + 1;

/// Whom a request is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A broker.
    Broker,
    /// A nameserver.
    Nameserver,
}

/// How the requests of one code are made.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    /// The code, or [`UNKNOWN_CODE`].
    pub code: i32,
    /// The process that serves it.
    pub target: Target,
    /// How often it comes, relative to others.
    pub weight: usize,
    /// Codes with which a valid request may be answered; none: any.
    pub accepts: &'static [i32],
    /// Makes a valid request.
    pub draft: fn(&mut Scene<'_>) -> Draft,
}

/// Sets of answers.
struct Accepts;

impl Accepts {
    /// Any answer: it depends on the state of things.
    const ANY: &[i32] = &[];
    /// Nobody here knows the request.
    const UNKNOWN: &[i32] = &[3];
    /// Stored; or the topic or queue is not there, or takes no such message.
    const SENT: &[i32] = &[0, 1, 2, 13, 16, 17, 26, 29];
    /// There, or not.
    const FOUND: &[i32] = &[0, 1, 13, 16, 17, 22, 26, 29];
    /// Decided, or it was already, or there is no such half.
    const DECIDED: &[i32] = &[0, 1, 22, 604];
    /// Messages, or the reason why there are none.
    const PULLED: &[i32] = &[0, 16, 17, 19, 20, 21, 23, 24, 25, 26, 29];
}

const fn valid(code: i32, target: Target, accepts: &'static [i32], draft: fn(&mut Scene<'_>) -> Draft) -> Generator {
    Generator { code, target, weight: 1, accepts, draft }
}

/// All generators. A code may have several.
pub fn generators() -> impl Iterator<Item = &'static Generator> + Clone {
    [
        sending::GENERATORS,
        transactions::GENERATORS,
        consuming::GENERATORS,
        membership::GENERATORS,
        topics::GENERATORS,
        admin::GENERATORS,
        pop::GENERATORS,
        callbacks::GENERATORS,
        nameserver::GENERATORS,
    ]
    .into_iter()
    .flatten()
}

/// Codes of which a whole campaign has requests that succeed, whatever its seed: a generator that is always refused
/// early tries nothing of the code after that. Measured: each of these had ten successes or more within 10,000 requests,
/// under each of 13 seeds.
#[rustfmt::skip] // a table
const SUCCEEDING: &[(Target, &[i32])] = &[
    (Target::Broker, &[
        request::SEND_MESSAGE_V2, request::SEND_MESSAGE, request::SEND_BATCH_MESSAGE, request::CONSUMER_SEND_MSG_BACK,
        request::RECALL_MESSAGE, request::END_TRANSACTION, request::LIST_TRANSACTIONS, request::GET_TRANSACTION,
        request::COUNT_TRANSACTIONS, request::DECIDE_TRANSACTION, request::PULL_MESSAGE, request::QUERY_CONSUMER_OFFSET,
        request::UPDATE_CONSUMER_OFFSET, request::GET_MAX_OFFSET, request::SEARCH_OFFSET_BY_TIMESTAMP,
        request::GET_EARLIEST_MSG_STORETIME, request::VIEW_MESSAGE_BY_ID, request::LOCK_BATCH_MQ,
        request::UNLOCK_BATCH_MQ, request::QUERY_CONSUME_QUEUE, request::HEART_BEAT, request::UNREGISTER_CLIENT,
        request::CHECK_CLIENT_CONFIG, request::INVOKE_BROKER_TO_RESET_OFFSET, request::UPDATE_AND_CREATE_TOPIC,
        request::UPDATE_AND_CREATE_TOPIC_LIST, request::DELETE_TOPIC_IN_BROKER, request::GET_ALL_TOPIC_CONFIG,
        request::QUERY_TOPIC_CONSUME_BY_WHO, request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
        request::DELETE_SUBSCRIPTIONGROUP, request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, request::QUERY_TOPICS_BY_CONSUMER,
        request::QUERY_SUBSCRIPTION_BY_CONSUMER, request::GET_CONSUME_STATS, request::GET_ALL_PRODUCER_INFO,
        request::UPDATE_BROKER_CONFIG, request::GET_BROKER_CONFIG, request::GET_BROKER_RUNTIME_INFO,
        request::TRIGGER_DELETE_FILES, request::GET_ALL_CONSUMER_OFFSET, request::GET_ALL_DELAY_OFFSET,
        request::CLEAN_EXPIRED_CONSUMEQUEUE, request::CLEAN_UNUSED_TOPIC, request::DELETE_EXPIRED_COMMITLOG,
        request::CLONE_GROUP_OFFSET, request::QUERY_CORRECTION_OFFSET, request::GET_BROKER_CONSUME_STATS,
        request::GET_BROKER_HA_STATUS,
    ]),
    (Target::Nameserver, &[
        request::PUT_KV_CONFIG, request::DELETE_KV_CONFIG, request::REGISTER_BROKER, request::UNREGISTER_BROKER,
        request::QUERY_DATA_VERSION, request::BROKER_HEARTBEAT, request::GET_ROUTEINFO_BY_TOPIC,
        request::GET_BROKER_CLUSTER_INFO, request::GET_BROKER_MEMBER_GROUP, request::WIPE_WRITE_PERM_OF_BROKER,
        request::ADD_WRITE_PERM_OF_BROKER, request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
        request::DELETE_TOPIC_IN_NAMESRV, request::REGISTER_TOPIC_IN_NAMESRV, request::GET_TOPICS_BY_CLUSTER,
        request::GET_SYSTEM_TOPIC_LIST_FROM_NS, request::GET_UNIT_TOPIC_LIST, request::GET_HAS_UNIT_SUB_TOPIC_LIST,
        request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, request::GET_NAMESRV_CONFIG,
    ]),
];

/// All of them, with whom they are meant for.
pub fn succeeding() -> impl Iterator<Item = (Target, i32)> {
    SUCCEEDING.iter().flat_map(|(target, codes)| codes.iter().map(|code| (*target, *code)))
}

/// A request of an attack, and whether anything was done to it.
#[derive(Clone, Debug)]
pub struct Shot {
    /// The request.
    pub draft: Draft,
    /// Whom it is sent to.
    pub target: Target,
    /// Nothing was changed, and it went to whom it is meant for.
    pub is_valid: bool,
    /// The generator's own code, also where the request's was changed, or [`GROUND_CODE`].
    pub code: i32,
}

/// Codes that are sent, for whoever looks for the one that did it: `10,37` are these two, `-25` all but this one. Nothing
/// is all.
#[derive(Clone, Debug, Default)]
pub struct Only {
    these: Vec<i32>,
    but: Vec<i32>,
}

impl Only {
    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        self.these.is_empty() && self.but.is_empty()
    }

    fn has(&self, code: i32) -> bool {
        (self.these.is_empty() || self.these.contains(&code)) && !self.but.contains(&code)
    }
}

impl std::str::FromStr for Only {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Only, Self::Err> {
        let mut only = Only::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.strip_prefix('-') {
                Some(code) => only.but.push(code.parse()?),
                None => only.these.push(word.parse()?),
            }
        }
        Ok(only)
    }
}

impl std::fmt::Display for Only {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let but = self.but.iter().map(|code| format!("-{code}"));
        f.write_str(&self.these.iter().map(i32::to_string).chain(but).collect::<Vec<_>>().join(","))
    }
}

/// One request of this many makes the ground again.
const GROUND_EVERY: u64 = 25;

/// The request with this number, at this time.
pub fn shot(seed: u64, number: u64, known: &Known, is_far: bool, only: &Only, now: i64) -> Shot {
    let mut scene = Scene { dice: Dice::of_step(seed, number), known, is_far, now };
    if number.is_multiple_of(GROUND_EVERY) {
        let draft = topics::ground(&mut scene);
        return Shot { code: GROUND_CODE, draft, target: Target::Broker, is_valid: true };
    }
    let wanted = |generator: &&Generator| only.has(generator.code);
    let all = generators().filter(wanted);
    let mut at = scene.dice.below(all.clone().map(|generator| generator.weight).sum::<usize>().max(1));
    let generator = all.clone().find(|generator| {
        let is_it = at < generator.weight;
        at = at.saturating_sub(generator.weight);
        is_it
    });
    let generator = generator.unwrap_or_else(|| panic!("no generator for any of {only:?}"));
    let mut draft = (generator.draft)(&mut scene);
    let dice = &mut scene.dice;
    draft.binary = dice.one_in(2);
    let deeds = *dice.pick(&[0, 1, 1, 1, 1, 1, 2, 3]);
    for _ in 0..deeds {
        mutate::mutate(&mut draft, dice);
    }
    if dice.one_in(24) {
        draft.flag |= 2;
    }
    // Now and then to whom it is not meant for.
    let is_misdirected = dice.one_in(40);
    let target = match (generator.target, is_misdirected) {
        (Target::Broker, false) | (Target::Nameserver, true) => Target::Broker,
        _ => Target::Nameserver,
    };
    Shot { draft, target, is_valid: deeds == 0 && !is_misdirected, code: generator.code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_code_has_a_generator() {
        let known: Vec<i32> = generators().map(|generator| generator.code).collect();
        let missing: Vec<_> = request::ALL.iter().filter(|(_, code)| !known.contains(code)).collect();
        assert!(missing.is_empty(), "codes without a generator in tests/src/hostile: {missing:?}");
    }

    #[test]
    fn what_must_succeed_is_made_by_generators() {
        let all: Vec<(Target, i32)> = succeeding().collect();
        for (at, code) in all.iter().enumerate() {
            assert!(generators().any(|generator| (generator.target, generator.code) == *code), "{code:?}");
            assert!(!all[..at].contains(code), "{code:?} is named twice");
        }
    }

    #[test]
    fn the_ground_counts_for_no_generator() {
        let shot = shot(9, GROUND_EVERY, &Known::default(), true, &Only::default(), 7);
        assert_eq!(shot.code, GROUND_CODE);
        assert!(generators().all(|generator| generator.code != GROUND_CODE));
    }

    #[test]
    fn generators_make_what_they_say() {
        let known = Known::default();
        for generator in generators() {
            for step in 0..50 {
                let mut scene = Scene { dice: Dice::of_step(1, step), known: &known, is_far: true, now: 7 };
                let draft = (generator.draft)(&mut scene);
                if generator.code == UNKNOWN_CODE {
                    assert_eq!(request::name(draft.code), None);
                } else {
                    assert_eq!(draft.code, generator.code);
                }
            }
        }
    }

    #[test]
    fn a_seed_decides_and_every_code_comes() {
        let known = Known::default();
        let text = |number| wire::frame(&shot(9, number, &known, true, &Only::default(), 7).draft, 1);
        assert!((0..200).all(|number| text(number) == text(number)));
        let mut missing: Vec<i32> = generators().map(|generator| generator.code).collect();
        for number in 0..5_000 {
            let shot = shot(9, number, &known, true, &Only::default(), 7);
            missing.retain(|code| *code != shot.code);
        }
        assert!(missing.is_empty(), "{missing:?} do not come within 5,000 requests");
    }
}
