//! An initramfs in the "newc" cpio format, built in memory.
//!
//! See Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. Everything belongs to
//! root; nothing needs to be root's, or anywhere on disk, while it is built.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::process;
use crate::tree;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making.
#[derive(Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// Adds a directory and those above it.
    pub(crate) fn directory(&mut self, path: &str) {
        let path = Path::new(path.trim_start_matches('/'));
        let above: Vec<_> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        for directory in above.into_iter().rev() {
            if self.names.insert(directory.to_owned()) {
                self.entry(&directory.to_string_lossy(), DIRECTORY, &[]);
            }
        }
    }

    /// Adds an executable file; the first of a name stays.
    pub(crate) fn file(&mut self, path: &str, contents: &[u8]) {
        let path = path.trim_start_matches('/');
        if !self.names.insert(PathBuf::from(path)) {
            return;
        }
        if let Some(parent) = Path::new(path).parent() {
            self.directory(&parent.to_string_lossy());
        }
        self.entry(path, EXECUTABLE, contents);
    }

    /// Adds a program of this machine with the libraries that it names.
    pub(crate) fn program(&mut self, path: &str, from: &Path) -> Result<(), Error> {
        self.file(path, &tree::read(from)?);
        // A static program has none, and ldd says so by failing.
        let listed = process::ask(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in libraries(&listed) {
            self.file(library, &tree::read(Path::new(library))?);
        }
        Ok(())
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        let inode = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // inode, mode, uid, gid, links, mtime, size, four device numbers, name's size, checksum
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The absolute paths in what ldd says; the vDSO has none.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_aligned_and_names_its_sizes() {
        let mut archive = Initramfs::default();
        archive.file("/a/b", b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> = ["a\0", "a/b\0", TRAILER].map(|name| text.find(name).unwrap()).into();
        assert!(names.is_sorted(), "a directory comes before what is in it");
        assert!(text.contains("00000005"), "the size of the contents");
    }

    #[test]
    fn a_name_is_added_once() {
        let mut archive = Initramfs::default();
        archive.file("/bin/sh", b"first");
        let length = archive.bytes.len();
        archive.file("bin/sh", b"second");
        assert_eq!(archive.bytes.len(), length);
    }

    #[test]
    fn libraries_are_the_absolute_paths() {
        let listed =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld.so"]);
    }
}
