//! flowgate.
