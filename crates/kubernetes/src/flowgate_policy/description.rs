//! The fields of flowgate's own kinds: the one description that the reader and the schemas share.

use crate::{
    entity,
    schema::{Alternatives, Object, Property, Shape},
};

/// How long a policy's value for the log may be.
pub(super) const LOG_LIMIT: usize = 64;

/// How long a rule's name may be.
pub(super) const NAME_LIMIT: usize = 100;

pub(super) const ACTIONS: [&str; 2] = ["Allow", "Deny"];
pub(super) const MODES: [&str; 3] = ["Enforce", "Audit", "Staged"];
pub(super) const RESPONSES: [&str; 3] = ["Silence", "ICMP", "Reset"];
pub(super) const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
pub(super) const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

pub(super) static SPEC: Object = Object::of(&[
    Property::new(
        "podSelector",
        "The pods of the policy's namespace of which it speaks. Missing or empty: all of them.",
        Shape::Object(&SELECTOR),
    ),
    Property::new(
        "ingress",
        "What becomes of what others open to these pods. A denial beats an allowance, and the order \
         of the rules makes no difference. Missing: the policy says nothing about it.",
        Shape::List(&Shape::Object(&INGRESS_RULE), true),
    ),
    Property::new(
        "egress",
        "What becomes of what these pods open to others. Like ingress.",
        Shape::List(&Shape::Object(&EGRESS_RULE), true),
    ),
    ISOLATION,
    MODE,
    RESPONSE,
    LOG,
]);

pub(super) static NODE_SPEC: Object = Object::of(&[
    Property::new(
        "nodeSelector",
        "The nodes of which the policy speaks, with the host-network pods on them. Empty: all of them.",
        Shape::Object(&SELECTOR),
    )
    .required(),
    Property::new(
        "ingress",
        "What becomes of what others open to these nodes. A denial beats an allowance, and the order \
         of the rules makes no difference. Missing: the policy says nothing about it.",
        Shape::List(&Shape::Object(&INGRESS_RULE), true),
    ),
    Property::new(
        "egress",
        "What becomes of what these nodes open to others, but not to themselves or to the pods on \
         them. Like ingress.",
        Shape::List(&Shape::Object(&EGRESS_RULE), true),
    ),
    ISOLATION,
    MODE,
    RESPONSE,
    LOG,
]);

const ISOLATION: Property = Property::new(
    "defaultDeny",
    "Whether what no rule of any policy allows is denied, by direction. Missing: it is denied in \
     the directions whose list of rules is there, be it empty.",
    Shape::Object(&DEFAULT_DENY),
);
const MODE: Property = Property::new(
    "mode",
    "Enforce: what the policy denies is dropped. Audit: what would pass without it passes, and is \
     counted and told. Staged: it changes nothing, and told is where it would.",
    Shape::Choice(&MODES, Some("Enforce")),
);
const RESPONSE: Property = Property::new(
    "response",
    "What the sender of a packet that the policy denies is told. Silence: nothing. ICMP: that it is \
     administratively prohibited. Reset: for TCP a reset, for all else as ICMP. Missing: that is left \
     to other policies that deny the same, the quietest of which counts; Silence if there are none.",
    Shape::Choice(&RESPONSES, None),
);
const LOG: Property = Property::new(
    "log",
    "A value for the log of flows that the policy decides about.",
    Shape::Text(1, LOG_LIMIT),
);

pub(super) static DEFAULT_DENY: Object = Object::of(&[
    Property::new("ingress", "For what others open to its subjects.", Shape::Boolean),
    Property::new("egress", "For what its subjects open to others.", Shape::Boolean),
]);

pub(super) const ACTION: Property = Property::new(
    "action",
    "What becomes of what the rule matches.",
    Shape::Choice(&ACTIONS, Some("Allow")),
);
pub(super) static SERVICE_ITEM: Shape = Shape::Object(&SERVICE);
pub(super) const PORTS: Property = Property::new(
    "ports",
    "The destination's services, of which one must match. Missing: all of them.",
    Shape::List(&SERVICE_ITEM, false),
);
pub(super) const NAME: Property =
    Property::new("name", "What the rule is for, to people.", Shape::Text(1, NAME_LIMIT));

