//! The packages, from packing to purging, with an operator's first day between. `tests/packages` does it, since it is about commands of the system.

use std::path::Path;
use std::process::Command;

use escrowmq_tests::processes::binary;

/// The script's code for "cannot be tried here".
const SKIPPED: i32 = 77;

#[test]
fn packages_are_packed_installed_upgraded_and_purged() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packages");
    let mut command = Command::new(script);
    command.arg(binary("escrowmq").parent().unwrap()).arg(std::env::current_exe().unwrap());
    let output = command.output().unwrap();
    let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(SKIPPED) {
        eprintln!("packages: {told}");
        return;
    }
    assert!(output.status.success(), "{told}{wrong}");
    // The part that needs a Prometheus says so where there is none.
    if !told.contains("EscrowmqLagGrowing cleared") {
        assert!(told.contains("skipped: no prometheus"), "{told}");
        eprintln!("packages: no alert was seen: no Prometheus is installed");
    }
    // It came to its end.
    assert!(told.ends_with("removed with its data kept, and purged\n"), "{told}");
}
