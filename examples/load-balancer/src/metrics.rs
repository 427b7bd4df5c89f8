//! Metrics for Prometheus: [`encode`] writes them, [`serve`] hands them out over HTTP.
//!
//! Not here: what they are made of ([`crate::balancer`]). Names are listed in the operators' guide.

use std::{convert::Infallible, fmt, net::SocketAddr};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tracing::debug;

use crate::{
    api::answer,
    health::Health,
    plane::{Counts, SourceCounts},
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PREFIX: &str = "flowgate_lb";

/// What metrics are made of.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was counted.
    pub counts: Counts,
    /// How backends are.
    pub backends: Vec<answer::Backend>,
    /// The file was refused when it was last read.
    pub refused: bool,
}

/// Writes them in the format of `OpenMetrics`.
///
/// # Errors
///
/// None that a string has.
pub fn encode(measured: Measured) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(measured));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

type Labels = Vec<(&'static str, String)>;

impl Collector for Measured {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let to = &mut encoder;
        let backend = |value: fn(&crate::plane::BackendCounts) -> u64| {
            let services = self.counts.services.iter();
            services.flat_map(move |service| {
                service.backends.iter().map(move |one| {
                    let labels = vec![
                        ("service", service.name.to_string()),
                        ("backend", one.address.to_string()),
                    ];
                    (labels, value(one))
                })
            })
        };
        counters(to, "packets", "Packets sent to a backend", backend(|one| one.packets))?;
        counters(to, "bytes", "Bytes of IP packets sent to a backend", backend(|one| one.bytes))?;
        counters(to, "flows", "Flows opened at a backend", backend(|one| one.opened))?;
        let help = "Flows that were remembered because backends changed";
        counters(to, "remembered_flows", help, backend(|one| one.remembered))?;
        let drops = self.counts.drops.iter();
        let drops = drops.map(|(reason, packets)| (vec![("reason", reason.clone())], *packets));
        counters(to, "dropped_packets", "Packets dropped", drops)?;
        let unpinned = std::iter::once((Labels::new(), self.counts.unpinned));
        let help = "Packets whose clients found no room to be remembered by affinity";
        counters(to, "unpinned_packets", help, unpinned)?;
        let by_id = |(what, packets): (&str, u64)| (vec![("id", what.to_owned())], packets);
        let quic = self.counts.quic.map(by_id);
        let help = "Packets of services with quic, by whether their connection id names a backend";
        counters(to, "quic_packets", help, quic.into_iter())?;
        let tcp = self.counts.tcp.map(by_id);
        let help = "Packets of services with tcp_option, by whether their option names a backend";
        counters(to, "tcp_packets", help, tcp.into_iter())?;
        let help = "Packets whose flows found no room to be remembered while backends change";
        let services = self.counts.services.iter();
        let refused = services.map(|one| (vec![("service", one.name.to_string())], one.refused));
        counters(to, "refused_flows", help, refused)?;
        self.of_services(to)?;
        self.of_backends(to)?;
        self.of_sources(to)?;
        let refused = std::iter::once((Labels::new(), i64::from(self.refused)));
        gauges(to, "config_refused", "Whether the file was refused when it was last read", refused)
    }
}

impl Measured {
    fn of_services(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let service = |value: fn(&crate::plane::ServiceCounts) -> i64| {
            let services = self.counts.services.iter();
            services.map(move |one| (vec![("service", one.name.to_string())], value(one)))
        };
        let tracked = service(|one| i64::try_from(one.tracked).unwrap_or(i64::MAX));
        gauges(to, "tracked_flows", "Flows remembered while backends change", tracked)?;
        let pinned = service(|one| i64::try_from(one.pinned).unwrap_or(i64::MAX));
        gauges(to, "pinned_clients", "Clients remembered by affinity", pinned)?;
        gauges(to, "slots", "Slots of the table", service(|one| one.slots.into()))?;
        gauges(
            to,
            "moving_slots",
            "Slots on their way to another backend",
            service(|one| one.moving_slots.into()),
        )?;
        gauges(
            to,
            "pending_slots",
            "Slots whose new flows still go to the former backend",
            service(|one| one.pending_slots.into()),
        )
    }

    fn of_sources(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let source = |value: fn(&SourceCounts) -> usize| {
            let sources = self.counts.sources.iter();
            sources.map(move |one| {
                let labels = vec![("source", one.address.to_string())];
                (labels, i64::try_from(value(one)).unwrap_or(i64::MAX))
            })
        };
        gauges(to, "nat_ports", "Ports of a source", source(|one| one.ports))?;
        gauges(to, "nat_taken_ports", "Ports of a source that are taken", source(|one| one.taken))?;
        let retired = source(|one| one.retired.into());
        gauges(to, "nat_retired", "Whether a source gets no new flows any more", retired)
    }

