//! The screen of `top`: what is most important fits 80x24, more room shows more.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table};

use super::model::{Model, OF_KERNEL, Quantiles, Rates};
use crate::ctl::render::duration;
use crate::ctl::share;
use crate::ops::status::Status;

const DIRECTIONS: [(&str, Color); 2] = [("encap", Color::Cyan), ("decap", Color::Yellow)];

/// Draws the model.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let Some(status) = &model.now else { return };
    let carriers = status.workers.len() + usize::from(status.programs.loaded);
    let workers = u16::try_from(carriers).unwrap_or(u16::MAX);
    let [head, traffic, charts, workers, lower, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(if status.programs.loaded { 5 } else { 3 }),
        Constraint::Length(4),
        Constraint::Length((workers.saturating_add(2)).clamp(3, 8)),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(status, model)), head);
    frame.render_widget(totals(status, model), traffic);
    draw_charts(frame, charts, model);
    frame.render_widget(workers_table(status, model), workers);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(lower);
    frame.render_widget(drops(model), left);
    frame.render_widget(routers(status), right);
    frame.render_widget(Paragraph::new(footer(model)), foot);
}

fn heading(status: &Status, model: &Model) -> Vec<Line<'static>> {
    let state = match (&model.trouble, status.ready) {
        (Some(_), _) => Span::from("NO ANSWER").red().bold(),
        (None, true) => Span::from("ready").green().bold(),
        (None, false) => Span::from("NOT READY").red().bold(),
    };
    let first = Line::from(vec![
        Span::from(format!("{} on {}  ", status.interface.name, status.host)).bold(),
        state,
        Span::from(format!(
            "  {} at {}, lane {}, MTU {}, up {}",
            status.role,
            status.locator.address,
            share::lane(status),
            status.interface.tunnel_mtu,
            duration(status.uptime_seconds)
        )),
    ]);
    let why = model
        .trouble
        .clone()
        .unwrap_or_else(|| status.not_ready.join("; "));
    vec![first, Line::from(Span::from(why).red())]
}

fn totals(status: &Status, model: &Model) -> Table<'static> {
    let rows = DIRECTIONS
        .iter()
        .zip(model.total_rates())
        .map(|((name, colour), rates)| {
            let Quantiles { p50, p99, max } = model.quantiles(name);
            Row::new([
                (*name).to_owned(),
                si(rates.packets),
                si(rates.bits),
                si(rates.dropped),
                nanos(p50),
                nanos(p99),
                nanos(max),
            ])
            .style(Style::from(*colour))
        });
    // Their packets are among those above, their times are not.
    let of_kernel = OF_KERNEL.iter().filter(|_| status.programs.loaded).map(|name| {
        let Quantiles { p50, p99, max } = model.quantiles(name);
        let [none, bits, dropped] = [""; 3].map(str::to_owned);
        Row::new([
            (*name).to_owned(),
            none,
            bits,
            dropped,
            nanos(p50),
            nanos(p99),
            nanos(max),
        ])
        .style(Style::new().add_modifier(Modifier::DIM))
    });
    let widths = [12, 10, 10, 10, 10, 10, 10].map(Constraint::Length);
    Table::new(rows.chain(of_kernel), widths).header(header([
        "",
        "packets/s",
        "bit/s",
        "dropped/s",
        "p50",
        "p99",
        "max",
    ]))
}

fn draw_charts(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).split(area);
    for (((name, colour), history), half) in DIRECTIONS.iter().zip(&model.history).zip(halves.iter()) {
        let room = usize::from(half.width.saturating_sub(1));
        let shown: Vec<u64> = history
            .iter()
            .skip(history.len().saturating_sub(room))
            .copied()
            .collect();
        let most = shown.iter().max().copied().unwrap_or(0);
        #[allow(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
        let title = format!("{name}, packets/s, up to {}", si(most as f64));
        let chart = Sparkline::default()
            .data(&shown)
            .style(Style::from(*colour))
            .block(Block::new().borders(Borders::TOP).title(title));
        frame.render_widget(chart, *half);
    }
}