pub(super) static INGRESS_RULE: Object = Object::of(&[
    ACTION,
    Property::new(
        "from",
        "The other ends, of which one must match. Missing: all of them.",
        Shape::List(&Shape::Object(&PEER), false),
    ),
    PORTS,
    NAME,
]);

pub(super) static EGRESS_RULE: Object = Object::of(&[
    ACTION,
    Property::new(
        "to",
        "The other ends, of which one must match. Missing: all of them.",
        Shape::List(&Shape::Object(&PEER), false),
    ),
    PORTS,
    NAME,
]);

pub(super) static PEER: Object = Object {
    properties: &[
        Property::new(
            "podSelector",
            "Pods by their labels: of a FlowgatePolicy in its own namespace, of a FlowgateNodePolicy in all, \
             or in those of namespaceSelector.",
            Shape::Object(&SELECTOR),
        ),
        Property::new(
            "namespaceSelector",
            "Namespaces by their labels: all pods in them, or those of podSelector.",
            Shape::Object(&SELECTOR),
        ),
        Property::new(
            "ipBlock",
            "Addresses, those of pods and nodes among them.",
            Shape::Object(&IP_BLOCK),
        ),
        Property::new(
            "nodeSelector",
            "Nodes by their labels, with the host-network pods on them.",
            Shape::Object(&SELECTOR),
        ),
        Property::new(
            "entity",
            "all: every end. world: what is neither pod nor node; world-ipv4 and world-ipv6: of one \
             family. cluster: pods and nodes. host: the subject's own node, with its host-network pods. \
             remote-node: the other nodes. none: no end.",
            Shape::Choice(&entity::NAMES, None),
        ),
    ],
    alternatives: Alternatives::One(&[
        &["podSelector", "namespaceSelector"],
        &["ipBlock"],
        &["nodeSelector"],
        &["entity"],
    ]),
};

pub(super) static IP_BLOCK: Object = Object::of(&[
    Property::new("cidr", "A network, like 192.0.2.0/24 or 2001:db8::/32.", Shape::Text(1, 49))
        .required(),
    Property::new(
        "except",
        "Networks strictly inside of cidr that are left out.",
        Shape::List(&Shape::Text(1, 49), true),
    ),
]);

pub(super) static SERVICE: Object = Object {
    properties: &[
        Property::new(
            "protocol",
            "A protocol with ports. Missing: TCP, unless another protocol is named.",
            Shape::Choice(&PROTOCOLS, None),
        ),
        Property::new(
            "port",
            "A port by number, or by the name that the destination declares. Missing: every port.",
            Shape::Port,
        ),
        Property::new(
            "endPort",
            "The last port of a range that begins with the number in port.",
            Shape::Integer(1, 65535),
        ),
        Property::new("icmp", "ICMP, the one of IPv4.", Shape::Object(&ICMP)),
        Property::new("icmpv6", "ICMPv6.", Shape::Object(&ICMP)),
        Property::new(
            "protocolNumber",
            "A protocol by its IANA number, whatever its ports or types.",
            Shape::Integer(0, 255),
        ),
    ],
    alternatives: Alternatives::AtMostOne(&[
        &["protocol", "port", "endPort"],
        &["icmp"],
        &["icmpv6"],
        &["protocolNumber"],
    ]),
};

pub(super) static ICMP: Object = Object::of(&[Property::new(
    "type",
    "The type of message. Missing: every type.",
    Shape::Integer(0, 255),
)]);

pub(super) static SELECTOR: Object = Object::of(&[
    Property::new("matchLabels", "Labels that must be there, with these values.", Shape::Labels),
    Property::new(
        "matchExpressions",
        "What must hold of labels beside matchLabels.",
        Shape::List(&Shape::Object(&REQUIREMENT), true),
    ),
]);

pub(super) static REQUIREMENT: Object = Object::of(&[
    Property::new("key", "The label's key.", Shape::Text(1, 317)).required(),
    Property::new("operator", "What must hold of its value.", Shape::Choice(&OPERATORS, None))
        .required(),
    Property::new(
        "values",
        "The values of which In and NotIn speak.",
        Shape::List(&Shape::Text(0, 63), true),
    ),
]);
