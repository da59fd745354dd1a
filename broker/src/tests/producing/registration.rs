//! The broker's registration with its nameservers: with all of them, at once after a change, and a goodbye at the end.

use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::body::RegisterBrokerBody;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::RegisterBrokerHeader;
use escrowmq_common::remoting::{Connection, ServeLimits, Service, serve};
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::support::{Stage, create_topic};

/// A nameserver that writes down what it hears.
#[derive(Default)]
struct Listening {
    heard: Mutex<Vec<(i32, Vec<String>)>>,
}

impl Service for Listening {
    fn on_request(&self, connection: &Arc<Connection>, frame: Frame) {
        let mut topics = Vec::new();
        if frame.code == request::REGISTER_BROKER {
            let header: RegisterBrokerHeader<'_> = frame.header().unwrap();
            assert_eq!(header.body_crc32.cast_unsigned(), crc32fast::hash(&frame.body) & 0x7fff_ffff);
            assert_eq!((header.broker_name, header.broker_id), ("broker-a", 0));
            let body = RegisterBrokerBody::decode(&frame.body, header.compressed).unwrap();
            topics = body.topic_config_serialize_wrapper.topic_config_table.into_keys().collect();
        }
        self.heard.lock().push((frame.code, topics));
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

    fn registrations(&self) -> Vec<Vec<String>> {
        let heard = self.listening.heard.lock();
        heard.iter().filter(|(code, _)| *code == request::REGISTER_BROKER).map(|(_, topics)| topics.clone()).collect()
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
        assert_eq!(nameserver.listening.heard.lock().last().unwrap().0, request::UNREGISTER_BROKER);
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
