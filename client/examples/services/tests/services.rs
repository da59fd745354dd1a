//! Each service does what its page says, with a real broker and a real PostgreSQL server.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use escrowmq_client::{Client, ConsumeFrom, Decision, Json, Message, MessageExt, Outbox, Verdict};
use escrowmq_examples::order_service::{Order, Shop};
use escrowmq_examples::saga::{Journeys, Service, State, check, serve};
use escrowmq_examples::{migration, payments};
use escrowmq_tests::{Cluster, Postgres, Settings, until};
use sqlx::PgPool;
use tower::ServiceExt;

/// A cluster and a database; `None`, with a line that says so, where there is no PostgreSQL.
async fn world(test: &str, topics: &[&str]) -> Option<(Cluster, Client, Postgres, PgPool)> {
    let postgres = Postgres::start(test).await?;
    let cluster = Cluster::start(Settings::default()).await;
    for topic in topics {
        cluster.broker.wire().create_topic(topic, 2).await;
    }
    let client = cluster.client().await;
    let pool = PgPool::connect(&postgres.url()).await.expect("the database");
    Some((cluster, client, postgres, pool))
}

async fn count(pool: &PgPool, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(&count).fetch_one(pool).await.expect("a number")
}

/// All messages of a topic until there are as many.
async fn told(client: &Client, topic: &str, count: usize) -> Vec<MessageExt> {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let taking = Arc::clone(&seen);
    let consumer = client.push_consumer(format!("reader_of_{topic}")).subscribe(topic, "*");
    let consumer = consumer.consume_from(ConsumeFrom::First).start(move |message| {
        taking.lock().expect("no panic").push(message);
        async { Verdict::Done }
    });
    let consumer = consumer.await.expect("a reader");
    let enough = until("the messages", async || (seen.lock().expect("no panic").len() >= count).then_some(()));
    enough.await;
    consumer.shutdown().await;
    std::mem::take(&mut seen.lock().expect("no panic"))
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_their_messages_are_there_together_and_are_paid_once() {
    let Some((_cluster, client, _postgres, pool)) = world("orders", &["Orders", "Payments"]).await else { return };
    let shop = Shop::start(&client, pool.clone()).await.expect("a shop");
    let outbox = Outbox::new(pool.clone());
    let paying = payments::start(&client, pool.clone(), outbox).await.expect("payments");
    let routes = shop.router();
    let post = async |path: &str, number: i64| {
        let order = Order { number, customer: format!("c{}", number % 3), cents: 100 * number };
        let body = serde_json::to_vec(&order).expect("JSON");
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
        routes.clone().oneshot(request.expect("a request")).await.expect("an answer").status()
    };
    for number in 0..20 {
        let path = if number % 2 == 0 { "/orders" } else { "/orders/escrow" };
        assert_eq!(post(path, number).await, StatusCode::CREATED, "{path}");
        assert_eq!(post(path, number).await, StatusCode::OK, "{path}: a repeated request is the same order");
    }
    until("the payments", async || (count(&pool, "payments").await >= 20).then_some(())).await;
    let mut told: Vec<i64> = told(&client, "Payments", 20).await.iter().map(paid).collect();
    told.sort_unstable();
    assert_eq!(told, (0..20).collect::<Vec<_>>());
    assert_eq!((count(&pool, "orders").await, count(&pool, "payments").await), (20, 20));
    paying.shutdown().await;
    shop.shutdown().await;
}

fn paid(message: &MessageExt) -> i64 {
    let Json(paid): Json<payments::Paid> = message.payload().expect("a payment");
    paid.order
}

#[tokio::test(flavor = "multi_thread")]
async fn journeys_are_booked_as_a_whole_or_cancelled() {
    let topics = ["BookingOrders", "BookingAnswers"];
    let Some((_cluster, client, _postgres, pool)) = world("saga", &topics).await else { return };
    let outbox = Outbox::new(pool.clone());
    outbox.create_tables().await.expect("tables");
    let producer = client.producer("saga").topics(topics).start().await.expect("a producer");
    let relay = outbox.relay(&producer).start().expect("a relay");
    let flights = serve(&client, pool.clone(), outbox.clone(), Service::Flight, 7).await.expect("flights");
    let hotels = serve(&client, pool.clone(), outbox.clone(), Service::Hotel, 5).await.expect("hotels");
    let journeys = Journeys::start(&client, pool.clone(), outbox).await.expect("journeys");
    for number in 1..=10 {
        journeys.begin(number).await.expect("begun");
    }
    journeys.begin(1).await.expect_err("its number is used");
    let mut booked = 0;
    for number in 1..=10 {
        let state = until("the end of a journey", async || match journeys.state(number).await {
            Ok(Some(state @ (State::Booked | State::Cancelled))) => Some(state),
            _ => None,
        });
        booked += i64::from(state.await == State::Booked);
    }
    assert_eq!(booked, 5);
    assert_eq!((count(&pool, "flights").await, count(&pool, "hotels").await), (5, 5), "nothing is half booked");
    assert_eq!(check(&pool, 1).await, Decision::Commit);
    assert_eq!(check(&pool, 99).await, Decision::Rollback);
    journeys.begin(99).await.expect_err("the check has said that it never comes");
    relay.shutdown().await;
    for consumer in [flights, hotels] {
        consumer.shutdown().await;
    }
    journeys.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_table_moves_without_losing_a_message() {
    let Some((_cluster, client, _postgres, pool)) = world("migration", &["Old"]).await else { return };
    sqlx::query(migration::OLD_TABLE).execute(&pool).await.expect("the old table");
    for number in 0..25 {
        let state = if number == 7 { "given up" } else { "sending" };
        let insert = sqlx::query("INSERT INTO message_log (topic, body, order_key, state) VALUES ('Old', $1, 'k', $2)");
        insert.bind(format!("{number}").into_bytes()).bind(state).execute(&pool).await.expect("a row");
    }
    let outbox = Outbox::new(pool.clone());
    outbox.create_tables().await.expect("tables");
    let producer = client.producer("mover").start().await.expect("a producer");
    let relay = outbox.relay(&producer).start().expect("a relay");
    let mut moved = 0;
    loop {
        match migration::move_rows(&pool, &outbox, 10).await.expect("moved") {
            0 => break,
            some => moved += some,
        }
    }
    assert_eq!((moved, count(&pool, "message_log").await), (24, 1), "what was given up stays for a person");
    let mut told = told(&client, "Old", 24).await;
    told.sort_by_key(MessageExt::queue_offset);
    let bodies: Vec<_> = told.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect();
    let expected: Vec<_> = (0..25).filter(|number| *number != 7).map(|number| number.to_string()).collect();
    assert_eq!(bodies, expected, "in their order");
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_process_after_its_work() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Work", 1).await;
    cluster.broker.wire().create_topic("Results", 1).await;
    let producer = client.producer("work").start().await.expect("a producer");
    producer.send(Message::new("Work", "17")).await.expect("sent");
    let mut process = Command::new(env!("CARGO_BIN_EXE_graceful"))
        .args(["--namesrv", &cluster.nameserver.address(), "--working", "300"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let mut line = move || lines.next().expect("a line").expect("readable");
    assert_eq!(line(), "begins 17");
    let killed = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    assert_eq!(line(), "ended");
    assert!(process.wait().expect("it ends").success());
    let results = told(&client, "Results", 1).await;
    assert_eq!(&results[0].body()[..], b"17");
    let queue = client.admin().queues("Work").await.expect("a queue").remove(0);
    assert_eq!(client.admin().consumer_offset("graceful", &queue).await.expect("an offset"), Some(1));
    tokio::time::timeout(Duration::from_secs(60), client.shutdown()).await.expect("it ends");
}
