//! A saga: a journey is a flight and a hotel, booked by two services, as a whole or not at all.
//!
//! ```text
//!  begin -- half message, row -- commit --> book flight --booked--> book hotel --booked--> booked
//!     '-- died in between: the check looks for the row            '--refused--> cancel flight --> cancelled
//! ```
//!
//! * The **first step** is a transactional message: the row of the journey and the order to book the flight are there together. If the
//!   process dies in between, the broker asks [`check`], in any process of the group.
//! * **Every other step** is one transaction of a database: the new state, the mark that this message was handled, and the next message in
//!   the outbox. A crash repeats the step or does not; nothing is done twice, and no journey stays half booked.
//!
//! Which step follows is decided by [`next`], which is pure.

use escrowmq_client::{
    Checker, Client, ConsumeFrom, Decision, Idempotent, Json, Message, Outbox, PushConsumer, SqlStore,
    TransactionProducer,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Postgres};

/// Orders to the booking services, with the service as tag.
pub const ORDERS: &str = "BookingOrders";
/// Their answers.
pub const ANSWERS: &str = "BookingAnswers";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The state of a journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The flight is being booked.
    Flight,
    /// The hotel is being booked.
    Hotel,
    /// There is no hotel: the flight is being cancelled.
    Cancelling,
    /// Both are booked.
    Booked,
    /// Neither is.
    Cancelled,
    /// A check came before the journey was written, which it can no longer be.
    Refused,
}

impl State {
    const ALL: [State; 6] =
        [State::Flight, State::Hotel, State::Cancelling, State::Booked, State::Cancelled, State::Refused];

    /// As the table has it.
    fn text(self) -> &'static str {
        match self {
            State::Flight => "flight",
            State::Hotel => "hotel",
            State::Cancelling => "cancelling",
            State::Booked => "booked",
            State::Cancelled => "cancelled",
            State::Refused => "refused",
        }
    }

    /// The state of a journey, whose row is locked until the end of the transaction if there is one.
    async fn read<'c>(executor: impl sqlx::PgExecutor<'c>, journey: i64) -> Result<Option<State>, sqlx::Error> {
        let read = sqlx::query_scalar("SELECT state FROM journeys WHERE number = $1 FOR UPDATE");
        let text: Option<String> = read.bind(journey).fetch_optional(executor).await?;
        Ok(text.and_then(|text| State::ALL.into_iter().find(|state| state.text() == text)))
    }
}

/// A service that books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Flights.
    Flight,
    /// Hotels.
    Hotel,
}

impl Service {
    /// Its name, which is also its tag and its consumer group.
    pub fn name(self) -> &'static str {
        match self {
            Service::Flight => "flight",
            Service::Hotel => "hotel",
        }
    }
}

/// An order to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The journey.
    pub journey: i64,
    /// The service that is to act.
    pub service: Service,
    /// To book, or to cancel what was booked.
    pub book: bool,
}

/// The answer of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The journey.
    pub journey: i64,
    /// The service that answers.
    pub service: Service,
    /// Whether it is booked now.
    pub booked: bool,
}

/// The step after an answer: the next state, and the next order if there is one. `None` for an answer that belongs to no such state.
pub fn next(state: State, answer: Answer) -> Option<(State, Option<Order>)> {
    let order = |service, book| Some(Order { journey: answer.journey, service, book });
    match (state, answer.service, answer.booked) {
        (State::Flight, Service::Flight, true) => Some((State::Hotel, order(Service::Hotel, true))),
        (State::Hotel, Service::Hotel, true) => Some((State::Booked, None)),
        (State::Hotel, Service::Hotel, false) => Some((State::Cancelling, order(Service::Flight, false))),
        (State::Flight | State::Cancelling, Service::Flight, false) => Some((State::Cancelled, None)),
        _ => None,
    }
}

fn order_message(order: Order) -> Result<Message, Error> {
    let message = Message::of(ORDERS, &Json(order))?.tag(order.service.name());
    Ok(message.key(order.journey.to_string()).sharding_key(order.journey.to_string()))
}

/// The side that knows the journeys.
#[derive(Debug)]
pub struct Journeys {
    pool: PgPool,
    producer: TransactionProducer,
    consumer: PushConsumer,
}

impl Journeys {
    /// Makes the tables and starts. A relay of `outbox` sends the orders after the first.
    ///
    /// # Errors
    ///
    /// The database or the cluster is away.
    pub async fn start(client: &Client, pool: PgPool, outbox: Outbox<Postgres>) -> Result<Journeys, Error> {
        let table = "CREATE TABLE IF NOT EXISTS journeys (number BIGINT PRIMARY KEY, state TEXT NOT NULL)";
        sqlx::query(table).execute(&pool).await?;
        let store = SqlStore::new(pool.clone());
        store.create_tables().await?;
        let checks = pool.clone();
        let checker = Checker::new(move |message: escrowmq_client::MessageExt| {
            let pool = checks.clone();
            async move {
                match message.payload::<Json<Order>>() {
                    Ok(Json(order)) => check(&pool, order.journey).await,
                    Err(_) => Decision::Rollback,
                }
            }
        });
        let producer = client.transaction_producer("journeys", checker).topics([ORDERS]).start().await?;
        let handler = Idempotent::new(store, "journeys").in_db_once(move |mut tx, message| {
            let outbox = outbox.clone();
            async move {
                let Json(answer): Json<Answer> = message.payload()?;
                let state = State::read(&mut **tx, answer.journey).await?;
                let Some((state, order)) = state.and_then(|state| next(state, answer)) else {
                    tracing::warn!(?state, ?answer, "an answer that nobody waits for");
                    return Ok(());
                };
                let write = sqlx::query("UPDATE journeys SET state = $2 WHERE number = $1");
                write.bind(answer.journey).bind(state.text()).execute(&mut **tx).await?;
                if let Some(order) = order {
                    outbox.add(&mut tx, order_message(order)?).await?;
                }
                Ok::<(), Error>(())
            }
        });
        let consumer = client.push_consumer("journeys").subscribe(ANSWERS, "*").consume_from(ConsumeFrom::First);
        Ok(Journeys { pool, producer, consumer: consumer.start(handler).await? })
    }

