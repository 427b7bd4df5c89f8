//! Enforcing: flowgate's datapath between the pods of the stage.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use flowgate_datapath::{Backend, Datapath, EndpointSpec, Options};
use flowgate_lab::Pod;
use flowgate_policy::{inventory::WorkloadRef, plan::Plan};

use crate::{
    failure::Failure,
    report::{Applied, Attached},
    stage::Stage,
};

/// Loads the programs into the kernel. Nothing is attached yet.
pub(crate) fn open(plan: &Plan) -> Result<Datapath, Failure> {
    Ok(Datapath::builder().backend(Backend::Kernel).options(room_for(plan)).open()?)
}

/// Attaches every pod. From here on it is closed, until a plan is applied.
pub(crate) fn attach(datapath: &mut Datapath, stage: &Stage) -> Result<Attached, Failure> {
    let start = Instant::now();
    let mut hooks = BTreeSet::new();
    for (workload, pod) in stage.pods() {
        let attached = datapath.attach(&endpoint(workload, pod))?;
        hooks.insert(attached.hook.to_string());
    }
    let hooks = hooks.into_iter().collect::<Vec<_>>().join(" and ");
    Ok(Attached { endpoints: stage.pods().len(), hooks, took: start.elapsed() })
}

/// Publishes a plan: a packet sees the old one or the new one, nothing between.
pub(crate) fn apply(datapath: &mut Datapath, plan: &Arc<Plan>) -> Result<Applied, Failure> {
    let start = Instant::now();
    let applied = datapath.apply(plan)?;
    Ok(Applied { generation: applied.generation, took: start.elapsed() })
}

/// Tables that hold this plan and, while one takes over from the other, another like it.
pub(crate) fn room_for(plan: &Plan) -> Options {
    let (least, cost) = (Options::default(), plan.cost());
    Options {
        endpoints: least.endpoints.max(cost.endpoints),
        peers: least.peers.max(2 * cost.peers),
        row_cells: least.row_cells.max(2 * cost.row_cells),
        decision_cells: least.decision_cells.max(2 * cost.decision_cells),
        decisions: least.decisions.max(2 * cost.decisions),
        ipcache_nodes: least.ipcache_nodes.max(2 * cost.ipcache_nodes),
        ..least
    }
}

/// The first address of each family is the endpoint's own.
fn endpoint(workload: &WorkloadRef, pod: &Pod) -> EndpointSpec {
    let spec = EndpointSpec::new(workload.clone(), pod.host_interface()).mac(pod.mac().0);
    let own = [4, 6].into_iter().filter_map(|family| pod.address_of(family));
    own.fold(spec, EndpointSpec::address)
}
