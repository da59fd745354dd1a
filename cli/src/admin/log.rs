//! The log of one broker, on the broker's own machine.

use anyhow::bail;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GiveUpLogHeader, GiveUpLogResponse};

use super::connection::Cluster;
use super::operator;
use super::output::Output;
use crate::confirm;
use crate::words::counted;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Give up messages that cannot be read, because their file is damaged or missing. THEY ARE LOST
    ///
    /// Their queues wait at them until the file is back or this is done. The error of a pull, and the broker's log, name the position.
    GiveUp {
        /// Log position of a message that cannot be read
        position: i64,
        /// Why; the broker keeps it
        #[arg(long, short, value_parser = operator::reason)]
        reason: String,
        /// Name of the operator; the broker keeps it. Without it: `$USER@host`
        #[arg(long, short, value_parser = operator::name)]
        operator: Option<String>,
        /// Address of the broker, on this machine
        #[arg(long, short, default_value = "127.0.0.1:10911")]
        broker: String,
        /// Do not ask before it is done
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) async fn run(cluster: &Cluster, command: &Command) -> anyhow::Result<Output> {
    let Command::GiveUp { position, reason, operator, broker, yes } = command;
    confirm::refuse_if_nobody_can_be_asked(*yes)?;
    let what = format!("give up what cannot be read at log position {position} of {broker}, so that it is lost");
    if !yes && !confirm::ask("", &what)? {
        bail!("nothing was done");
    }
    let operator = operator.clone().unwrap_or_else(operator::current);
    let header = GiveUpLogHeader { position: *position, operator: &operator, reason };
    let answer = cluster.call(broker, Frame::request(request::GIVE_UP_LOG).with_header(&header)).await?;
    let given: GiveUpLogResponse = answer.header()?;
    Ok(Output::done(given_up(broker, &given)))
}

fn given_up(broker: &str, given: &GiveUpLogResponse) -> String {
    let GiveUpLogResponse { from, upto, messages } = given;
    let lost = counted(*messages, "message");
    format!(
        "log positions {from} to {upto} of {broker} are given up; lost: {lost} of queues, and readers go on behind them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_message_is_one() {
        let said = |messages| given_up("h:1", &GiveUpLogResponse { from: 7, upto: 9, messages });
        let one = "log positions 7 to 9 of h:1 are given up; lost: 1 message of queues, and readers go on behind them";
        assert_eq!(said(1), one);
        assert!(said(0).contains("0 messages of queues") && said(2).contains("2 messages of queues"));
    }
}
