//! A server from its begin to its end.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::server::app::App;
use crate::server::connections::BoundedListener;
use crate::server::error::ServerError;
use crate::server::routes::router;
use crate::server::settings::{ServedModel, ServerSettings};

/// Threads for clients; the decoder has its own.
const CLIENT_THREADS: usize = 2;
/// Between two requests of a client, and for sending one.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// For the last bytes on their way to clients.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    address: SocketAddr,
    runtime: Runtime,
    close: oneshot::Sender<()>,
    connections: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Listens at `address` (port 0: any free one) and begins to serve.
    ///
    /// # Errors
    /// When a setting allows nothing, the address is taken, or the system refuses.
    pub fn start(model: ServedModel, settings: ServerSettings, address: SocketAddr) -> Result<Self, ServerError> {
        let system = |action| move |source| ServerError::System { action, source };
        let runtime = Builder::new_multi_thread().worker_threads(CLIENT_THREADS).enable_all().build();
        let runtime = runtime.map_err(system("starting the server's threads"))?;
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(|source| ServerError::Bind { address, source })?;
        let address = listener.local_addr().map_err(system("asking for the address"))?;
        let app = App::start(model, settings)?;
        // An answer that is not streamed says nothing until it is whole.
        let silence = app.settings.timeout.saturating_add(LONGEST_SILENCE);
        let listener = BoundedListener::new(listener, app.settings.connections, silence);
        let (close, closed) = oneshot::channel();
        let service = axum::serve(listener, router(Arc::clone(&app)));
        let service = service.with_graceful_shutdown(async move { drop(closed.await) });
        let connections = runtime.spawn(service.into_future());
        Ok(Self { app, address, runtime, close, connections })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Positions of a sequence, prompt and answer together.
    pub fn context(&self) -> usize {
        self.app.context
    }

    /// Refuses new requests, waits for the running ones as long as the settings say, and ends. True: all came to their ends.
    pub fn stop(self) -> bool {
        self.end(std::future::pending())
    }

    /// Serves until the system asks for an end (SIGTERM, or Ctrl-C), then as [`stop`](Self::stop); a second signal ends at once.
    /// `draining` is called in between.
    ///
    /// # Errors
    /// When the system gives no signals.
    pub fn run(self, draining: impl FnOnce()) -> Result<bool, ServerError> {
        let mut signals = {
            let _runtime = self.runtime.enter();
            Signals::new().map_err(|source| ServerError::System { action: "listening for signals", source })?
        };
        self.runtime.block_on(signals.next());
        draining();
        Ok(self.end(async move { signals.next().await }))
    }

    fn end(self, at_once: impl Future<Output = ()>) -> bool {
        let Self { app, runtime, close, connections, .. } = self;
        app.drain();
        let drained = runtime.block_on(async {
            tokio::select! {
                () = idle(&app) => true,
                () = sleep(app.settings.drain) => false,
                () = at_once => false,
            }
        });
        // What is left is told that it ends.
        app.queue.abort();
        let _ = close.send(());
        let _ = runtime.block_on(async { timeout(LAST_BYTES, connections).await });
        runtime.shutdown_background();
        drained
    }
}

/// Waits until no request is being answered.
async fn idle(app: &App) {
    while app.metrics.in_flight.value() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