fn workers_table(status: &Status, model: &Model) -> Table<'static> {
    let rows = status
        .workers
        .iter()
        .enumerate()
        .skip(model.first_worker)
        .map(|(number, worker)| {
            let failed: u64 = worker.errors.iter().map(|error| error.count).sum();
            let rates = model.worker_rates(number);
            carrier(worker.worker.to_string(), rates, failed.to_string())
        });
    // Always in sight, whichever workers are.
    let kernel = status.programs.loaded.then(|| {
        let rates = model.kernel_rates();
        carrier("kernel".to_owned(), rates, "-".to_owned())
    });
    let widths = [7, 12, 12, 12, 12, 14].map(Constraint::Length);
    Table::new(kernel.into_iter().chain(rows), widths)
        .header(header([
            "worker",
            "encap/s",
            "decap/s",
            "bit/s",
            "dropped/s",
            "failed calls",
        ]))
        .block(Block::new().borders(Borders::TOP))
}

fn carrier(name: String, [encap, decap]: [Rates; 2], failed: String) -> Row<'static> {
    Row::new([
        name,
        si(encap.packets),
        si(decap.packets),
        si(encap.bits + decap.bits),
        si(encap.dropped + decap.dropped),
        failed,
    ])
}

fn drops(model: &Model) -> Table<'static> {
    let rows = model.drops().into_iter().map(|(direction, reason, count, rate)| {
        let style = if rate > 0.0 {
            Style::from(Color::Red)
        } else {
            Style::new()
        };
        Row::new([format!("{direction} {reason}"), si(rate), count.to_string()]).style(style)
    });
    let widths = [Constraint::Min(18), Constraint::Length(8), Constraint::Length(10)];
    Table::new(rows, widths)
        .header(header(["drops", "per s", "all"]))
        .block(Block::new().borders(Borders::TOP))
}

fn routers(status: &Status) -> Table<'static> {
    let rows = status.routers.iter().map(|router| {
        let colour = match router.state.as_str() {
            "usable" => Color::Green,
            "unreachable" => Color::Red,
            _ => Color::Yellow,
        };
        Row::new([
            router.address.to_string(),
            router.state.clone(),
            router.lifetime_seconds.map_or_else(|| "-".to_owned(), duration),
        ])
        .style(Style::from(colour))
    });
    let widths = [
        Constraint::Length(15),
        Constraint::Length(12),
        Constraint::Length(10),
    ];
    Table::new(rows, widths)
        .header(header(["router", "state", "lifetime"]))
        .block(Block::new().borders(Borders::TOP))
}