    fn of_backends(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labels = |one: &answer::Backend| {
            vec![("service", one.service.clone()), ("backend", one.address.to_string())]
        };
        let checked = self.backends.iter().filter_map(|one| Some((one, one.health?)));
        let up = checked.map(|(one, health)| (labels(one), i64::from(health != Health::Down)));
        gauges(to, "backend_up", "Whether the checks of a backend succeed", up)?;
        let active =
            self.backends.iter().map(|one| (labels(one), i64::from(one.state == "active")));
        gauges(to, "backend_active", "Whether a backend gets new flows", active)
    }
}

fn counters(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, i64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Somebody wants to have the metrics, as text.
pub type Wanted = oneshot::Sender<String>;

/// Serves `/metrics` until the receiver of `wanted` is gone.
pub async fn serve(listener: TcpListener, wanted: mpsc::Sender<Wanted>) {
    while !wanted.is_closed() {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let wanted = wanted.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, wanted.clone()));
            // A client has some time for its request, and for no more than one.
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).keep_alive(false);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
                debug!(%peer, %error, "a reader of metrics is gone");
            }
        });
    }
}

/// Listens.
///
/// # Errors
///
/// The address is taken, or isn't ours.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn answer(
    request: Request<Incoming>,
    wanted: mpsc::Sender<Wanted>,
) -> Result<Response<Full<hyper::body::Bytes>>, Infallible> {
    let status = |status: StatusCode| {
        let mut response = Response::new(Full::from(status.to_string()));
        *response.status_mut() = status;
        Ok(response)
    };
    if request.uri().path() != "/metrics" {
        return status(StatusCode::NOT_FOUND);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let (reply, text) = oneshot::channel();
    let _ = wanted.send(reply).await;
    let Ok(text) = text.await else { return status(StatusCode::SERVICE_UNAVAILABLE) };
    let mut response = Response::new(Full::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(OPEN_METRICS));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::plane::{BackendCounts, ServiceCounts};

    fn counts(address: IpAddr) -> Counts {
        let counted = BackendCounts { address, packets: 3, bytes: 180, opened: 1, remembered: 16 };
        let service = ServiceCounts {
            name: "web".into(),
            slots: 251,
            moving_slots: 7,
            pending_slots: 3,
            tracked: 2,
            refused: 17,
            pinned: 6,
            backends: vec![counted],
        };
        let source = SourceCounts {
            address: [198, 18, 9, 1].into(),
            retired: true,
            ports: 31_744,
            taken: 12,
        };
        Counts {
            services: vec![service],
            drops: vec![("no backend".into(), 5)],
            sources: vec![source],
            unpinned: 7,
            quic: [("named", 8), ("opening", 9), ("unknown", 10)],
            tcp: [("named", 13), ("unnamed", 14), ("unknown", 15)],
        }
    }

    #[test]
    fn every_number_has_its_line() {
        let address = [198, 18, 0, 1].into();
        let backend = answer::Backend {
            service: "web".into(),
            address,
            weight: 1,
            state: "quarantined".into(),
            health: Some(Health::Down),
            since: None,
            failure: None,
        };
        let text =
            encode(Measured { counts: counts(address), backends: vec![backend], refused: true })
                .unwrap();
        let labels = "{service=\"web\",backend=\"198.18.0.1\"}";
        for line in [
            format!("flowgate_lb_packets_total{labels} 3"),
            format!("flowgate_lb_bytes_total{labels} 180"),
            format!("flowgate_lb_flows_total{labels} 1"),
            format!("flowgate_lb_remembered_flows_total{labels} 16"),
            "flowgate_lb_refused_flows_total{service=\"web\"} 17".into(),
            "flowgate_lb_dropped_packets_total{reason=\"no backend\"} 5".into(),
            "flowgate_lb_unpinned_packets_total 7".into(),
            "flowgate_lb_quic_packets_total{id=\"opening\"} 9".into(),
            "flowgate_lb_tcp_packets_total{id=\"unnamed\"} 14".into(),
            "flowgate_lb_pinned_clients{service=\"web\"} 6".into(),
            "flowgate_lb_tracked_flows{service=\"web\"} 2".into(),
            "flowgate_lb_slots{service=\"web\"} 251".into(),
            "flowgate_lb_moving_slots{service=\"web\"} 7".into(),
            "flowgate_lb_pending_slots{service=\"web\"} 3".into(),
            format!("flowgate_lb_backend_up{labels} 0"),
            format!("flowgate_lb_backend_active{labels} 0"),
            "flowgate_lb_nat_ports{source=\"198.18.9.1\"} 31744".into(),
            "flowgate_lb_nat_taken_ports{source=\"198.18.9.1\"} 12".into(),
            "flowgate_lb_nat_retired{source=\"198.18.9.1\"} 1".into(),
            "flowgate_lb_config_refused 1".into(),
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let guide = include_str!("../../../docs/load-balancer-operators.md");
        let names = text.lines().filter(|line| !line.starts_with('#'));
        for name in names.filter_map(|line| line.split(['{', ' ']).next()) {
            assert!(guide.contains(&format!("| `{name}` |")), "the guide doesn't have {name}");
        }
    }
}
