//! Asking one backend one time, directly or through its tunnel.
//!
//! Addresses are asked as they are: nothing is resolved, and no proxy of the environment is used.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use flowgate_datapath::health::{Check, CheckError, Checks, UnderWay};
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
    /// It should have been asked through a tunnel, and that can't be done.
    #[error("not through the tunnel: {0}")]
    NoTunnel(String),
    /// It was asked directly instead.
    #[error(
        "not through the tunnel: packets to the backend leave by an interface that isn't listed in `interfaces`; list it, or write `path: direct`"
    )]
    Elsewhere,
    /// Another answer was expected.
    #[error("another answer than expected")]
    Unexpected,
}

impl From<io::Error> for Failure {
    /// By the kind of error, which is short; what has none, such as "protocol not available", in the system's words.
    fn from(error: io::Error) -> Self {
        let kind = error.kind().to_string();
        let has_none = kind == "uncategorized error";
        Self::Io(if has_none { error.to_string() } else { kind })
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        Self::NoTunnel(error.to_string())
    }
}

/// Asks; `tunnels` has packets go through them, and is needed if the plan has one.
///
/// # Errors
///
/// Why this check counts as failed.
pub async fn ask(plan: &Plan, tunnels: Option<&Checks>) -> Result<(), Failure> {
    let asked = async {
        match &plan.check.probe {
            Probe::Udp(udp) => {
                let (socket, under_way) = udp_socket(plan, tunnels).await?;
                datagram(udp, plan.address, socket).await?;
                arrived(under_way)
            }
            probe => {
                let (socket, under_way) = tcp_socket(plan, tunnels)?;
                over_tcp(probe, plan.address, socket).await?;
                arrived(under_way)
            }
        }
    };
    within(plan.check.timeout, asked).await
}

/// Whoever is asked through a tunnel was reached through it.
fn arrived(under_way: Option<UnderWay>) -> Result<(), Failure> {
    match under_way.map(|check| check.sent()).transpose() {
        Ok(Some(false)) => Err(Failure::Elsewhere),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::NoTunnel(error.to_string())),
    }
}

/// What is sent from a port goes through the plan's tunnel, if it has one.
fn through(
    plan: &Plan,
    tunnels: Option<&Checks>,
    own: SocketAddr,
) -> Result<Option<UnderWay>, Failure> {
    let Some(tunnel) = &plan.tunnel else { return Ok(None) };
    let Some(tunnels) = tunnels else {
        return Err(Failure::NoTunnel("this load balancer has none for checks".to_owned()));
    };
    let check = Check {
        service: &tunnel.service,
        backend: &tunnel.backend,
        destination: tunnel.destination,
        uplink: &tunnel.uplink,
    };
    let is_udp = matches!(plan.check.probe, Probe::Udp(_));
    Ok(Some(tunnels.begin(&check, own.port(), is_udp)?))
}

/// Any address of this host, and any port.
const fn any(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(time, work).await.unwrap_or(Err(Failure::TimedOut))
}

/// Closes by RST: a check leaves nothing in `TIME_WAIT`. A bound socket has its port for itself.
fn tcp_socket(
    plan: &Plan,
    tunnels: Option<&Checks>,
) -> Result<(TcpSocket, Option<UnderWay>), Failure> {
    let is_v4 = plan.address.is_ipv4();
    let socket = if is_v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_zero_linger()?;
    if plan.tunnel.is_some() {
        socket.bind(any(plan.address))?;
    }
    let under_way = through(plan, tunnels, socket.local_addr()?)?;
    Ok((socket, under_way))
}

/// The stream is closed when this returns.
async fn over_tcp(probe: &Probe, address: SocketAddr, socket: TcpSocket) -> Result<(), Failure> {
    let stream: TcpStream = socket.connect(address).await?;
    match probe {
        Probe::Http(http) => request(stream, http, address).await,
        Probe::Https(https) => {
            let stream = tls::connect(stream, https).await?;
            request(stream, &https.plain(), address).await
        }
        _ => Ok(()),
    }
}

async fn udp_socket(
    plan: &Plan,
    tunnels: Option<&Checks>,
) -> Result<(UdpSocket, Option<UnderWay>), Failure> {
    let socket = UdpSocket::bind(any(plan.address)).await?;
    let under_way = through(plan, tunnels, socket.local_addr()?)?;
    Ok((socket, under_way))
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

async fn datagram(udp: &Udp, address: SocketAddr, socket: UdpSocket) -> Result<(), Failure> {
    socket.connect(address).await?;
    socket.send(&udp.send.0).await?;
    let mut answer = vec![0; LONGEST_ANSWER];
    let length = socket.recv(&mut answer).await?;
    match &udp.expect {
        Some(expected) if !answer[..length].starts_with(&expected.0) => Err(Failure::Unexpected),
        _ => Ok(()),
    }
}
