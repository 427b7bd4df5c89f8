//! What Maglev's table promises: shares, little disturbance, and the same table everywhere.

use std::net::{IpAddr, Ipv4Addr};

use flowgate_services::{
    TableSize,
    maglev::{Member, fill},
    model::BackendId,
};
use proptest::prelude::*;

fn id(number: u32) -> BackendId {
    IpAddr::V4(Ipv4Addr::from(0xc612_0000 + number)).into()
}

fn members(weights: &[u16]) -> Vec<Member> {
    (0..).zip(weights).map(|(number, &weight)| Member { id: id(number), weight }).collect()
}

/// For each slot who has it.
fn owners(members: &[Member], size: TableSize) -> Vec<BackendId> {
    fill(members, size).into_iter().map(|index| members[usize::from(index)].id).collect()
}

fn size(slots: u32) -> TableSize {
    TableSize::new(slots).expect("a size that there is")
}

/// Each member's slots are its share, to within 2 % or one slot.
fn check_shares(members: &[Member], size: TableSize) -> Result<(), TestCaseError> {
    let total: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
    let mut slots = vec![0u32; members.len()];
    for index in fill(members, size) {
        slots[usize::from(index)] += 1;
    }
    for (member, slots) in members.iter().zip(slots) {
        let share = f64::from(size.slots()) * f64::from(member.weight) / total;
        let off = (f64::from(slots) - share).abs();
        prop_assert!(
            off <= (share * 0.02).max(1.0),
            "{member:?}: {slots} slots of {}, its share is {share:.2}",
            size.slots()
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_member_has_its_share(weights in prop::collection::vec(1u16..=100, 1..200)) {
        let members = members(&weights);
        check_shares(&members, TableSize::for_backends(members.len()))?;
    }

    #[test]
    fn extreme_weights_have_their_shares(weights in prop::collection::vec(prop::sample::select(vec![1u16, 2, 999, 65_535]), 1..30)) {
        let members = members(&weights);
        check_shares(&members, size(65_537))?;
    }

    #[test]
    fn the_order_of_the_members_makes_no_difference(
        (weights, order) in prop::collection::vec(1u16..=10, 1..50).prop_flat_map(|weights| {
            let order: Vec<usize> = (0..weights.len()).collect();
            (Just(weights), Just(order).prop_shuffle())
        })
    ) {
        let members = members(&weights);
        let shuffled: Vec<Member> = order.into_iter().map(|index| members[index]).collect();
        prop_assert_eq!(owners(&members, size(1021)), owners(&shuffled, size(1021)));
    }
}

/// Shares of the slots of those who stay that change their owner when one member goes.
fn disturbances(count: u32, size: TableSize, removals: impl Iterator<Item = u32>) -> Vec<f64> {
    let all = members(&vec![1; count as usize]);
    let before = owners(&all, size);
    let mut shares: Vec<f64> = removals
        .map(|gone| {
            let left: Vec<Member> = all.iter().filter(|m| m.id != id(gone)).copied().collect();
            let after = owners(&left, size);
            let stay = before.iter().zip(&after).filter(|(owner, _)| **owner != id(gone));
            let moved = stay.clone().filter(|(before, after)| before != after).count();
            moved as f64 / stay.count() as f64
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    shares
}

/// `FLOWGATE_REMOVALS=1000` tries each member of each set; by default forty of each.
#[test]
fn a_removal_disturbs_few_of_the_other_slots() {
    let most =
        std::env::var("FLOWGATE_REMOVALS").map_or(40, |text| text.parse().expect("a number"));
    for count in [2u32, 10, 50, 100, 300, 400, 500, 600, 800, 1000] {
        let step = count.div_ceil(most).max(1);
        let shares = disturbances(count, size(65_537), (0..count).step_by(step as usize));
        let (median, worst) = (shares[shares.len() / 2], shares[shares.len() - 1]);
        println!(
            "{count} members, one removed: median {:.2} %, worst {:.2} %",
            median * 100.0,
            worst * 100.0
        );
        assert!(median < 0.01, "{count} members: median {median}");
        assert!(worst < 0.012, "{count} members: worst {worst}");
    }
}
