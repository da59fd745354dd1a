//! The command line of EscrowMQ.

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// EscrowMQ: a transactional message broker that speaks the RocketMQ remoting protocol.
#[derive(Debug, Parser)]
#[command(name = "escrowmq", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See half messages stay hidden, get decided, checked back and delivered, with real processes and real kills
    Demo(demo::Arguments),
    /// The producer process of the demo
    #[command(hide = true)]
    DemoProducer(demo::ProducerArguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DemoProducer(arguments) => demo::run_producer(&arguments),
    }
}