    /// Begins a journey: its row and its first order are there together.
    ///
    /// # Errors
    ///
    /// The journey is not begun, or (`Unresolved`) the check will find out whether it is. A number that was used is an error.
    pub async fn begin(&self, number: i64) -> Result<(), Error> {
        let order = Order { journey: number, service: Service::Flight, book: true };
        let begun = self.producer.run(order_message(order)?, |_| async move {
            let insert = sqlx::query("INSERT INTO journeys (number, state) VALUES ($1, $2)");
            insert.bind(number).bind(State::Flight.text()).execute(&self.pool).await
        });
        begun.await?;
        Ok(())
    }

    /// The state of a journey.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn state(&self, number: i64) -> Result<Option<State>, sqlx::Error> {
        State::read(&self.pool, number).await
    }

    /// Ends both sides of it.
    pub async fn shutdown(&self) {
        self.consumer.shutdown().await;
        self.producer.shutdown().await;
    }
}

/// Answers the broker's question about the first step of a journey: was it written?
///
/// A process that has died may still have a connection on its way to commit, so that looking is not enough. The check writes under the
/// same key, and only one of the two can: either it finds the journey, or the journey can never come.
pub async fn check(pool: &PgPool, number: i64) -> Decision {
    let plant = sqlx::query("INSERT INTO journeys (number, state) VALUES ($1, $2) ON CONFLICT DO NOTHING");
    let planted = plant.bind(number).bind(State::Refused.text()).execute(pool).await;
    match (planted, State::read(pool, number).await) {
        (Ok(_), Ok(Some(State::Refused))) => Decision::Rollback,
        (Ok(_), Ok(Some(_))) => Decision::Commit,
        _ => Decision::Unknown, // the database does not answer: the broker asks again
    }
}

/// A service that books up to `places` journeys.
///
/// # Errors
///
/// The database or the cluster is away.
pub async fn serve(
    client: &Client,
    pool: PgPool,
    outbox: Outbox<Postgres>,
    service: Service,
    places: i64,
) -> Result<PushConsumer, Error> {
    let table = format!("{}s", service.name());
    let create = format!("CREATE TABLE IF NOT EXISTS {table} (journey BIGINT PRIMARY KEY)");
    sqlx::query(&create).execute(&pool).await?;
    let store = SqlStore::new(pool);
    store.create_tables().await?;
    let handler = Idempotent::new(store, service.name()).in_db_once(move |mut tx, message| {
        let (outbox, table) = (outbox.clone(), table.clone());
        async move {
            let Json(order): Json<Order> = message.payload()?;
            // Two journeys must not both count the last place as free.
            let lock = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
            sqlx::query(&lock).execute(&mut **tx).await?;
            let act = if order.book {
                format!("INSERT INTO {table} SELECT $1 WHERE (SELECT count(*) FROM {table}) < $2")
            } else {
                format!("DELETE FROM {table} WHERE journey = $1 AND $2 >= 0")
            };
            let changed = sqlx::query(&act).bind(order.journey).bind(places).execute(&mut **tx).await?;
            let booked = order.book && changed.rows_affected() == 1;
            let answer = Answer { journey: order.journey, service, booked };
            outbox.add(&mut tx, Message::of(ANSWERS, &Json(answer))?.sharding_key(order.journey.to_string())).await?;
            Ok::<(), Error>(())
        }
    });
    let consumer = client.push_consumer(service.name()).subscribe(ORDERS, service.name());
    Ok(consumer.consume_from(ConsumeFrom::First).start(handler).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journey_is_booked_as_a_whole_or_cancelled() {
        let answer = |service, booked| Answer { journey: 17, service, booked };
        let order = |service, book| Some(Order { journey: 17, service, book });
        let flight = answer(Service::Flight, true);
        assert_eq!(next(State::Flight, flight), Some((State::Hotel, order(Service::Hotel, true))));
        assert_eq!(next(State::Hotel, answer(Service::Hotel, true)), Some((State::Booked, None)));
        let refused = next(State::Hotel, answer(Service::Hotel, false));
        assert_eq!(refused, Some((State::Cancelling, order(Service::Flight, false))));
        assert_eq!(next(State::Cancelling, answer(Service::Flight, false)), Some((State::Cancelled, None)));
        assert_eq!(next(State::Booked, flight), None, "nobody waits for it");
    }
}
