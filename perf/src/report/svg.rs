//! Pictures that keep the size of their letters: positions across are per cents of the width, positions down are pixels.

use std::fmt::Write as _;

/// An `svg` element being written.
#[derive(Debug)]
pub(super) struct Svg {
    text: String,
}

impl Svg {
    /// As wide as its surroundings, `height` pixels high; `title` is what a screen reader says.
    pub(super) fn new(height: f64, title: &str) -> Self {
        let title = escape(title);
        Self {
            text: format!("<svg height=\"{height:.0}\" role=\"img\" aria-label=\"{title}\">"),
        }
    }

    /// A straight line from `a` to `b`, each per cent across and pixels down.
    pub(super) fn line(&mut self, a: (f64, f64), b: (f64, f64), attributes: &str) {
        let _ = write!(
            self.text,
            "<line x1=\"{:.2}%\" y1=\"{:.1}\" x2=\"{:.2}%\" y2=\"{:.1}\" {attributes}/>",
            a.0, a.1, b.0, b.1
        );
    }

    /// A box from `at`, per cent wide and pixels high.
    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), attributes: &str) {
        let _ = write!(
            self.text,
            "<rect x=\"{:.2}%\" y=\"{:.1}\" width=\"{:.2}%\" height=\"{:.1}\" {attributes}/>",
            at.0, at.1, size.0, size.1
        );
    }

    /// A dot that says `title` when pointed at.
    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, attributes: &str, title: &str) {
        let title = escape(title);
        let _ = write!(
            self.text,
            "<circle cx=\"{:.2}%\" cy=\"{:.1}\" r=\"{radius}\" {attributes}><title>{title}</title></circle>",
            at.0, at.1
        );
    }

    /// Text; `dx` moves it by pixels, `anchor` is start, middle or end.
    pub(super) fn text(&mut self, at: (f64, f64), dx: f64, anchor: &str, class: &str, content: &str) {
        let content = escape(content);
        let _ = write!(
            self.text,
            "<text x=\"{:.2}%\" y=\"{:.1}\" dx=\"{dx}\" text-anchor=\"{anchor}\" class=\"{class}\">{content}</text>",
            at.0, at.1
        );
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// The colour of a peer, as the style sheet names it.
pub(super) fn colour(peer: &str) -> String {
    match peer {
        "bare" | "baseline" | "drain" | "syscall" | "uring" | "ebpf" => format!("var(--{peer})"),
        _ => "var(--other)".into(),
    }
}

/// A key of colours for peers and their titles.
pub(super) fn key<'a>(peers: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = "<div class=\"key\">".to_owned();
    for (peer, title) in peers {
        let _ = write!(
            text,
            "<span><i style=\"background:{}\"></i>{}</span>",
            colour(peer),
            escape(title)
        );
    }
    text + "</div>"
}

/// Text that cannot become markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Round numbers from 0 to the first that is not below `most`, four to six of them.
pub(super) fn ticks(most: f64) -> Vec<f64> {
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0, 1.0];
    }
    let rough = most / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let mut ticks = vec![0.0];
    let mut at = 0.0;
    while at < most * 0.9999 {
        at += step;
        ticks.push(at);
    }
    ticks
}

/// Three significant digits, thousands apart.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let plain = format!("{value:.decimals$}");
    let (whole, rest) = plain
        .split_once('.')
        .map_or((plain.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (left, digit) in (0..whole.len()).rev().zip(whole.chars()) {
        grouped.push(digit);
        if left > 0 && left % 3 == 0 && digit != '-' {
            grouped.push('\u{202f}');
        }
    }
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(
            escape("a<b>&\"c\" 'd'"),
            "a&lt;b&gt;&amp;&quot;c&quot; &#39;d&#39;"
        );
        let mut svg = Svg::new(10.0, "<x>");
        svg.text((0.0, 1.0), 0.0, "start", "", "</svg><script>");
        assert!(!svg.finish().contains("<script"));
    }

    #[test]
    fn ticks_are_round_and_reach_the_top() {
        assert_eq!(ticks(97.0), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(ticks(4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        for most in [0.003, 0.7, 13.0, 204.0, 19_425.0] {
            let ticks = ticks(most);
            assert!(
                (3..=7).contains(&ticks.len()) && ticks[ticks.len() - 1] >= most * 0.999,
                "{most}: {ticks:?}"
            );
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(19_425.4), "19\u{202f}425");
        assert_eq!(number(1_234_567.0), "1\u{202f}234\u{202f}567");
        assert_eq!(number(17.29), "17.3");
        assert_eq!(number(0.016), "0.02");
        assert_eq!((number(0.0), number(64.0)), ("0".into(), "64".into()));
    }
}
