//! What is limited by the second, for each CPU: events, answers.

use flowgate_abi::{Settings, event::EventBudget};

use crate::Tables;

/// What is limited.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Events,
    Answers,
}

/// Takes one of so many a second; `false`: they are used up. Refilled at once when a second has passed.
#[inline(always)]
pub(crate) fn take<T: Tables>(tables: &T, budget: &mut EventBudget, of: Of) -> bool {
    let (settings, jiffies) = (tables.settings(), tables.jiffies());
    let second = u64::from(settings.hz);
    if jiffies.wrapping_sub(budget.refilled) >= second || budget.refilled == 0 {
        budget.refilled = jiffies;
        budget.tokens = u64::from(limit(settings, of));
    }
    if budget.tokens == 0 {
        return false;
    }
    budget.tokens -= 1;
    true
}

#[inline(always)]
const fn limit(settings: &Settings, of: Of) -> u32 {
    match of {
        Of::Events => settings.events_per_second,
        Of::Answers => settings.answers_per_second,
    }
}
