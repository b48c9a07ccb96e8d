//! The listeners: connections with bounds, and a stop that loses no message.

mod patience;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{body::Body, extract::State, response::Response};
use hyper::{
    Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, error, info, warn};

use self::patience::Patient;
use crate::{
    app::App,
    config,
    late::{self, fetch},
    web,
};

/// How long to wait when the system has no more sockets to give.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is done, then lets what is in flight finish: first the open requests, then the calls whose
/// request is gone.
pub async fn run(app: Arc<App>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let settings = app.live().config.listener.clone();
    let public = {
        let app = app.clone();
        service_fn(move |request: Request<Incoming>| {
            let answer = web::handle(State(app.clone()), request.map(Body::new));
            async { Ok::<_, Infallible>(answer.await) }
        })
    };
    let graceful = GracefulShutdown::new();
    late::resume::all(&app).await;
    tokio::select! {
        () = accept(&listener, &settings, &public, &graceful) => {}
        () = late::upkeep(&app) => {}
        () = shutdown => {}
    }
    drop(listener);
    match (app.tasks.len(), app.ending.len()) {
        (0, 0) => info!("Stopping"),
        (in_flight, ending) => info!(
            "Stopping: {in_flight} messages are in flight, and {ending} replies wait for a try or are being written down"
        ),
    }
    app.stopping.cancel();
    app.tasks.close();
    app.ending.close();
    let drained = async {
        graceful.shutdown().await;
        app.tasks.wait().await;
        app.ending.wait().await;
    };
    if timeout(settings.shutdown, drained).await.is_err() {
        leave(&app, settings.shutdown).await;
    }
    app.close().await;
}

/// Waits until the next host can go on with what was not finished within `shutdown`.
async fn leave(app: &App, shutdown: Duration) {
    // Some of the one are of the other, too.
    let unfinished = app.tasks.len().max(app.ending.len());
    app.leaving.close();
    let left = async { tokio::join!(app.leaving.wait(), app.ending.wait()) };
    match timeout(fetch::WRITE_TAKES_MAX, left).await {
        Ok(_) if unfinished == 0 => info!("Stopped after {shutdown:?}, with connections still open"),
        Ok(_) => warn!("Stopped after {shutdown:?}; {unfinished} messages are left to the next host"),
        Err(_) => {
            error!("Stopped after {shutdown:?}; {unfinished} messages are unfinished, and not all are written down")
        }
    }
}

/// Where connections come from.
pub(crate) trait Source {
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// Takes the next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Source for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // A reply is one small write; nothing is gained by waiting for more of it.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// What answers the requests of one connection after the other.
pub(crate) trait Answering:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<T> Answering for T where
    T: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// Takes connections, each with the bounds of `settings`, for as long as it is polled.
pub(crate) async fn accept(
    source: &impl Source,
    settings: &config::Listener,
    service: &impl Answering,
    graceful: &GracefulShutdown,
) {
    let connections = Arc::new(Semaphore::new(settings.connections_max));
    loop {
        // The next caller waits in the system's queue until there is room.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match source.next().await {
            Ok(stream) => {
                let connection = graceful.watch(serve(stream, settings, service.clone()));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!("A connection ended early: {error}");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!("A connection was not accepted: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// How long a caller may take to read more of an answer. WeChat is gone by then; who reads nothing must not hold a
/// connection for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

fn serve<S: AsyncRead + AsyncWrite + Send + 'static, A: Answering>(
    stream: S,
    settings: &config::Listener,
    service: A,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<S, A> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let stream = Patient::new(stream, settings);
    let progress = stream.progress();
    let service = service_fn(move |request| {
        progress.asked();
        // hyper moves the future of an answer about before it polls it: in a box that is a pointer.
        let (progress, answer) = (progress.clone(), Box::pin(service.call(request)));
        async move {
            let answer = answer.await;
            progress.answered();
            answer
        }
    });
    hyper::server::conn::http1::Builder::new()
        // A larger header is answered 431. hyper's own bound, 400 KiB for each connection, is for browsers.
        .max_buf_size(settings.header_bytes_max)
        .serve_connection(TokioIo::new(stream), service)
}
