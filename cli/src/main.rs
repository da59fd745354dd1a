//! The command line of EscrowMQ.

mod admin;
mod backup;
mod bench;
mod broker;
mod cluster;
mod completions;
mod confirm;
mod demo;
mod doctor;
mod ending;
mod fsck;
mod group;
mod outbox;
mod processes;
mod progress;
mod standalone;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// EscrowMQ: a transactional message broker that speaks the RocketMQ remoting protocol.
#[derive(Debug, Parser)]
#[command(name = "escrowmq", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a nameserver and a broker in one process
    Standalone(standalone::Arguments),
    /// Ask a cluster, and change it
    Admin(admin::Arguments),
    /// Transactions that are open or parked: list, show, count, watch, commit, roll back, resume
    Txn(admin::txn::Arguments),
    /// The members of a broker's group: status, add, promote, remove, transfer, recover
    Group(group::Arguments),
    /// A running broker: what it logs
    Broker(broker::Arguments),
    /// Look at the machine and the data folder of a broker, and say what would hurt, with the remedy
    Doctor(doctor::Arguments),
    /// Messages that wait in a database: list, show, requeue, discard, watch
    Outbox(outbox::Arguments),
    /// Load a broker, this one or another that speaks the protocol, and measure it
    Bench(bench::Arguments),
    /// Look at the data of a stopped broker, name what is damaged, and repair it
    Fsck(fsck::Arguments),
    /// Copy the data of a broker, running or stopped, into a folder of backups
    Backup(backup::BackupArguments),
    /// Make a broker's data folder out of a backup
    Restore(backup::RestoreArguments),
    /// See half messages stay hidden, get decided, checked back and delivered, with real processes and real kills
    Demo(demo::Arguments),
    /// Run 2 nameservers and 2 groups of 3 brokers on this machine, watch them, and kill some of them
    Cluster(cluster::Arguments),
    /// Print completions for a shell
    Completions(completions::Arguments),
    /// Write manual pages and completions into a folder: packages bring them along
    #[command(hide = true)]
    Generate(completions::GenerateArguments),
    /// The producer process of the demo
    #[command(hide = true)]
    DemoProducer(demo::ProducerArguments),
}

fn main() -> ExitCode {
    // The files written here, data folders and backups, hold messages: nobody else may read them.
    escrowmq_broker::limits::restrict_new_files();
    match Arguments::parse().command {
        Command::Standalone(arguments) => standalone::run(arguments),
        Command::Admin(arguments) => admin::run(&arguments),
        Command::Txn(arguments) => admin::txn::run(&arguments),
        Command::Group(arguments) => group::run(&arguments),
        Command::Broker(arguments) => broker::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Outbox(arguments) => outbox::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Fsck(arguments) => fsck::run(&arguments),
        Command::Backup(arguments) => backup::run_backup(&arguments),
        Command::Restore(arguments) => backup::run_restore(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, &mut Arguments::command()),
        Command::Generate(arguments) => completions::generate(&arguments, Arguments::command()),
        Command::DemoProducer(arguments) => demo::run_producer(&arguments),
    }
}
