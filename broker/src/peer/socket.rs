//! How the sockets between members are set.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::hello::Lane;

/// Silence after which the system asks whether the other side is still there, and between its questions.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_COUNT: u32 = 3;

/// How long sent bytes may stay unacknowledged before the system calls the connection dead.
///
/// Small messages are acknowledged at once by a machine that is there. On the other lanes the other side may stop
/// reading for as long as its disk takes, and the system counts that, too. A path that is dead takes all lanes with it
/// once the pulse shows it.
fn unacknowledged_max(lane: Lane) -> Duration {
    match lane {
        Lane::Pulse => Duration::from_secs(3),
        Lane::Append | Lane::Forward | Lane::Fetch | Lane::Group => Duration::from_secs(30),
    }
}

/// Sends small frames at once, and notices when the other side is gone.
pub(super) fn prepare(stream: &TcpStream, lane: Lane) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_COUNT)?;
    let milliseconds = u32::try_from(unacknowledged_max(lane).as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    Ok(())
}

/// Whether an error says that the other side was silent for too long.
pub(super) fn is_dead_path(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}
