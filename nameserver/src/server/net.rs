//! Connections for tests of what is keyed by one.

use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::remoting::{Connection, NoRequests, Remote, RemoteOptions, ServeLimits, serve};
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::net::TcpListener;

/// Connections to a server that never asks for anything.
pub(super) struct Net {
    address: SocketAddr,
    remotes: Vec<Remote>,
    _tasks: Tasks,
    shutdown: Shutdown,
}

impl Net {
    pub(super) async fn start() -> Net {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let serving = serve(listener, Arc::new(NoRequests), ServeLimits::default(), shutdown.clone());
        tasks.spawn("serve", serving);
        Net { address, remotes: Vec::new(), _tasks: tasks, shutdown }
    }

    pub(super) async fn connection(&mut self) -> Arc<Connection> {
        let remote = Remote::new(RemoteOptions::default(), Arc::new(NoRequests));
        let connection = remote.connection(&self.address.to_string()).await.unwrap();
        self.remotes.push(remote);
        connection
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
