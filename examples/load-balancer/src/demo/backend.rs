//! A small HTTP server that says its name: a process of its own, so that it can be killed.

use std::{convert::Infallible, io, net::SocketAddr};

use http_body_util::Full;
use hyper::{Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves on all addresses of both families, for ever.
///
/// # Errors
///
/// The port is taken.
pub(crate) fn serve(name: &str, port: u16) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([0_u16; 8], port))).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let body = Bytes::from(name.to_owned());
            tokio::spawn(async move {
                let answer = service_fn(|_| {
                    let response = Response::new(Full::new(body.clone()));
                    async { Ok::<_, Infallible>(response) }
                });
                // Who goes away in between is no concern of the server's.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    })
}
