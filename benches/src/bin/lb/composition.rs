//! What a stage costs that does nothing: the hop to the balancer, and the one behind it.

use flowgate_benches::{
    balanced_rows::{HOT, established, options, services},
    balancing::Rig,
    course::OBJECT,
    sampling::Sample,
    spread::Spread,
};
use flowgate_datapath::lb::{Builder, LoadBalancer, Stage, XdpAction};

use crate::{LOADS, ROUNDS, Result};

/// A way to compose the balancer with stages.
type Compose = fn(Builder) -> Builder;

const CHAINS: [(&str, Compose); 3] = [
    ("none", |builder| builder),
    ("one in front", |builder| builder.before(front())),
    ("one in front, one behind", |builder| builder.before(front()).behind(behind())),
];

fn front() -> Stage {
    Stage::object(OBJECT, "xdp_pass")
}

/// For what goes to backends, which it leaves alone.
fn behind() -> Stage {
    Stage::object(OBJECT, "xdp_bounce").takes(&[XdpAction::Transmit])
}

pub(crate) fn run() -> Result<()> {
    let mut samples: [Vec<Sample>; CHAINS.len()] = Default::default();
    for _ in 0..LOADS {
        let rig = |(_, compose): (_, Compose)| {
            let builder = LoadBalancer::builder().options(options());
            Rig::of(compose(builder), &services(true)?)
        };
        let mut rigs = CHAINS.into_iter().map(rig).collect::<Result<Vec<_>>>()?;
        for _ in 0..ROUNDS {
            for (rig, samples) in rigs.iter_mut().zip(&mut samples) {
                samples.push(measure(rig)?);
            }
        }
    }
    println!("| stages that do nothing | established, ns | least | most |\n|---|--:|--:|--:|");
    for ((name, _), samples) in CHAINS.iter().zip(&samples) {
        println!("| {name} | {} |", Spread::of(samples.iter().map(Sample::net)));
    }
    println!();
    Ok(())
}

/// One round; all packets are balanced.
fn measure(rig: &mut Rig) -> Result<Sample> {
    let before = rig.balanced()?.0;
    let (sample, _) = rig.time(&mut established(), HOT)?;
    match rig.balanced()?.0 - before {
        balanced if balanced == HOT.packets() => Ok(sample),
        balanced => Err(format!("behind stages, {balanced} packets were balanced").into()),
    }
}
