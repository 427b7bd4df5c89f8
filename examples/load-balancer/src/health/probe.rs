//! Asking one backend one time.
//!
//! Addresses are asked as they are: nothing is resolved, and no proxy of the environment is used.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use super::{Plan, tls};
use crate::config::model::{Http, Probe, Udp};

/// Longer answers are read so far.
const LONGEST_ANSWER: usize = 65_536;

/// Why a check failed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// Nobody answered in time.
    #[error("no answer in time")]
    TimedOut,
    /// The system says why.
    #[error("{0}")]
    Io(String),
    /// TLS or the certificate is wrong.
    #[error("TLS: {0}")]
    Tls(String),
    /// It isn't HTTP.
    #[error("HTTP: {0}")]
    Http(String),
    /// The status is none of the good ones.
    #[error("status {0}")]
    Status(u16),
    /// Another answer was expected.
    #[error("another answer than expected")]
    Unexpected,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind().to_string())
    }
}

/// Asks.
///
/// # Errors
///
/// Why this check counts as failed.
pub async fn ask(plan: &Plan) -> Result<(), Failure> {
    let asked = async {
        match &plan.check.probe {
            Probe::Tcp => connect(plan.address).await.map(drop),
            Probe::Http(http) => request(connect(plan.address).await?, http, plan.address).await,
            Probe::Https(https) => {
                let stream = tls::connect(connect(plan.address).await?, https).await?;
                request(stream, &https.plain(), plan.address).await
            }
            Probe::Udp(udp) => datagram(udp, plan.address).await,
        }
    };
    within(plan.check.timeout, asked).await
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(time, work).await.unwrap_or(Err(Failure::TimedOut))
}

/// Closes by RST: a check leaves nothing in `TIME_WAIT`.
async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_zero_linger()?;
    Ok(socket.connect(address).await?)
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    http: &Http,
    address: SocketAddr,
) -> Result<(), Failure> {
    let wrong = |error: hyper::Error| Failure::Http(error.to_string());
    let host = http.host.clone().unwrap_or_else(|| address.to_string());
    let request = Request::get(&http.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "flowgate-lb")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Http(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(wrong)?;
    // The connection has to be driven while the answer is waited for. It may end with the answer.
    let mut asked = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut asked => answer,
        _ = connection => asked.await,
    };
    let answer = answer.map_err(wrong)?;
    let status = answer.status().as_u16();
    match (http.least_status..=http.most_status).contains(&status) {
        true => Ok(()),
        false => Err(Failure::Status(status)),
    }
}

async fn datagram(udp: &Udp, address: SocketAddr) -> Result<(), Failure> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(&udp.send.0).await?;
    let mut answer = vec![0; LONGEST_ANSWER];
    let length = socket.recv(&mut answer).await?;
    match &udp.expect {
        Some(expected) if !answer[..length].starts_with(&expected.0) => Err(Failure::Unexpected),
        _ => Ok(()),
    }
}
