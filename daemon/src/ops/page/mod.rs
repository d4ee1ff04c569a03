//! The dashboard: one self-contained page, put together from its parts.
//!
//! `dashboard.html` is the skeleton, `dashboard.css` and `dashboard.js` are ours, `uplot.*` is the chart library uPlot (MIT).

use std::sync::OnceLock;

/// What the page may do: its own script and style, and questions to this server. Nothing from anywhere else.
pub const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                          img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub fn text() -> &'static str {
    static PAGE: OnceLock<String> = OnceLock::new();
    PAGE.get_or_init(|| {
        let parts = [
            ("{{style}}", include_str!("uplot.min.css")),
            ("{{own-style}}", include_str!("dashboard.css")),
            ("{{library}}", include_str!("uplot.min.js")),
            ("{{script}}", include_str!("dashboard.js")),
        ];
        let skeleton = include_str!("dashboard.html").to_owned();
        parts
            .into_iter()
            .fold(skeleton, |page, (place, part)| page.replacen(place, part, 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_needs_nobody() {
        let page = text();
        assert!(!page.contains("{{"), "a part is missing");
        for outside in ["src=", "<link", "@import", "url(http", "innerHTML", "eval("] {
            let own = include_str!("dashboard.js").contains(outside)
                || include_str!("dashboard.html").contains(outside)
                || include_str!("dashboard.css").contains(outside);
            assert!(!own, "{outside}");
        }
    }
}
