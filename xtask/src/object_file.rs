//! What is inside an eBPF object: its programs, maps and subprograms.
//!
//! A subprogram is a function in `.text`: programs call it, nothing attaches it.

use std::collections::BTreeSet;
use std::str::FromStr;

use aya_obj::generated::bpf_map_type;
use aya_obj::{Object, ProgramSection};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use crate::error::Error;
use crate::manifest::{Map, Program};

/// What an object holds, each list sorted by name.
pub(crate) struct Contents {
    pub(crate) programs: Vec<Program>,
    pub(crate) maps: Vec<Map>,
    /// Names without mangling and without the hash.
    pub(crate) subprograms: BTreeSet<String>,
}

/// Parses an object.
pub(crate) fn parse(bytes: &[u8]) -> Result<Contents, Error> {
    let object = Object::parse(bytes).map_err(|e| Error::Object { why: e.to_string() })?;
    let elf = ElfFile64::<object::Endianness>::parse(bytes)
        .map_err(|e| Error::Object { why: e.to_string() })?;
    Ok(Contents {
        programs: programs(&object, &elf)?,
        maps: maps(&object),
        subprograms: subprograms(&object),
    })
}

fn programs(object: &Object, elf: &ElfFile64<'_>) -> Result<Vec<Program>, Error> {
    let mut list = Vec::new();
    for (name, program) in &object.programs {
        let section = section_name(elf, program.section_index)?;
        let kind = program_type(&section);
        list.push(Program { name: name.clone(), section, kind });
    }
    list.sort();
    Ok(list)
}

fn section_name(elf: &ElfFile64<'_>, index: usize) -> Result<String, Error> {
    let section = elf.section_by_index(object::SectionIndex(index));
    section
        .and_then(|section| section.name().map(str::to_owned))
        .map_err(|e| Error::Object { why: e.to_string() })
}

/// The kernel's name of the program type that a section asks for.
fn program_type(section: &str) -> String {
    match ProgramSection::from_str(section) {
        Ok(ProgramSection::SchedClassifier) => "sched_cls".to_owned(),
        Ok(ProgramSection::Xdp { .. }) => "xdp".to_owned(),
        Ok(ProgramSection::CgroupSkb { .. }) => "cgroup_skb".to_owned(),
        Ok(ProgramSection::CgroupSockAddr { .. }) => "cgroup_sock_addr".to_owned(),
        Ok(ProgramSection::SockOps) => "sock_ops".to_owned(),
        Ok(ProgramSection::SkLookup) => "sk_lookup".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(_) => section.to_owned(),
    }
}

fn maps(object: &Object) -> Vec<Map> {
    let mut list: Vec<Map> = object
        .maps
        .iter()
        .map(|(name, map)| Map {
            name: name.clone(),
            kind: map_type(map.map_type()),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
        })
        .collect();
    list.sort();
    list
}

/// The kernel's name of a map type, in small letters.
fn map_type(number: u32) -> String {
    bpf_map_type::try_from(number).map_or_else(
        |_| number.to_string(),
        |kind| format!("{kind:?}").trim_start_matches("BPF_MAP_TYPE_").to_ascii_lowercase(),
    )
}

fn subprograms(object: &Object) -> BTreeSet<String> {
    let entries: BTreeSet<_> =
        object.programs.values().map(aya_obj::Program::function_key).collect();
    object
        .functions
        .iter()
        .filter(|(key, _)| !entries.contains(key))
        .map(|(_, function)| demangled(&function.name))
        .collect()
}

/// `{:#}` leaves the hash away, which says nothing to a reader.
fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_mangling() {
        assert_eq!(demangled("_ZN8pipeline5judge17h0123456789abcdefE"), "pipeline::judge");
        assert_eq!(demangled("_RNvCs1234_8pipeline5judge"), "pipeline::judge");
        assert_eq!(demangled("memcpy"), "memcpy");
    }

    #[test]
    fn types_have_the_kernels_names() {
        assert_eq!(map_type(1), "hash");
        assert_eq!(map_type(27), "ringbuf");
        assert_eq!(program_type("classifier"), "sched_cls");
        assert_eq!(program_type("xdp"), "xdp");
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(matches!(parse(b"not an ELF file"), Err(Error::Object { .. })));
    }
}
