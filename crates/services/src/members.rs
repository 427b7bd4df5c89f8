//! The numbers by which a service's slots, entries and lines name its backends.
//!
//! Invariant: a number isn't given to another backend before nothing can name the one that had it
//! ([`Members::forget`] is called by who knows that).

use std::collections::{BTreeMap, BTreeSet};

use flowgate_abi::lb::NOBODY;

use crate::model::BackendId;

/// Who has which number.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    places: Vec<Place>,
    free: BTreeSet<u32>,
    here: BTreeMap<BackendId, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Here(BackendId),
    /// Slots or entries may name it still.
    Gone,
}

impl Members {
    /// Nobody, with room for so many numbers, [`NOBODY`] among them.
    pub(crate) fn new(room: u32) -> Self {
        let mut members =
            Self { places: vec![Place::Free], free: BTreeSet::new(), here: BTreeMap::new() };
        members.grow(room);
        members
    }

    /// Numbers that there are, [`NOBODY`] among them.
    pub(crate) fn room(&self) -> u32 {
        self.places.len() as u32
    }

    /// Makes room for so many numbers.
    pub(crate) fn grow(&mut self, room: u32) {
        self.free.extend(self.room()..room);
        self.places.resize(room as usize, Place::Free);
    }

    /// Numbers that nobody has.
    pub(crate) fn vacancies(&self) -> usize {
        self.free.len()
    }

    /// The number of a backend that is here.
    pub(crate) fn number(&self, id: BackendId) -> Option<u32> {
        self.here.get(&id).copied()
    }

    /// The backend that is here and has a number.
    pub(crate) fn named(&self, number: u32) -> Option<BackendId> {
        match self.places.get(number as usize) {
            Some(Place::Here(id)) => Some(*id),
            _ => None,
        }
    }

    /// The backends that are here, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (BackendId, u32)> + '_ {
        self.here.iter().map(|(id, number)| (*id, *number))
    }

    /// Gives a backend a number; `None`: there is none left.
    pub(crate) fn admit(&mut self, id: BackendId) -> Option<u32> {
        let number = self.free.first().copied()?;
        self.place(id, number);
        Some(number)
    }

    /// A backend has a number already.
    pub(crate) fn place(&mut self, id: BackendId, number: u32) {
        self.free.remove(&number);
        self.places[number as usize] = Place::Here(id);
        self.here.insert(id, number);
    }

    /// A backend isn't here any more.
    pub(crate) fn dismiss(&mut self, id: BackendId) {
        if let Some(number) = self.here.remove(&id) {
            self.places[number as usize] = Place::Gone;
        }
    }

    /// A number belongs to somebody who was gone before this process began.
    pub(crate) fn set_gone(&mut self, number: u32) {
        self.free.remove(&number);
        self.places[number as usize] = Place::Gone;
    }

    /// Whoever has this number isn't here; so is nobody.
    pub(crate) fn is_gone(&self, number: u32) -> bool {
        number == NOBODY || self.places.get(number as usize) == Some(&Place::Gone)
    }

    /// Somebody is gone whose number isn't free yet.
    pub(crate) fn has_gone(&self) -> bool {
        1 + self.free.len() + self.here.len() < self.places.len()
    }

    /// The numbers of those who are gone.
    pub(crate) fn gone(&self) -> Vec<u32> {
        let gone =
            |(number, place): (usize, &Place)| (*place == Place::Gone).then_some(number as u32);
        self.places.iter().enumerate().filter_map(gone).collect()
    }

    /// Nothing names a number any more: the next one may have it.
    pub(crate) fn forget(&mut self, number: u32) {
        self.places[number as usize] = Place::Free;
        self.free.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn id(last: u8) -> BackendId {
        IpAddr::from([198, 18, 0, last]).into()
    }

    #[test]
    fn a_number_is_used_again_only_when_it_is_forgotten() {
        let mut members = Members::new(4);
        let numbers: Vec<_> = (1..=4).map(|last| members.admit(id(last))).collect();
        assert_eq!(numbers, [Some(1), Some(2), Some(3), None]);
        members.dismiss(id(2));
        assert!(members.is_gone(2) && members.is_gone(NOBODY) && !members.is_gone(1));
        assert_eq!((members.admit(id(2)), members.gone()), (None, vec![2]));
        members.forget(2);
        assert_eq!((members.admit(id(2)), members.named(2)), (Some(2), Some(id(2))));
        members.grow(6);
        assert_eq!((members.admit(id(9)), members.vacancies()), (Some(4), 1));
    }
}