fn header<const N: usize>(titles: [&'static str; N]) -> Row<'static> {
    Row::new(titles).style(Style::new().add_modifier(Modifier::DIM))
}

fn footer(model: &Model) -> Line<'static> {
    let paused = if model.paused {
        Span::from("PAUSED  ").bold()
    } else {
        Span::default()
    };
    Line::from(vec![
        paused,
        Span::from("q quit  p pause  j k workers").add_modifier(Modifier::DIM),
    ])
}

/// Three digits and a letter.
fn si(value: f64) -> String {
    for (size, letter) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= size {
            let scaled = value / size;
            return if scaled >= 100.0 {
                format!("{scaled:.0}{letter}")
            } else {
                format!("{scaled:.1}{letter}")
            };
        }
    }
    if value >= 10.0 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn nanos(value: u64) -> String {
    match value {
        0 => "-".to_owned(),
        1..1_000 => format!("{value} ns"),
        1_000..1_000_000 => format!("{:.1} us", tenths(value, 1_000)),
        1_000_000..1_000_000_000 => format!("{:.1} ms", tenths(value, 1_000_000)),
        _ => format!("{:.1} s", tenths(value, 1_000_000_000)),
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
fn tenths(value: u64, unit: u64) -> f64 {
    value as f64 / unit as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::latency::LatencyRow;
    use crate::ops::status::tests::{example, with_programs};
    use hdrhistogram::Histogram;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    fn looked_twice() -> Model {
        let mut histogram = Histogram::new_with_bounds(100, 10_000_000_000, 2).unwrap();
        let mut model = Model::default();
        let row = |histogram: &Histogram<u64>| [LatencyRow::new(Some(0), "encap", histogram)];
        model.take(example(), &row(&histogram));
        let mut later = example();
        later.uptime_seconds += 2.0;
        later.total.encap.packets += 400_000;
        later.total.encap.bytes += 100_000_000;
        later.total.encap.drops.insert("too_big".to_owned(), 104);
        later.total.encap.dropped += 100;
        later.workers[0].traffic.encap.packets += 400_000;
        histogram.record_n(15_000, 99).unwrap();
        histogram.record_n(2_500_000, 1).unwrap();
        model.take(later, &row(&histogram));
        model
    }

    #[test]
    fn everything_important_fits_a_small_terminal() {
        let text = screen(&looked_twice(), 80, 24);
        for shown in [
            "is0 on gate  ready  host at 10.0.0.5, lane uring",
            "200k",
            "400M",
            "15.0 us",
            "2.5 ms",
            "encap too_big",
            "10.0.0.1",
            "usable",
            "q quit",
        ] {
            assert!(text.contains(shown), "{shown} is missing:\n{text}");
        }
    }

    #[test]
    fn the_kernel_is_beside_the_workers() {
        let mut model = Model::default();
        let mut histogram = Histogram::new_with_bounds(10, 10_000_000_000, 2).unwrap();
        let row = |histogram: &Histogram<u64>| [LatencyRow::new(None, "decap", histogram)];
        model.take(with_programs(), &row(&histogram));
        let mut later = with_programs();
        later.uptime_seconds += 2.0;
        later.programs.traffic.decap.packets += 3_000_000;
        histogram.record_n(400, 10).unwrap();
        model.take(later, &row(&histogram));
        let text = screen(&model, 80, 24);
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("\"kernel  ").contains("1.5M"), "{text}");
        assert!(line("kernel decap").contains("40"), "{text}");
        // The workers have carried nothing.
        assert!(line("\"decap").contains(" - "), "{text}");
        assert!(text.contains("lane ebpf, workers by uring"), "{text}");
    }

    #[test]
    fn trouble_is_told_and_nothing_breaks_at_any_size() {
        let mut model = looked_twice();
        model.trouble = Some("no daemon listens".to_owned());
        model.paused = true;
        let text = screen(&model, 80, 24);
        assert!(
            text.contains("NO ANSWER") && text.contains("no daemon listens"),
            "{text}"
        );
        assert!(text.contains("PAUSED"), "{text}");
        for (width, height) in [(1, 1), (20, 5), (40, 10), (300, 100)] {
            screen(&model, width, height);
        }
        screen(&Model::default(), 80, 24);
    }

    #[test]
    fn another_process_begins_anew() {
        let others: [fn(&mut Status); 2] = [
            |other| other.pid += 1,
            // An engine of the same monitor, which has been up for longer than the one before had when that was looked at last.
            |other| other.engine_pid += 1,
        ];
        for make in others {
            let mut model = looked_twice();
            let mut other = example();
            make(&mut other);
            other.uptime_seconds += 3600.0;
            other.total.encap.packets += 1_000_000;
            other.workers.truncate(1);
            model.first_worker = 1;
            model.take(other, &[]);
            assert_eq!(model.total_rates(), [Rates::default(); 2]);
            assert_eq!(model.quantiles("encap"), Quantiles::default());
            assert_eq!(model.first_worker, 0);
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (999.0, "999"),
            (1500.0, "1.5k"),
            (2.5e8, "250M"),
        ] {
            assert_eq!(si(value), text);
        }
        assert_eq!(nanos(0), "-");
        assert_eq!(nanos(1_500), "1.5 us");
    }
}
