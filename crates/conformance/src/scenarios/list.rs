//! The scenarios by name. What they say is in `scenarios/` of this crate, as data; it is part of the
//! binary, so that it can be had on a machine without the sources.

/// The text of a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) steps: &'static [StepSource],
}

/// The texts of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepSource {
    /// Empty if it is the only step.
    pub(super) name: &'static str,
    pub(super) manifests: &'static str,
    pub(super) expect: &'static str,
    /// Objects of the world that the step defines anew, by the name of their file.
    pub(super) replaced: &'static [(&'static str, &'static str)],
}

macro_rules! text {
    ($($part:expr),+) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/", $($part),+))
    };
}

macro_rules! step {
    ($name:expr, $directory:expr $(, $object:expr)*) => {
        StepSource {
            name: $name,
            manifests: text!($directory, "/manifests.yaml"),
            expect: text!($directory, "/expect.jsonl"),
            replaced: &[$(($object, text!($directory, "/", $object, ".yaml"))),*],
        }
    };
}

macro_rules! scenario {
    ($name:literal) => {
        Source { name: $name, steps: &[step!("", $name)] }
    };
    ($name:literal: $($step:literal $([$($object:literal),+])?),+) => {
        Source {
            name: $name,
            steps: &[$(step!($step, concat!($name, "/", $step) $($(, $object)+)?)),+],
        }
    };
}

macro_rules! world {
    ($($object:literal),+) => {
        &[$(($object, text!("world/", $object, ".yaml"))),+]
    };
}

/// The namespaces and pods of every scenario, by the names of their files.
pub(super) const WORLD: &[(&str, &str)] = world!(
    "namespace-x",
    "namespace-y",
    "namespace-z",
    "pod-x-a",
    "pod-x-b",
    "pod-x-c",
    "pod-y-a",
    "pod-y-b",
    "pod-y-c",
    "pod-z-a",
    "pod-z-b",
    "pod-z-c"
);

pub(super) const SCENARIOS: &[Source] = &[
    scenario!("01-deny-ingress"),
    scenario!("02-deny-both"),
    scenario!("03-from-pods-of-the-namespace"),
    scenario!("04-one-target-among-denied"),
    scenario!("05-from-all-namespaces"),
    scenario!("06-from-a-namespace"),
    scenario!("07-pods-by-expression"),
    scenario!("08-namespaces-by-expression"),
    scenario!("09-pods-or-namespaces"),
    scenario!("10-pods-and-namespaces"),
    scenario!("11-many-pods-and-namespaces"),
    scenario!("12-any-of-several-pods"),
    scenario!("13-one-pod-elsewhere"),
    scenario!("14-ports"),
    scenario!("15-stacked-policies": "1-one", "2-two"),
    scenario!("16-allow-all"),
    scenario!("17-named-port"),
    scenario!("18-named-port-from-a-namespace"),
    scenario!("19-named-port-of-the-other-end"),
    scenario!("20-updated-policy": "1-before", "2-after"),
    scenario!("21-relabelled-namespace": "1-before", "2-after" ["namespace-y"]),
    scenario!("22-relabelled-pod": "1-before", "2-after" ["pod-x-b"], "3-back"),
    scenario!("23-not-from-other-namespaces"),
    scenario!("24-relabelled-target": "1-before", "2-after" ["pod-x-a"]),
    scenario!("25-deny-egress-of-a-pod"),
    scenario!("26-deny-egress-of-a-namespace"),
    scenario!("27-both-directions"),
    scenario!("28-the-client-end-denies"),
    scenario!("29-egress-to-one-pod-elsewhere"),
    scenario!("30-any-port-of-a-protocol"),
    scenario!("31-allow-all-ingress-wins": "1-narrow", "2-all"),
    scenario!("32-allow-all-egress-wins": "1-narrow", "2-all"),
    scenario!("33-deleted-policies": "1-before", "2-one-left", "3-after"),
    scenario!("34-egress-to-a-block"),
    scenario!("35-egress-to-a-block-with-a-hole"),
    scenario!("36-a-hole-filled-by-another-policy": "1-hole", "2-filled"),
    scenario!("37-directions-are-independent": "1-ingress-open", "2-egress-open"),
    scenario!("38-sctp-is-not-tcp"),
    scenario!("39-sctp-isolates"),
    scenario!("40-udp-is-not-tcp"),
    scenario!("41-namespace-by-its-name"),
    scenario!("42-namespace-not-by-its-name"),
    scenario!("43-udp-denied"),
    scenario!("44-udp-port"),
    scenario!("45-udp-from-one-pod-elsewhere"),
    scenario!("46-sctp-denied"),
    scenario!("47-sctp-port"),
    scenario!("48-sctp-from-one-pod-elsewhere"),
    scenario!("49-port-range": "1-beside", "2-both"),
    scenario!("50-egress-port-range"),
    scenario!("51-admin-deny-beats-allow"),
    scenario!("52-admin-accept-beats-isolation"),
    scenario!("53-pass-goes-on-to-the-namespace"),
    scenario!("54-pass-goes-on-to-the-baseline"),
    scenario!("55-baseline-pass-allows"),
    scenario!("56-baseline-deny-loses-to-allow"),
    scenario!("57-baseline-accept-loses-to-isolation"),
    scenario!("58-priorities-0-and-1000": "1-accept-first", "2-deny-first"),
    scenario!("59-baseline-priorities": "1-deny-first", "2-accept-first"),
    scenario!("60-order-of-rules": "1-narrow-first", "2-wide-first"),
    scenario!("61-networks-match-pods"),
    scenario!("62-nodes-are-not-pods"),
    scenario!("63-admin-named-ports"),
    scenario!("64-admin-named-port-of-the-other-end"),
    scenario!("65-admin-port-ranges"),
    scenario!("66-admin-directions-are-apart"),
    scenario!("67-the-other-end-decides-too"),
    scenario!("68-admin-without-rules"),
    scenario!("69-admin-network-policy"),
    scenario!("70-baseline-admin-network-policy"),
    scenario!("71-both-baseline-kinds"),
    scenario!("72-admin-egress-by-protocol"),
    scenario!("73-admin-ingress-by-protocol"),
    scenario!("74-baseline-egress-by-protocol"),
    scenario!("75-baseline-ingress-by-protocol"),
    scenario!("76-both-directions-in-one-policy": "1-as-written", "2-swapped"),
    scenario!("77-baseline-both-directions": "1-as-written", "2-swapped"),
    scenario!("78-pods-as-subject-and-peer"),
    scenario!("79-baseline-pods-as-subject-and-peer"),
    scenario!("80-networks-in-order": "1-narrow-first", "2-wide-first"),
    scenario!("81-baseline-networks"),
    scenario!(
        "82-three-tiers": "1-admin-denies", "2-admin-passes", "3-namespace-silent", "4-nobody-else"
    ),
    scenario!("83-baseline-ports"),
    scenario!("84-one-priority"),
    scenario!("85-baseline-directions-are-apart"),
];
