//! Kubernetes manifests and API objects to typed models, strictly.
//!
//! What is read is what `kubectl apply` takes and what `kubectl get -o yaml` or `-o json` prints:
//! YAML with any number of documents, JSON with any number of objects, `kind: List` and typed
//! lists. A mistake is an error that points at file, document and field; nothing is guessed.
//!
//! Not here: deciding about traffic (`flowgate-policy`), and watching an API server. Invariants: a
//! read that fails changes nothing, and a policy that isn't understood in full is never loaded in
//! part.
//!
//! | kind | fields read |
//! |---|---|
//! | Namespace `v1` | `metadata.name`, `metadata.labels` |
//! | Node `v1` | `metadata.name`, `metadata.labels`, `status.addresses` (`InternalIP` and `ExternalIP`) |
//! | Pod `v1` | `metadata.name`, `.namespace`, `.labels`; `spec.nodeName`, `spec.hostNetwork`, `spec.containers[].ports[]`, the same of `spec.initContainers[]` with `restartPolicy: Always`; `status.phase`, `status.podIPs`, `status.podIP` |
//! | `NetworkPolicy` `networking.k8s.io/v1` | `metadata.name`, `.namespace`; `spec.podSelector`, `.policyTypes`, `.ingress[]` (`from`, `ports`), `.egress[]` (`to`, `ports`); of peers `podSelector`, `namespaceSelector`, `ipBlock` (`cidr`, `except`); of ports `protocol`, `port`, `endPort`. An unknown field is an error |
//! | `ClusterNetworkPolicy` `policy.networking.k8s.io/v1alpha2` | `metadata.name`; `spec.tier`, `.priority`, `.subject`, `.ingress[]` (`name`, `action`, `from`, `protocols`), `.egress[]` (`to` in place of `from`); of subjects and peers `namespaces` and `pods`, of egress peers also `nodes`, `networks`, `domainNames`; of protocols `tcp`, `udp`, `sctp`, `destinationNamedPort`. An unknown field is an error, and so is a namespace |
//! | `AdminNetworkPolicy` `policy.networking.k8s.io/v1alpha1` | the same without `tier`, with the action `Allow` for `Accept`, and `ports` (`portNumber`, `portRange`, `namedPort`) for `protocols` |
//! | `BaselineAdminNetworkPolicy` `policy.networking.k8s.io/v1alpha1` | the same without `priority`, `Pass` and `domainNames`; `metadata.name` is `default` |
//! | [`FlowgatePolicy`](flowgate_policy) `policy.flowgate.dev/v1alpha1` | flowgate's own: what NetworkPolicy says, and denials, nodes, entities, ICMP types, protocols, modes. An unknown field is an error |
//! | [`FlowgateNodePolicy`](flowgate_policy) `policy.flowgate.dev/v1alpha1` | the same about nodes, by `spec.nodeSelector`; an object of the cluster |
//! | `CiliumNetworkPolicy`, `CiliumClusterwideNetworkPolicy` `cilium.io/v2` | what they say of addresses and ports. A field that flowgate can't honour is an error |
//!
//! Of pods, nodes and namespaces the other fields are ignored, and those that are read must have
//! the right type. A policy of another API (Calico, Antrea) is an error,
//! because leaving it out would change what is allowed. Any other kind is a [`Warning`].
//! `docs/policies.md` says what each kind of policy means, and where one differs from its original.
//!
//! Defaults are those of the API server. Without `policyTypes` a policy is about ingress, and about
//! egress if it has an egress rule; `egress: []` alone isolates nothing there, and a [`Warning`]
//! says so. A rule without `from` or `to` means every peer, one without `ports` every port, and a
//! port without `protocol` means TCP.
//!
//! ClusterNetworkPolicy and the two kinds before it keep the limits of their definitions. A
//! BaselineAdminNetworkPolicy comes behind the baseline tier of ClusterNetworkPolicy. Rules by domain
//! names match nothing, and policies of one tier and priority that may contradict each other leave it
//! open which one counts: of both a [`Warning`] tells.
//!
//! A missing namespace is `default`; a namespace that only occurs in other objects exists with the
//! label `kubernetes.io/metadata.name` alone; a node that only occurs in `spec.nodeName` exists
//! without labels. Pods that are Succeeded or Failed are left out. Addresses are assigned by a call
//! of its own, [`Manifests::assign_addresses`].
//!
//! YAML is read as version 1.2. Kubernetes reads an unquoted `yes`, `no`, `on` or `off` as a boolean:
//! such a string is kept, and a warning says to quote it. Merge keys (`<<`), duplicate keys and
//! tags other than `!!str` are errors; anchors and aliases work.
//!
//! Tested by a table over the semantics and one over the errors, and by a property: no text makes
//! the reader panic.
//!
//! ```
//! use flowgate_kubernetes::{AddressRanges, Manifests};
//!
//! let mut manifests = Manifests::default();
//! manifests.read("shop.yaml", r#"
//! apiVersion: v1
//! kind: Pod
//! metadata: { name: web, namespace: shop, labels: { app: web } }
//! ---
//! apiVersion: networking.k8s.io/v1
//! kind: NetworkPolicy
//! metadata: { name: closed, namespace: shop }
//! spec: { podSelector: {} }
//! "#)?;
//! manifests.assign_addresses(&AddressRanges::default())?;
//!
//! assert_eq!(manifests.inventory.workloads[0].addresses[0].to_string(), "198.18.128.1");
//! assert_eq!(manifests.policies[0].id.to_string(), "NetworkPolicy/shop/closed");
//!
//! let error = manifests.read("typo.yaml", r#"
//! apiVersion: networking.k8s.io/v1
//! kind: NetworkPolicy
//! metadata: { name: open }
//! spec: { podSelector: {}, ingres: [{}] }
//! "#).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "typo.yaml: document 1 (NetworkPolicy/default/open): spec.ingres: unknown field (line 5)",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod addresses;
mod cilium;
mod cluster_policy;
mod entity;
mod error;
mod field;
pub mod flowgate_policy;
mod index;
mod json;
mod location;
mod manifests;
mod names;
mod network_policy;
mod node;
mod object;
mod places;
mod pod;
mod schema;
mod selector;
mod tree;
mod warning;
mod yaml;

pub use addresses::{AddressRanges, AssignError};
pub use error::{ManifestError, Reason};
pub use location::{Location, ObjectName};
pub use manifests::Manifests;
pub use names::NameRule;
pub use warning::Warning;
