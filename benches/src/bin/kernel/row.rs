//! A row of the table: one kind of packet, measured round by round, and checked.

use std::{cell::RefCell, error::Error, rc::Rc};

use flowgate_abi::DropReason;
use flowgate_benches::{
    course::Course,
    rig::{Counted, Fate, Rig},
    sampling::{Sample, Sampling},
};
use flowgate_datapath::Stage;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
pub(crate) type Shared = Rc<RefCell<Rig>>;

/// What has to become of every packet, or the figure is of something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Meets(Fate),
    /// Each passes and opens a flow.
    Opens,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) rig: Shared,
    pub(crate) stage: Stage,
    pub(crate) sampling: Sampling,
    pub(crate) course: Course,
    pub(crate) meaning: Meaning,
    /// Packets that found no room.
    pub(crate) refused: u64,
}

impl Row {
    /// Why this row can't be measured with this object: what becomes of its packet instead.
    pub(crate) fn obstacle(&self) -> Result<Option<String>> {
        let Meaning::Meets(wanted) = self.meaning else { return Ok(None) };
        let fate = self.rig.borrow_mut().send(&self.course.packet, self.stage)?;
        Ok((fate != wanted).then(|| match fate {
            Fate::Dropped(reason) => format!("dropped: {reason}"),
            other => format!("{other:?}"),
        }))
    }

    /// One round.
    pub(crate) fn measure(&mut self) -> Result<Sample> {
        let mut rig = self.rig.borrow_mut();
        let before = rig.counted()?;
        let sample = rig.time(self.stage, &mut self.course, self.sampling)?;
        let after = rig.counted()?;
        drop(rig);
        self.check(&before, &after)?;
        Ok(sample)
    }

    /// What was measured is what was meant; but for one packet in a hundred that finds no room.
    fn check(&mut self, before: &Counted, after: &Counted) -> Result<()> {
        let full = DropReason::FlowTableFull;
        let refused = after.dropped(full) - before.dropped(full) + after.evicted - before.evicted;
        let dropped = after.all_dropped() - before.all_dropped();
        let opened = after.opened - before.opened;
        let packets = self.sampling.packets();
        let (drops, opens) = match self.meaning {
            Meaning::Meets(Fate::Dropped(_)) => (packets, 0),
            Meaning::Meets(_) => (0, 0),
            Meaning::Opens => (0, packets),
        };
        self.refused += refused;
        let wrong = dropped.abs_diff(drops) > refused || opened.abs_diff(opens) > refused;
        if wrong || refused * 100 > packets || after.events_lost != before.events_lost {
            let Self { name, .. } = self;
            return Err(format!("{name}: of {packets} packets {dropped} were dropped, {opened} opened flows, {refused} found no room: {before:?}, {after:?}").into());
        }
        Ok(())
    }
}
