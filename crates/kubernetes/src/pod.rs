//! `v1` Pod to the inventory.
//!
//! A pod has dozens of fields; those that are not read here are ignored.

use std::sync::Arc;

use flowgate_policy::inventory::{DeclaredPort, Workload, WorkloadRef};

use crate::{
    NameRule,
    field::{Field, Read},
    index::Claim,
    location::ObjectName,
    network_policy::protocol,
    node,
    object::Metadata,
};

pub(crate) struct Pod {
    pub(crate) workload: Workload,
    /// It is Succeeded or Failed, and its address may be another's already.
    pub(crate) finished: bool,
    pub(crate) claims: Vec<Claim>,
}

pub(crate) fn read(object: &Field<'_>, metadata: &Metadata, name: &ObjectName) -> Read<Pod> {
    let spec = object.get("spec")?;
    let status = object.get("status")?;
    let node = string(spec.as_ref(), "nodeName")?;
    let host_network = is_true(spec.as_ref(), "hostNetwork")?;
    let phase = string(status.as_ref(), "phase")?;
    let owner = if host_network { node.as_ref().map(node::owner) } else { Some(name.clone()) };
    let mut claims = addresses(status.as_ref(), owner.as_ref().unwrap_or(name))?;
    let workload = Workload {
        id: WorkloadRef {
            namespace: Arc::clone(&metadata.namespace),
            name: Arc::clone(&metadata.name),
        },
        labels: metadata.labels.clone(),
        addresses: claims.iter().map(|claim| claim.address).collect(),
        ports: spec.as_ref().map_or(Ok(Vec::new()), ports)?,
        node,
        host_network,
    };
    let finished = phase.is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase.as_ref()));
    if finished || owner.is_none() {
        claims.clear();
    }
    Ok(Pod { workload, finished, claims })
}

fn is_true(owner: Option<&Field<'_>>, key: &str) -> Read<bool> {
    let Some(owner) = owner else { return Ok(false) };
    owner.get(key)?.map_or(Ok(false), |field| field.boolean())
}

/// A string that counts as missing where it is empty, as Go's types have it.
fn string(owner: Option<&Field<'_>>, key: &str) -> Read<Option<Arc<str>>> {
    let Some(owner) = owner else { return Ok(None) };
    let Some(field) = owner.get(key)? else { return Ok(None) };
    Ok(Some(Arc::clone(field.string()?)).filter(|text| !text.is_empty()))
}

/// `podIPs`, and `podIP` where it isn't among them.
fn addresses(status: Option<&Field<'_>>, owner: &ObjectName) -> Read<Vec<Claim>> {
    let mut claims = Vec::new();
    let Some(status) = status else { return Ok(claims) };
    for entry in status.list("podIPs")? {
        Claim::add(&mut claims, &entry.require("ip")?, owner.clone())?;
    }
    if let Some(field) = status.get("podIP")?
        && !field.string()?.is_empty()
    {
        Claim::add(&mut claims, &field, owner.clone())?;
    }
    Ok(claims)
}

/// The ports of the containers that run as long as the pod does.
fn ports(spec: &Field<'_>) -> Read<Vec<DeclaredPort>> {
    let mut ports = Vec::new();
    for container in spec.list("initContainers")? {
        let policy = string(Some(&container), "restartPolicy")?;
        if policy.as_deref() == Some("Always") {
            read_ports(&container, &mut ports)?;
        }
    }
    for container in spec.list("containers")? {
        read_ports(&container, &mut ports)?;
    }
    Ok(ports)
}

fn read_ports(container: &Field<'_>, ports: &mut Vec<DeclaredPort>) -> Read<()> {
    for field in container.list("ports")? {
        let name = match field.get("name")? {
            Some(name) if !name.string()?.is_empty() => Some(name.name(NameRule::PortName)?),
            _ => None,
        };
        ports.push(DeclaredPort {
            name: name.cloned(),
            protocol: protocol(&field)?,
            port: field.require("containerPort")?.port_number()?,
        });
    }
    Ok(())
}
