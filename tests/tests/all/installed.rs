//! The packages, from packing to purging. `tests/packages` does it, since it is about commands of the system.

use std::path::Path;
use std::process::Command;

use escrowmq_tests::processes::binary;

/// The script's code for "cannot be tried here".
const SKIPPED: i32 = 77;

#[test]
fn packages_are_packed_installed_upgraded_and_purged() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packages");
    let output = Command::new(script).arg(binary("escrowmq").parent().unwrap()).output().unwrap();
    let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(SKIPPED) {
        eprintln!("packages: {told}");
        return;
    }
    assert!(output.status.success(), "{told}{wrong}");
    // It came to its end.
    assert!(told.ends_with("removed with its data kept, and purged\n"), "{told}");
}
