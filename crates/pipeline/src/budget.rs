//! What is limited by the second, for each CPU: events, answers.

use flowgate_abi::event::EventBudget;

/// How many a second.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// So many.
    pub(crate) each: u32,
    /// Jiffies of a second.
    pub(crate) hz: u32,
}

/// Takes one of so many a second; `false`: they are used up. Refilled at once when a second has passed.
#[inline(always)]
pub(crate) fn take(budget: &mut EventBudget, limit: Limit, jiffies: u64) -> bool {
    let second = u64::from(limit.hz);
    if jiffies.wrapping_sub(budget.refilled) >= second || budget.refilled == 0 {
        budget.refilled = jiffies;
        budget.tokens = u64::from(limit.each);
    }
    if budget.tokens == 0 {
        return false;
    }
    budget.tokens -= 1;
    true
}
