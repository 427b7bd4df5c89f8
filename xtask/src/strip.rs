//! Debugging sections, taken out of the object.
//!
//! The linker makes BTF from DWARF, so the programs are compiled with it, but nothing that loads the object
//! reads it: it would be nine tenths of what every user's program embeds. BTF and line information in
//! `.BTF.ext`, which the verifier's log quotes, stay.

use object::build::ByteString;
use object::build::elf::{Builder, SectionData};

use crate::error::Error;

/// The object without its DWARF.
pub(crate) fn without_dwarf(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |error: object::build::Error| Error::Object { why: error.to_string() };
    let mut builder = Builder::read(bytes).map_err(failed)?;
    for section in &mut builder.sections {
        section.delete = is_dwarf(&section.name);
    }
    builder.delete_orphans();
    add_section_names(&mut builder);
    let mut stripped = Vec::new();
    builder.write(&mut stripped).map_err(failed)?;
    Ok(stripped)
}

/// LLVM keeps the names of sections and symbols in one table; the builder writes two.
fn add_section_names(builder: &mut Builder<'_>) {
    let names = builder.sections.add();
    names.name = ByteString::from(".shstrtab");
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
}

/// Either a section of DWARF or the relocations of one.
fn is_dwarf(name: &ByteString<'_>) -> bool {
    name.starts_with(b".debug") || name.starts_with(b".rel.debug")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dwarf_goes_and_btf_stays() {
        let names = [".debug_info", ".rel.debug_info", ".BTF", ".BTF.ext", ".rel.BTF.ext", ".text"];
        let dropped = names.map(|name| is_dwarf(&ByteString::from(name)));
        assert_eq!(dropped, [true, true, false, false, false, false]);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(matches!(without_dwarf(b"not an ELF file"), Err(Error::Object { .. })));
    }
}
