//! Connections of clients, bounded in number and in the time that nothing is said to them.
//!
//! What must stay true: a client that never sends a whole request cannot stay; a connection that has gone gives its place back.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Takes connections while fewer than a limit are open.
pub(super) struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl BoundedListener {
    /// At most `limit` connections at once; one to which nothing was written for `silence` is closed.
    pub fn new(listener: TcpListener, limit: usize, silence: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))), silence }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Tokens are small and must not wait for each other.
        drop(stream.set_nodelay(true));
        let silence = self.silence;
        (Connection { stream, _place: place, silence, end: Box::pin(sleep(silence)) }, address)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after too long a silence of the server's.
pub(super) struct Connection {
    stream: TcpStream,
    /// Given back when the connection is dropped.
    _place: Option<OwnedSemaphorePermit>,
    silence: Duration,
    end: Pin<Box<Sleep>>,
}

impl Connection {
    /// Moves the end away, for something was said.
    fn said(&mut self, written: &Poll<Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written
            && *count > 0
            && let Some(end) = Instant::now().checked_add(self.silence)
        {
            self.end.as_mut().reset(end);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "nothing was said for too long")));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.said(&written);
        written
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[std::io::IoSlice<'_>]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.said(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
