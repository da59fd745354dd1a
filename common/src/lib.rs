//! The common ground of two processes of EscrowMQ, or of an EscrowMQ process and any RocketMQ client.
//!
//! * [`frame`], [`code`], [`header`]: the remoting protocol, from bytes to typed requests.
//! * [`remoting`]: connections that carry frames both ways.
//! * [`message`], [`body`], [`name`]: messages, JSON bodies and the rules of names.
//! * [`limits`]: how long and how many of anything a peer may send.
//! * [`task`], [`clock`]: the only places that spawn and that read time; [`calendar`], [`net`]: its days, and addresses.
//! * [`causes`]: an error with its causes in one line.
//! * With the feature `process`, for our own programs: `settings`, `logging`, `audit`, which tells administrators' acts, `signals`,
//!   `monitoring`, `service`, which tells a service manager how a process is, `manual`, which writes manual pages, `disk`, which replaces files, and `ports`, which finds free ones.
//!
//! Nothing in here knows what a broker or a nameserver does with a request.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "process")]
pub mod audit;
pub mod body;
pub mod calendar;
pub mod causes;
pub mod clock;
pub mod code;
#[cfg(feature = "process")]
pub mod disk;
pub mod frame;
pub mod header;
pub mod limits;
#[cfg(feature = "process")]
pub mod logging;
#[cfg(feature = "process")]
pub mod manual;
pub mod message;
#[cfg(feature = "process")]
pub mod monitoring;
pub mod name;
pub mod net;
#[cfg(feature = "process")]
pub mod ports;
pub mod remoting;
#[cfg(feature = "process")]
pub mod service;
#[cfg(feature = "process")]
pub mod settings;
#[cfg(feature = "process")]
pub mod signals;
pub mod task;
