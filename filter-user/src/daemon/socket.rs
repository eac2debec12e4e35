//! The socket at which other verbs of this host get reported packets: the rings have one
//! reader, which is the daemon.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::telemetry::hub::{About, Hub, Message};
use crate::telemetry::live::Live;
use crate::telemetry::source::{Asked, Hello, Line, SOCKET};

/// Readers at a time.
const MOST: usize = 16;
/// How long a reader may take to say what it wants, or to take what it gets.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket, for as long as it is there.
pub(super) struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Begins to serve in the daemon's folder, which is nobody else's.
    pub(super) fn begin(folder: &Path, pin_root: &Path, live: Arc<Live>) -> Result<Self, String> {
        let path = folder.join(SOCKET);
        let bind = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            // Who may not read what goes over the wires is not told it here either.
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().map_err(|error| {
            format!(
                "cannot listen at {}: {error}. Choose another folder with --run-dir.",
                path.display()
            )
        })?;
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pin_root: pin_root.to_owned(),
        };
        let task = tokio::task::spawn_local(accept(listener, hello, live));
        Ok(Self { path, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // The next one takes it away as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, hello: Hello, live: Arc<Live>) {
    // Our own values always serialize.
    let hello = serde_json::to_string(&hello).unwrap_or_default() + "\n";
    let readers = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many files are open, perhaps.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if readers.load(Ordering::Relaxed) >= MOST {
            continue;
        }
        let (readers, live, hello) = (Arc::clone(&readers), Arc::clone(&live), hello.clone());
        readers.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_local(async move {
            // A reader that is gone, or too slow, is gone.
            let _ = serve(stream, &hello, &live.hub).await;
            readers.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve(stream: UnixStream, hello: &str, hub: &Hub) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    write(&mut writer, hello).await?;
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(4096));
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let asked: Asked = serde_json::from_str(&line)?;
    let mut listener = hub.listen(asked.backlog.then_some(0));
    let mut lines = String::new();
    for message in std::mem::take(&mut listener.before) {
        add(&mut lines, &message);
    }
    push(&mut lines, &Line::Now);
    let mut gone = [0];
    loop {
        write(&mut writer, &lines).await?;
        lines.clear();
        tokio::select! {
            message = listener.receiver.recv() => match message {
                Ok(message) => add(&mut lines, &message),
                // Of what kind they were is not known; some were of packets.
                Err(RecvError::Lagged(lost)) => push(&mut lines, &Line::Lost(lost)),
                Err(RecvError::Closed) => return Ok(()),
            },
            // It has nothing more to say.
            read = reader.read(&mut gone) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

fn add(lines: &mut String, message: &Message) {
    match &message.about {
        About::Packet(event) => push(lines, &Line::Event(event.clone())),
        About::Lost(lost) => push(lines, &Line::Lost(lost.lost)),
        About::Stats(_) | About::Policy(_) => {}
    }
}

fn push(lines: &mut String, line: &Line) {
    // Our own values always serialize.
    *lines += &serde_json::to_string(line).unwrap_or_default();
    lines.push('\n');
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    timeout(PATIENCE, writer.write_all(text.as_bytes())).await?
}
