//! The same record for people: a table for the terminal, a page with pictures, a comparison of two.

mod bars;
pub(crate) mod compare;
pub(crate) mod html;
mod lines;
mod percentiles;
mod svg;
pub(crate) mod text;
