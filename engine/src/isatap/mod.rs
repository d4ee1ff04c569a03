//! isatap
