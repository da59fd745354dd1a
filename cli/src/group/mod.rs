//! `escrowmq group`: the members of a group of brokers that are one to their clients.
//!
//! A command asks one member; one that does not lead passes changes on to the leader. `recover` works on the folder of a member that
//! does not run. An answer that is no success ends the command with the broker's own words and exit code 1. Consumer groups are
//! another thing: `escrowmq admin group`.

mod call;
mod recover;
mod status;

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use escrowmq_common::body::GroupMembers;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{MemberHeader, TransferLeaderHeader};
use serde_json::json;

use crate::admin::output::Output;
use crate::confirm;
use crate::ending::{block_on, failed};
use call::Members;

/// Which member is asked, and who reads the answer.
#[derive(Debug, clap::Args)]
struct Target {
    /// Addresses of members for clients, host:port with ';' between them: the first one that answers is asked
    #[arg(long, short, global = true, default_value = "127.0.0.1:10911")]
    broker: String,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
}

/// Arguments of `escrowmq group`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the members: who leads, who is there, and how far each is. Any member answers, with a leader or without
    Status,
    /// Take in the empty member that waits at a seat. It gets the log and has no vote until it is promoted
    ///
    /// Start it first: with an empty folder, and with dLegerPeers that name itself and a member of the group. One whose seat is
    /// in dLegerPeers of the leader gets its vote by itself when it has caught up, where that makes the voters an odd number.
    Add {
        /// Seat and address of the new member, as in dLegerPeers: n3-10.0.0.4:40911
        seat: String,
    },
    /// Give a member a vote that has caught up
    Promote {
        /// Seat of the member, such as n3
        seat: String,
    },
    /// Let a member go. It stays out until it is added
    Remove {
        /// Seat of the member, such as n3
        seat: String,
        /// Do not ask before it is done
        #[arg(long, short)]
        yes: bool,
    },
    /// Make a stopped member the only one of its group, because the majority is lost for good
    Recover(recover::Arguments),
    /// Hand the leadership to another member, and say how long that took
    Transfer {
        /// Seat that is to lead. Without it: the voter that has most of the log
        seat: Option<String>,
        /// Only if the member that is asked leads. Otherwise nothing is done, which is a success: for hooks that stop a member
        #[arg(long)]
        if_leading: bool,
    },
}

/// Runs one command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let json = arguments.target.json;
    let text = match block_on(perform(arguments)) {
        Ok(Said::Members(group)) if json => format!("{:#}\n", json!(group)),
        Ok(Said::Members(group)) => status::table(&group),
        Ok(Said::Recovered(recovered)) if json => format!("{:#}\n", recovered.json()),
        Ok(Said::Recovered(recovered)) => recovered.text(),
        Ok(Said::Done(output)) if json => output.json(),
        Ok(Said::Done(output)) => output.table(),
        Err(error) => return failed(&error),
    };
    print!("{text}");
    ExitCode::SUCCESS
}

/// What is printed.
enum Said {
    Members(GroupMembers),
    Recovered(recover::Recovered),
    Done(Output),
}

async fn perform(arguments: &Arguments) -> anyhow::Result<Said> {
    let members = Members::new(&arguments.target.broker);
    let of_seat = |code, seat: &str| Frame::request(code).with_header(&MemberHeader { seat });
    let done = match &arguments.command {
        Command::Status => return Ok(Said::Members(members.ask(Frame::request(request::GET_MEMBERS)).await?)),
        Command::Recover(arguments) => return Ok(Said::Recovered(recover::run(arguments)?)),
        Command::Add { seat } => members.change(of_seat(request::ADD_MEMBER, seat)).await,
        Command::Promote { seat } => members.change(of_seat(request::PROMOTE_MEMBER, seat)).await,
        Command::Remove { seat, yes } => {
            confirm::refuse_if_nobody_can_be_asked(*yes)?;
            let what = format!("remove the member of the seat {seat}, so that the group has one copy less");
            if !yes && !confirm::ask("", &what)? {
                bail!("nothing was done");
            }
            members.change(of_seat(request::REMOVE_MEMBER, seat)).await
        }
        Command::Transfer { seat, if_leading } => {
            if *if_leading {
                let group: GroupMembers = members.ask(Frame::request(request::GET_MEMBERS)).await?;
                let asked = group.answered_by;
                if group.leader.as_ref() != Some(&asked) {
                    return Ok(Said::Done(Output::done(format!("{asked} does not lead the group; nothing was done"))));
                }
            }
            let header = TransferLeaderHeader { seat: seat.as_deref() };
            members.change(Frame::request(request::TRANSFER_LEADER).with_header(&header)).await
        }
    };
    Ok(Said::Done(done?))
}
