//! What every object has that is loaded: each includes this file as a module.

/// VERIFIER: a panic path that survives optimisation must not load; an endless loop doesn't.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The string that the kernel knows: GPL-only helpers may be called.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
