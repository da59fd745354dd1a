//! `seeds TARGET FOLDER` writes the recorded inputs of a target into a folder; `seeds` alone names the targets.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => escrowmq_fuzz::names().for_each(|name| println!("{name}")),
        [target, folder] if escrowmq_fuzz::names().any(|name| name == target) => {
            match escrowmq_fuzz::write_seeds(target, Path::new(folder)) {
                Ok(count) => println!("{target}: {count} recorded inputs in {folder}"),
                Err(error) => {
                    eprintln!("{folder}: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
        _ => {
            eprintln!("usage: seeds [TARGET FOLDER]; targets: {}", escrowmq_fuzz::names().collect::<Vec<_>>().join(" "));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
