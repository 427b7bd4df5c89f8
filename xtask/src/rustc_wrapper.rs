//! Between cargo and rustc while the object is built.
//!
//! Cargo derives `-C metadata` of a path dependency outside of its workspace from the absolute path, and
//! rustc mangles names with it: the object would depend on where the tree was checked out. This wrapper
//! puts the package's name and version there, which are as unique in our small tree. Everything else is
//! handed on as it came.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

/// Set for the build: makes this executable act as the wrapper.
pub(crate) const REQUEST: &str = "FLOWGATE_XTASK_RUSTC_WRAPPER";

/// Whether cargo started us in the place of rustc.
pub(crate) fn is_requested() -> bool {
    env::var_os(REQUEST).is_some()
}

/// Runs the rustc that cargo named, with stable metadata.
pub(crate) fn run() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(rustc) = arguments.next() else { return ExitCode::FAILURE };
    let identity = package_identity();
    let status = Command::new(&rustc)
        .args(arguments.map(|argument| stable(argument, identity.as_deref())))
        .status();
    match status {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("cannot start {}: {error}", rustc.display());
            ExitCode::FAILURE
        }
    }
}

/// Absent when cargo only asks rustc about itself.
fn package_identity() -> Option<String> {
    let name = env::var("CARGO_PKG_NAME").ok()?;
    let version = env::var("CARGO_PKG_VERSION").ok()?;
    Some(format!("{name}-{version}"))
}

fn stable(argument: OsString, identity: Option<&str>) -> OsString {
    match identity {
        Some(identity) if is_metadata(&argument) => format!("metadata={identity}").into(),
        _ => argument,
    }
}

fn is_metadata(argument: &OsStr) -> bool {
    argument.to_str().is_some_and(|text| text.starts_with("metadata="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_alone_is_replaced() {
        assert_eq!(stable("metadata=0123abcd".into(), Some("abi-0.1.0")), "metadata=abi-0.1.0");
        assert_eq!(stable("metadata=0123abcd".into(), None), "metadata=0123abcd");
        assert_eq!(stable("opt-level=3".into(), Some("abi-0.1.0")), "opt-level=3");
    }
}
