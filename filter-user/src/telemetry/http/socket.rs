//! A socket whose reader has to take something now and then.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes that the kernel holds for a reader that does not take them. By itself it would
/// go up to some MiB for each.
const UNREAD: usize = 256 << 10;

/// Who went away without a word answers nothing for so long. A small event now and then
/// never fills the buffer, so the kernel has to notice.
const VANISHED: Duration = Duration::from_mins(1);

/// A socket that is given up when nothing of what is written is taken for a while.
///
/// A connection that waits for its reader is a task of its own and keeps nobody
/// waiting, but it has one of a few places.
pub(super) struct Impatient<S> {
    socket: S,
    patience: Duration,
    /// Since the socket last took something.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S: AsFd> Impatient<S> {
    pub(super) fn new(socket: S, patience: Duration) -> Self {
        // Where the kernel refuses either, its own limits are left.
        setsockopt(&socket, sockopt::SndBuf, &UNREAD).ok();
        let unheard = u32::try_from(VANISHED.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&socket, sockopt::TcpUserTimeout, &unheard).ok();
        Self {
            socket,
            patience,
            waiting: None,
        }
    }
}

impl<S: AsFd> Impatient<S> {
    /// What becomes of a write of these bytes, of which the socket says it is `written`.
    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(cx));
        // The kernel says that there is room only when there is much. To a slow reader
        // a little is given, to one that takes nothing it can't be.
        self.waiting = None;
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Poll::Ready(match send(self.socket.as_fd().as_raw_fd(), bytes, flags) {
            Ok(written) => Ok(written),
            Err(Errno::EAGAIN) => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error.into()),
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, bytes, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        let first = parts.iter().find(|part| !part.is_empty());
        self.judge(cx, first.map_or(&[], |part| part), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let patience = Duration::from_millis(200);
        let mut ours = Impatient::new(ours, patience);
        let began = Instant::now();
        let all = vec![0; 64 << 20];
        let error = ours.write_all(&all).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= patience);
        drop(theirs);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_that_takes_something_has_time() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let mut ours = Impatient::new(ours, Duration::from_millis(400));
        // 64 KiB in 100 ms: the kernel says after more than 400 ms that there is room.
        let all = vec![0; 20 << 16];
        let reader = tokio::spawn(async move {
            let mut read = 0;
            let mut part = vec![0; 1 << 16];
            while read < 20 << 16 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                theirs.readable().await.expect("a socket");
                read += theirs.try_read(&mut part).unwrap_or(0);
            }
        });
        ours.write_all(&all).await.expect("it is read");
        reader.await.expect("all is read");
    }
}
