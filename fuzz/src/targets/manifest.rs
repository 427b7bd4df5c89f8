//! Any text as a manifest: nothing panics, an error names the source, what is refused changes
//! nothing, and what is accepted compiles or is refused with an error.

use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::{AddressRanges, Manifests};
use flowgate_policy::{compile::Compiler, options::Options};

/// Cells that a plan may have: little, so that a text can't ask for much memory.
const CELLS: usize = 1 << 20;

/// Takes one input; whether it is worth keeping.
pub fn run(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    read("input.yaml", text);
    read("input.json", text);
    true
}

fn read(source: &str, text: &str) {
    let mut manifests = Manifests::default();
    if let Err(error) = manifests.read(source, text) {
        assert!(error.to_string().starts_with(source), "{error}");
        assert!(manifests.inventory.workloads.is_empty() && manifests.policies.is_empty());
        return;
    }
    if manifests.assign_addresses(&AddressRanges::default()).is_err() {
        return;
    }
    let options = Options { max_cells: CELLS, ..Options::default() };
    // That it is refused is fine; how is for the compiler's own tests.
    let _ = Compiler::new(LocalAllocator::new()).compile(
        &manifests.inventory,
        &manifests.policies,
        &options,
    );
}
