//! Standard output, whose reader may leave at any time.

use std::io::{self, Write as _};

/// Prints at once. Fails where `print!` would panic.
pub(crate) fn emit(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
