//! JSON bodies of requests and responses.
//!
//! RocketMQ's own JSON is almost JSON: maps whose keys are numbers or objects are written with such keys as they are,
//! nulls are left out, some clients put numbers into quotes or write enumerations by ordinal. [`json`] reads all of
//! that and writes both the loose and the strict form; the types here say what is in it.
//!
//! Promises: unknown fields are ignored, missing ones take their default, and no body makes the reader
//! panic, nest without bound or allocate more than a small multiple of its own size. A body that was read holds no more than its
//! type's [`Bounded`] says: texts, lists and tables have the limits of [`limits`](crate::limits). Fields are declared, and therefore
//! written, in the order of their wire names, as other implementations do.
//!
//! It leaves to others when a body is sent and what follows from it. Field docs say unit and meaning only where the
//! name does not.

mod ack;
mod assignment;
mod bounds;
mod connection;
mod group;
mod heartbeat;
pub mod json;
mod lock;
mod members;
mod offset;
mod queue;
mod registration;
mod route;
mod running;
mod stats;
mod tables;
mod topic;
mod transaction;
mod wire_enum;

pub use ack::{BatchAck, BatchAckBody};
pub use assignment::{
    MessageQueueAssignment, MessageRequestMode, QueryAssignmentBody, QueryAssignmentResponse, SetMessageRequestModeBody,
};
pub use bounds::{Body, Bounded};
pub use connection::{ClientConnection, ConsumerConnections, ProducerConnections, ProducerInfo, ProducerTable};
pub use group::{SubscriptionGroupConfig, SubscriptionGroupList, SubscriptionGroupTable};
pub use heartbeat::{
    CheckClientBody, ConsumeFromWhere, ConsumeType, ConsumerData, ConsumerIdList, EXPRESSION_SQL92, EXPRESSION_TAG,
    HeartbeatData, MessageModel, ProducerData, SubscriptionData,
};
pub use json::{BodyError, Form};
pub use lock::{LockBatchBody, LockBatchResponse};
pub use members::{GroupMembers, MemberInfo, MemberRole, MembersChanged};
pub use offset::{ConsumerOffsetTable, ConsumerStatus, CorrectionOffsets, ResetOffsetBody};
pub use queue::{MessageQueue, QueueTable};
pub use registration::{
    QueueMappingInfo, REGISTRATION_BYTES_MAX, REGISTRATION_PART_BYTES_MAX, REGISTRATION_TOPICS_MAX, RegisterBrokerBody,
    RegisteredTopic, RegisteredTopics, RegistrationError,
};
pub use route::{BrokerData, BrokerMemberGroup, BrokerMemberGroupBody, ClusterInfo, QueueData, TopicRouteData};
pub use running::{ConsumeDirectlyResult, ConsumeResult, ConsumeStatus, ConsumerRunningInfo, ProcessQueueInfo};
pub use stats::{
    BrokerConsumeStats, BrokerStatsData, BrokerStatsItem, ConsumeOffset, ConsumeQueueData, ConsumeQueueEntry,
    ConsumeStats, ConsumeTimeSpan, ConsumeTimeSpanBody, TopicOffset, TopicStats,
};
pub use tables::{GroupForbidden, GroupList, KvTable, SubscriptionOfGroup, TopicList};
pub use topic::{DataVersion, TopicConfig, TopicConfigList, TopicConfigTable, TopicFilterType};
pub use transaction::{
    Act, Asked, DecisionInfo, GroupTransactions, Parked, TransactionAction, TransactionCounts, TransactionInfo,
    TransactionPage, TransactionState,
};
