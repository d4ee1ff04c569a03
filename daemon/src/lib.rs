//! Control plane of `isatapd`.
