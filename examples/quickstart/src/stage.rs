//! The stage: a node with a network namespace for each pod, and servers in them.

use std::collections::BTreeMap;

use flowgate_lab::{EchoServers, LabError, Node, Pod};
use flowgate_policy::{
    inventory::{Workload, WorkloadRef},
    model::Protocol,
};

use crate::question::{self, Service};

/// A node with running pods. All of it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    // In this order: servers stop before their pods go.
    _servers: Vec<EchoServers>,
    pods: BTreeMap<WorkloadRef, Pod>,
    _node: Node,
}

impl Stage {
    /// Moves this thread into namespaces of its own and builds the pods there.
    ///
    /// Every pod serves every TCP and UDP port that any pod declares: a port on which nobody listens
    /// couldn't tell an allowed connection from a denied one.
    pub(crate) fn build(workloads: &[&Workload]) -> Result<Self, LabError> {
        let mut node = Node::enter()?;
        let (tcp, udp) = ports(workloads);
        let mut pods = BTreeMap::new();
        let mut servers = Vec::new();
        for workload in workloads {
            let pod = node.add_pod(&workload.id.to_string(), &workload.addresses)?;
            servers.push(pod.serve(&tcp, &udp)?);
            pods.insert(workload.id.clone(), pod);
        }
        Ok(Self { _servers: servers, pods, _node: node })
    }

    /// The pod of a workload.
    ///
    /// # Panics
    ///
    /// If the stage was built without it.
    pub(crate) fn pod(&self, workload: &WorkloadRef) -> &Pod {
        &self.pods[workload]
    }

    /// All pods, by name.
    pub(crate) fn pods(&self) -> impl ExactSizeIterator<Item = (&WorkloadRef, &Pod)> {
        self.pods.iter()
    }
}

fn ports(workloads: &[&Workload]) -> (Vec<u16>, Vec<u16>) {
    let services = question::services(workloads);
    let of = |wanted| {
        let ports = services.iter().filter_map(move |service| match *service {
            Service::Port(protocol, port) if protocol == wanted => Some(port),
            _ => None,
        });
        ports.collect()
    };
    (of(Protocol::Tcp), of(Protocol::Udp))
}
