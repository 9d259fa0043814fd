//! The plot: a line for each workload, a dot for each rival, on a logarithmic scale of multiples of the kernel's time.

use super::report::Report;
use super::stats::Spread;
use super::workloads::Group;

/// Of what stands apart for those who do not see all colours well; the first is the one that it is about.
const COLOURS: [&str; 4] = ["#d1495b", "#2e6f9e", "#8ab6d6", "#b8a06a"];
const LINE: f64 = 21.0;
const LEFT: f64 = 330.0;
const WIDTH: f64 = 620.0;
const TOP: f64 = 92.0;
const RIGHT: f64 = 40.0;
/// From a quarter to 64 times the kernel's time; what lies beyond is drawn at the rim.
const LEAST: f64 = 0.25;
const MOST: f64 = 64.0;

/// The plot as SVG.
pub fn svg(report: &Report) -> String {
    let groups: Vec<Group> =
        Group::ALL.into_iter().filter(|group| report.rows.iter().any(|row| row.group == *group)).collect();
    let lines = report.rows.len() + groups.len();
    let height = TOP + lines as f64 * LINE + groups.len() as f64 * 10.0 + 20.0;
    let bottom = height - 20.0;
    let total = LEFT + WIDTH + RIGHT;
    let mut out = String::new();
    let mut add = |text: String| out.push_str(&(text + "\n"));
    add(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total} {height}\" width=\"{total}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#333\">"
    ));
    add(format!("<rect width=\"{total}\" height=\"{height}\" fill=\"#fff\"/>"));
    add(format!("<text x=\"16\" y=\"28\" font-size=\"16\" font-weight=\"bold\">{}</text>", report.title()));
    let mut x = 16.0;
    for (name, colour) in report.rivals.iter().skip(1).zip(COLOURS.iter().cycle()) {
        add(format!("<circle cx=\"{}\" cy=\"50\" r=\"5\" fill=\"{colour}\"/>", x + 5.0));
        add(format!("<text x=\"{}\" y=\"54\">{name}</text>", x + 15.0));
        x += 36.0 + name.len() as f64 * 6.6;
    }
    add(format!("<text x=\"{x}\" y=\"54\" fill=\"#777\">left is faster; bars reach from the least to the most</text>"));
    let mut tick = LEAST;
    while tick <= MOST {
        let is_kernel = (tick - 1.0).abs() < f64::EPSILON;
        let (colour, width) = if is_kernel { ("#333", 1.5) } else { ("#e3e3e3", 1.0) };
        let at = place(tick);
        add(format!(
            "<line x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            TOP - 8.0
        ));
        let label = if is_kernel { "kernel".to_owned() } else { format!("{tick}×") };
        add(format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#777\">{label}</text>", TOP - 14.0));
        tick *= 2.0;
    }
    let mut y = TOP;
    for group in groups {
        y += 10.0;
        add(format!("<text x=\"16\" y=\"{:.1}\" font-weight=\"bold\">{}</text>", y + LINE * 0.7, group.title()));
        y += LINE;
        for row in report.rows.iter().filter(|row| row.group == group) {
            let middle = y + LINE / 2.0;
            add(format!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 14.0,
                middle + 4.0,
                row.name
            ));
            add(format!(
                "<line x1=\"{LEFT}\" y1=\"{middle:.1}\" x2=\"{}\" y2=\"{middle:.1}\" stroke=\"#f2f2f2\"/>",
                LEFT + WIDTH
            ));
            // The first is drawn last, over the others.
            for rival in (1..report.rivals.len()).rev() {
                if let Some(ratio) = row.ratio(rival) {
                    add(mark(ratio, middle, COLOURS[(rival - 1) % COLOURS.len()], rival == 1));
                }
            }
            y += LINE;
        }
    }
    out + "</svg>\n"
}

/// A dot at the median, and a bar from the least to the most.
fn mark(ratio: Spread, y: f64, colour: &str, is_first: bool) -> String {
    let (low, median, high) = (place(ratio.low), place(ratio.median), place(ratio.high));
    let radius = if is_first { 5.5 } else { 4.0 };
    format!(
        "<line x1=\"{low:.1}\" y1=\"{y:.1}\" x2=\"{high:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-opacity=\"0.45\"/>\n<circle cx=\"{median:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\" \
         stroke=\"#fff\" stroke-width=\"0.8\"><title>{:.2} ({:.2}–{:.2})</title></circle>",
        ratio.median, ratio.low, ratio.high
    )
}

/// Where a multiple lies, in pixels from the left.
fn place(ratio: f64) -> f64 {
    let share = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LEFT + share * WIDTH
}
