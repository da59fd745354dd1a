//! The broker's registration with its nameservers: with all of them, at once after a change, and a goodbye at the end.

use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::body::RegisterBrokerBody;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{BrokerIdentityHeader, RegisterBrokerHeader};
use escrowmq_common::remoting::{Connection, ServeLimits, Service, serve};
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::support::{Stage, create_topic};
use crate::registration::Standing;

/// A nameserver that writes down what it hears.
#[derive(Default)]
struct Listening {
    heard: Mutex<Vec<Heard>>,
}

/// One request.
#[derive(Debug, Clone)]
struct Heard {
    code: i32,
    topics: Vec<String>,
    id: i64,
    /// As `stateVersion` of a registration, or as `escrowmqTerm` of a goodbye.
    term: i64,
}

impl Service for Listening {
    fn on_request(&self, connection: &Arc<Connection>, frame: Frame) {
        let heard = if frame.code == request::REGISTER_BROKER {
            let header: RegisterBrokerHeader<'_> = frame.header().unwrap();
            assert_eq!(header.body_crc32.cast_unsigned(), crc32fast::hash(&frame.body) & 0x7fff_ffff);
            assert_eq!(header.broker_name, "broker-a");
            let body = RegisterBrokerBody::decode(&frame.body, header.compressed).unwrap();
            let table = body.topic_config_serialize_wrapper;
            Heard {
                code: frame.code,
                topics: table.topic_config_table.into_keys().collect(),
                id: header.broker_id,
                term: table.data_version.state_version,
            }
        } else {
            let header: BrokerIdentityHeader<'_> = frame.header().unwrap();
            let term = frame.fields.get("escrowmqTerm").map_or(-1, |term| term.parse().unwrap());
            Heard { code: frame.code, topics: Vec::new(), id: header.broker_id, term }
        };
        self.heard.lock().push(heard);
        connection.reply(&Frame::response(&frame, response::SUCCESS));
    }
}

struct Nameserver {
    listening: Arc<Listening>,
    address: SocketAddr,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Nameserver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (listening, shutdown, tasks) = (Arc::new(Listening::default()), Shutdown::new(), Tasks::new());
        let service = Arc::clone(&listening) as Arc<dyn Service>;
        tasks.spawn("nameserver", serve(listener, service, ServeLimits::default(), shutdown.clone()));
        Self { listening, address, shutdown, tasks }
    }

    /// The topics of each registration.
    fn registrations(&self) -> Vec<Vec<String>> {
        self.all(request::REGISTER_BROKER).into_iter().map(|heard| heard.topics).collect()
    }

    /// The requests of this code.
    fn all(&self, code: i32) -> Vec<Heard> {
        self.listening.heard.lock().iter().filter(|heard| heard.code == code).cloned().collect()
    }
}

#[tokio::test]
async fn a_broker_is_registered_when_it_serves_and_a_topic_when_it_is_created() {
    let (one, two) = (Nameserver::start().await, Nameserver::start().await);
    let stage = Stage::with(|config| {
        // The last one answers nobody: it must not delay the others.
        config.namesrv_addr = vec![one.address.to_string(), two.address.to_string(), "127.0.0.1:1".to_owned()];
    })
    .await;
    for nameserver in [&one, &two] {
        assert!(nameserver.registrations()[0].contains(&"TBW102".to_owned()));
    }
    stage.done(create_topic("T", 2)).await;
    for nameserver in [&one, &two] {
        assert_eq!(nameserver.registrations().last().unwrap(), &["T"], "a new topic registers alone");
    }
    stage.running.stop().await.unwrap();
    for nameserver in [&one, &two] {
        assert_eq!(nameserver.listening.heard.lock().last().unwrap().code, request::UNREGISTER_BROKER);
        nameserver.shutdown.cancel();
        nameserver.tasks.join().await;
    }
}

#[tokio::test]
async fn everything_goes_out_again_in_each_period() {
    let nameserver = Nameserver::start().await;
    let stage = Stage::with(|config| {
        config.namesrv_addr = vec![nameserver.address.to_string()];
        config.register_period = std::time::Duration::from_millis(50);
    })
    .await;
    stage.until("several full registrations", |_| nameserver.registrations().len() >= 4).await;
    assert!(nameserver.registrations().iter().all(|topics| topics.contains(&"TBW102".to_owned())));
}

#[tokio::test]
async fn a_new_standing_in_the_group_goes_out_at_once_and_in_full() {
    let nameserver = Nameserver::start().await;
    let stage = Stage::with(|config| {
        config.namesrv_addr = vec![nameserver.address.to_string()];
        // Longer than this test waits.
        config.register_period = std::time::Duration::from_secs(60);
    })
    .await;
    let first = nameserver.all(request::REGISTER_BROKER)[0].clone();
    assert!(first.term > 0 && first.id == 0, "the leader of a term: {first:?}");
    stage.done(create_topic("T", 2)).await;
    let registration = &stage.running.broker().registration;
    let leader = Standing::leader(first.term.cast_unsigned() + 5);
    for standing in [leader, Standing { id: 3, ..leader }] {
        let before = nameserver.registrations().len();
        registration.stands(standing);
        stage.until("a registration", |_| nameserver.registrations().len() > before).await;
        let told = nameserver.all(request::REGISTER_BROKER).last().unwrap().clone();
        assert_eq!((told.term, told.id), (standing.term.cast_signed(), standing.id));
        assert!(["T", "TBW102"].iter().all(|topic| told.topics.iter().any(|one| one == topic)), "{:?}", told.topics);
    }
    // The same again is no news.
    let before = nameserver.registrations().len();
    registration.stands(Standing { id: 3, ..leader });
    registration.now().await;
    assert_eq!(nameserver.registrations().len(), before);
    stage.running.stop().await.unwrap();
    let goodbye = nameserver.all(request::UNREGISTER_BROKER).pop().unwrap();
    assert_eq!((goodbye.term, goodbye.id), (leader.term.cast_signed(), 3));
    nameserver.shutdown.cancel();
    nameserver.tasks.join().await;
}
