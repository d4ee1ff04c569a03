//! The same results three times: a table for the terminal, JSON for programs, a page with pictures.

pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod text;
