//! A dispatcher's read-only data: what it runs, for its program and for whoever takes its place
//! (`protocol.org` of xdp-tools).

use crate::lb::DispatcherError;

/// Places of a dispatcher.
pub(super) const MOST: usize = 10;
/// The version that is written where there was no dispatcher.
pub(super) const VERSION: u8 = 2;
/// It has one byte more: whether the dispatcher belongs to a device.
const WITH_DEVICES: u8 = 3;
const MAGIC: u8 = 236;
/// Of a program for frames in several buffers (`BPF_F_XDP_HAS_FRAGS`).
const HAS_FRAGS: u32 = 1 << 5;
/// Bytes of version 2: four, and three words of each place.
const SIZE: usize = 4 + 3 * 4 * MOST;

/// What a dispatcher runs in one of its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// A bit for each action on which the next place is called.
    pub(super) actions: u32,
    /// Programs stand in its order.
    pub(super) priority: u32,
    /// It can do with frames in several buffers.
    pub(super) frags: bool,
}

/// What a dispatcher runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) version: u8,
    /// The dispatcher can do with frames in several buffers.
    pub(super) frags: bool,
    pub(super) slots: Vec<Slot>,
}

impl Config {
    /// Of so many places in which nobody stands.
    pub(super) fn empty(places: usize) -> Self {
        let slot = Slot { actions: u32::MAX, priority: 0, frags: true };
        Self { version: VERSION, frags: true, slots: vec![slot; places] }
    }

    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let places = self.places().min(MOST);
        let mut bytes = vec![MAGIC, self.version, places as u8, self.frags.into()];
        let words: [fn(&Slot) -> u32; 3] = [
            |slot| slot.actions,
            |slot| slot.priority,
            |slot| if slot.frags { HAS_FRAGS } else { 0 },
        ];
        for word in words {
            let each = self.slots.iter().map(word).chain(std::iter::repeat(0)).take(MOST);
            bytes.extend(each.flat_map(u32::to_ne_bytes));
        }
        if self.version >= WITH_DEVICES {
            bytes.extend([0; 4]);
        }
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, DispatcherError> {
        let [MAGIC, version, places, frags, ..] = *bytes else {
            return Err(DispatcherError::Version { version: None });
        };
        let known = match version {
            VERSION => bytes.len() == SIZE,
            WITH_DEVICES => bytes.len() == SIZE + 4,
            _ => false,
        };
        if !known || usize::from(places) > MOST {
            return Err(DispatcherError::Version { version: Some(version) });
        }
        if bytes.get(SIZE).is_some_and(|device| *device != 0) {
            return Err(DispatcherError::OfDevice);
        }
        let word = |kind: usize, place: usize| {
            let at = 4 + 4 * (MOST * kind + place);
            u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
        };
        let slot = |place: usize| Slot {
            actions: word(0, place),
            priority: word(1, place),
            frags: word(2, place) & HAS_FRAGS != 0,
        };
        Ok(Self { version, frags: frags != 0, slots: (0..places.into()).map(slot).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(version: u8) -> Config {
        let slot = |priority: u32| Slot {
            actions: 1 << 31 | 1 << priority,
            priority,
            frags: priority == 2,
        };
        Config { version, frags: false, slots: vec![slot(1), slot(2), slot(3)] }
    }

    #[test]
    fn what_is_written_is_what_the_protocol_says() {
        let bytes = config(2).bytes();
        assert_eq!((bytes.len(), &bytes[..4]), (124, &[236, 2, 3, 0][..]));
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        // The second place's actions, priority, flags.
        assert_eq!([4 + 4, 44 + 4, 84 + 4].map(word), [1 << 31 | 4, 2, 32]);
        assert_eq!([4 + 12, 44 + 12, 84 + 12].map(word), [0; 3]);
        assert_eq!(config(3).bytes().len(), 128);
    }

    #[test]
    fn what_was_written_comes_back() {
        for config in [config(2), config(3), Config::empty(MOST)] {
            assert_eq!(Config::read(&config.bytes()).expect("known"), config);
        }
    }

    #[test]
    fn what_is_not_understood_is_no_dispatcher() {
        let version = |bytes: &[u8]| match Config::read(bytes) {
            Err(DispatcherError::Version { version }) => version,
            other => panic!("{other:?}"),
        };
        assert_eq!([version(&[]), version(&[3; 84])], [None, None]);
        let mut bytes = config(2).bytes();
        bytes[1] = 4;
        assert_eq!(version(&bytes), Some(4));
        bytes[1] = 3;
        assert_eq!(version(&bytes), Some(3), "not of its size");
        bytes[1..3].copy_from_slice(&[2, 11]);
        assert_eq!(version(&bytes), Some(2), "more places than there are");
        let mut bytes = config(3).bytes();
        bytes[124] = 1;
        assert!(matches!(Config::read(&bytes), Err(DispatcherError::OfDevice)));
    }
}
