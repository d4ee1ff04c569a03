//! buf
