//! The types of a dispatcher and of what stands in its places (`Documentation/bpf/btf.rst`): functions that take an
//! XDP context and give a number, each global, because no other is replaced; and the protocol's version, by which
//! others know a dispatcher.

/// A type's number: the dispatcher's own function.
pub(super) const MAIN: u32 = 5;
/// The first of the functions in whose places other programs stand.
pub(super) const PLACE: u32 = MAIN + 1;

const INTEGER: u32 = 1;
const CONTEXT: u32 = 3;
const FUNCTION: u32 = 4;

/// The types of a program of this name, with so many places, in the kernel's format.
pub(super) fn types(name: &str, places: u32, version: u8) -> Vec<u8> {
    let mut all = Types::default();
    all.add("int", Kind::Integer, 4, &[1 << 24 | 32]); // signed, 32 bits
    all.add("xdp_md", Kind::Struct, 24, &[]);
    all.add("", Kind::Pointer, 2, &[]);
    let context = all.text("ctx");
    all.add("", Kind::Prototype(1), INTEGER, &[context, CONTEXT]);
    all.add(name, Kind::Function, FUNCTION, &[]);
    for place in 0..places {
        all.add(&format!("prog{place}"), Kind::Function, FUNCTION, &[]);
    }
    // A pointer to an array of as many elements as the version's number says.
    let array = PLACE + places;
    all.add("", Kind::Array, 0, &[INTEGER, INTEGER, version.into()]);
    all.add("", Kind::Pointer, array, &[]);
    all.add("dispatcher_version", Kind::Variable, array + 1, &[1]);
    all.add("xdp_metadata", Kind::Section, 8, &[array + 2, 0, 8]);
    all.finished()
}

/// Kinds of types; what is global is marked in the place of a number of members.
#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Pointer,
    Array,
    Struct,
    /// With so many parameters.
    Prototype(u32),
    /// Global.
    Function,
    Variable,
    /// Of one variable.
    Section,
}

impl Kind {
    const fn info(self) -> u32 {
        let (kind, members) = match self {
            Self::Integer => (1, 0),
            Self::Pointer => (2, 0),
            Self::Array => (3, 0),
            Self::Struct => (4, 0),
            Self::Function => (12, 1),
            Self::Prototype(parameters) => (13, parameters),
            Self::Variable => (14, 0),
            Self::Section => (15, 1),
        };
        kind << 24 | members
    }
}

#[derive(Default)]
struct Types {
    words: Vec<u32>,
    texts: Vec<u8>,
}

impl Types {
    /// Adds a type, of a size or of another type, with what its kind has behind that.
    fn add(&mut self, name: &str, kind: Kind, of: u32, rest: &[u32]) {
        let name = self.text(name);
        self.words.extend([name, kind.info(), of]);
        self.words.extend(rest);
    }

    /// Where a text lies; the empty one is the first.
    fn text(&mut self, text: &str) -> u32 {
        if self.texts.is_empty() {
            self.texts.push(0);
        }
        if text.is_empty() {
            return 0;
        }
        let at = self.texts.len() as u32;
        self.texts.extend(text.bytes().chain([0]));
        at
    }

    fn finished(self) -> Vec<u8> {
        const MAGIC: u16 = 0xeb9f;
        const HEADER: u32 = 24;
        let bytes = 4 * self.words.len() as u32;
        let mut all = MAGIC.to_ne_bytes().to_vec();
        all.extend([1, 0]); // version, flags
        let header = [HEADER, 0, bytes, bytes, self.texts.len() as u32];
        all.extend(header.iter().chain(&self.words).flat_map(|word| word.to_ne_bytes()));
        all.extend(self.texts);
        all
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::{Btf, BtfKind};
    use object::Endianness;

    use super::*;

    #[test]
    fn types_have_the_numbers_by_which_they_are_known() {
        let endianness =
            if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big };
        let btf = Btf::parse(&types("xdp_dispatcher", 3, 2), endianness).expect("well-formed");
        let number = |name| btf.id_by_type_name_kind(name, BtfKind::Func).expect("it is there");
        assert_eq!(number("xdp_dispatcher"), MAIN);
        assert_eq!(["prog0", "prog1", "prog2"].map(number), [0, 1, 2].map(|place| PLACE + place));
    }
}
