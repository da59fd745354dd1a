//! A way to a server that can be shut: what is under way then waits, and goes on when it is opened. Its connections stay.

use std::io;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Ends, and closes its connections, when it is dropped.
#[derive(Debug)]
pub struct Valve {
    folder: tempfile::TempDir,
    is_open: watch::Sender<bool>,
    end: Shutdown,
}

impl Valve {
    /// Open, in front of the server that listens on this Unix socket: on a socket of the same name in a folder of its own.
    ///
    /// # Panics
    ///
    /// If the system is short of something.
    pub fn before(server: &Path) -> Valve {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = folder.path().join(server.file_name().expect("a socket has a name"));
        let listener = UnixListener::bind(own).expect("a new socket");
        let (is_open, opened) = watch::channel(true);
        let (tasks, end) = (Tasks::new(), Shutdown::new());
        let (all, ended, server) = (tasks.clone(), end.clone(), server.to_owned());
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                for (from, to) in [(from_client, to_server), (from_server, to_client)] {
                    let opened = opened.clone();
                    all.spawn("valve connection", async move {
                        // One end has closed: so does the other.
                        let _ = carry(from, to, opened).await;
                    });
                }
            }
        };
        tasks.spawn("valve", async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = accept => {}
            }
        });
        Valve { folder, is_open, end }
    }

    /// The folder that its socket is in.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Nothing passes from now on.
    pub fn shut(&self) {
        self.is_open.send_replace(false);
    }

    /// What waits passes, and what comes.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_open: watch::Receiver<bool>) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(1 << 16);
    // The valve is gone when nobody can open it any more.
    while from.read_buf(&mut buffer).await? > 0 && is_open.wait_for(|open| *open).await.is_ok() {
        to.write_all_buf(&mut buffer).await?;
    }
    Ok(())
}
