//! What a rule lets through, in the program's own words.

use xdp_stage::Rule;

/// Times at which frames are sent, in milliseconds, and whether each has a token.
fn spent(rule: Rule, times: impl IntoIterator<Item = u64>) -> Vec<bool> {
    let mut full = 0;
    let mut spend = |time: u64| match rule.spend(full, time * 1_000_000) {
        Some(later) => {
            full = later;
            true
        }
        None => false,
    };
    times.into_iter().map(&mut spend).collect()
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let rule = Rule::rate(10, 3);
    assert_eq!(spent(rule, [5000; 5]), [true, true, true, false, false]);
    // A token every 100 ms; what is refused costs none.
    let times = [5000, 5000, 5000, 5099, 5100, 5100, 5200, 5299];
    assert_eq!(spent(rule, times), [true, true, true, false, true, false, true, false]);
}

#[test]
fn who_is_silent_saves_no_more_than_a_burst() {
    let rule = Rule::rate(10, 2);
    assert_eq!(spent(rule, [0, 1 << 30, 1 << 30, 1 << 30]), [true, true, true, false]);
}

#[test]
fn in_the_long_run_the_rate_holds() {
    let passed = spent(Rule::rate(100, 5), 0..10_000);
    // 100 a second for ten seconds, and the burst.
    let passed = passed.iter().filter(|passed| **passed).count();
    assert!((1000..=1005).contains(&passed), "{passed}");
}

#[test]
fn extremes_are_rules_too() {
    assert!(
        Rule::BLOCK.blocks() && !Rule::rate(0, 0).blocks() && !Rule::rate(u32::MAX, 1).blocks()
    );
    assert_eq!(Rule::rate(0, 0), Rule::rate(1, 1));
    assert_eq!(spent(Rule::rate(u32::MAX, u32::MAX), [1; 3]), [true; 3]);
}
