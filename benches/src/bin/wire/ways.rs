//! The ways that are measured.

use flowgate_benches::{course::Course, manifests, packets::End, way::Way};
use flowgate_datapath::{Datapath, Delivery, EndpointSpec, HookKind, Options};

use crate::{Result, nft};

/// What others are compared with.
pub(crate) const ROUTING: &str = "routing";
/// Packets of a round, of one flow.
const PACKETS: u32 = 200_000;
/// Packets of all rounds that open a flow each.
const FLOWS: usize = 50_000;

/// A way, and what it costs.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Without which it can't be measured.
    pub(crate) missing: Option<&'static str>,
    /// Nanoseconds per packet.
    pub(crate) samples: Vec<f64>,
    way: Way,
    /// Closed when dropped.
    _datapath: Option<Datapath>,
    course: Course,
    packets: u32,
}

impl Row {
    fn new(name: &'static str, way: Way) -> Result<Self> {
        let course = way.course(1)?;
        let samples = Vec::new();
        let (missing, packets) = (None, PACKETS);
        Ok(Self { name, missing, samples, way, _datapath: None, course, packets })
    }

    /// Every packet of all rounds opens another flow.
    fn opening(mut self, rounds: usize) -> Result<Self> {
        self.course = self.way.course(FLOWS)?;
        self.packets = (FLOWS / rounds) as u32;
        Ok(self)
    }

    /// One round.
    pub(crate) fn measure(&mut self) -> Result<()> {
        if self.missing.is_none() {
            let sample = self.way.send(&mut self.course, self.packets);
            self.samples.push(sample.map_err(|error| format!("{}: {error}", self.name))?);
        }
        Ok(())
    }
}

/// All of them, for so many rounds.
pub(crate) fn rows(rounds: usize) -> Result<Vec<Row>> {
    use Delivery::{Redirect, RedirectPeer, Stack};
    use HookKind::{Clsact, Tcx};
    Ok(vec![
        dropped()?,
        bare("a bare redirect_peer", "tc_redirect_peer")?,
        bare("a bare redirect", "tc_redirect")?,
        flowgate("flowgate, redirect_peer, established", RedirectPeer, Tcx)?,
        flowgate("flowgate, redirect, established", Redirect, Tcx)?,
        flowgate("flowgate, by the stack, established", Stack, Tcx)?,
        flowgate("flowgate, redirect_peer, established, by clsact", RedirectPeer, Clsact)?,
        flowgate("flowgate, redirect_peer, new flows", RedirectPeer, Tcx)?.opening(rounds)?,
        flowgate("flowgate, by the stack, new flows", Stack, Tcx)?.opening(rounds)?,
        Row::new(ROUTING, Way::new()?)?,
        netfilter("routing, conntrack and nftables, established")?,
        netfilter("routing, conntrack and nftables, new flows")?.opening(rounds)?,
    ])
}

fn dropped() -> Result<Row> {
    let mut way = Way::new()?;
    way.sink_at_once()?;
    Row::new("dropped where it comes in", way)
}

fn bare(name: &'static str, program: &'static str) -> Result<Row> {
    let mut way = Way::new()?;
    way.put_at_once(program)?;
    Row::new(name, way)
}

fn flowgate(name: &'static str, delivery: Delivery, hook: HookKind) -> Result<Row> {
    let way = Way::new()?;
    let options = Options { events_per_second: 0, flows4: FLOWS, ..Options::default() };
    let mut datapath = Datapath::builder().options(options).open()?;
    let plan = manifests::compile(&manifests::read(manifests::NODE));
    for planned in plan.endpoints.iter().filter(|p| *p.workload.name != *End::Closed.name()) {
        let pod =
            if *planned.workload.name == *way.client.name() { &way.client } else { &way.server };
        let spec = EndpointSpec::new(planned.workload.clone(), pod.host_interface());
        let spec = planned.addresses.iter().fold(spec, |spec, at| spec.address(*at));
        let _ = datapath.attach(&spec.mac(pod.mac().0).delivery(delivery).hook(hook))?;
    }
    let _ = datapath.apply(&plan)?;
    Ok(Row { _datapath: Some(datapath), ..Row::new(name, way)? })
}

fn netfilter(name: &'static str) -> Result<Row> {
    let way = Way::new()?;
    let loaded = nft::load(&way.client.addresses()[0].to_string())?;
    let missing = if loaded.is_none() { Some("there is no nft") } else { None };
    Ok(Row { missing, ..Row::new(name, way)? })
}
