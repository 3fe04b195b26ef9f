//! A chart of the throughputs as SVG, by hand: two bars per setup.

use std::fmt::Write;

use crate::machine;
use crate::report::number;
use crate::setups::{Results, SETUPS, TCP1, TCP1_NODELAY};

/// Pixels: of the whole width, of the names, of a bar's height, of a setup's height, and of what stands above the bars.
const WIDTH: f64 = 860.0;
const NAMES: f64 = 265.0;
const BAR: f64 = 13.0;
const ROW: f64 = 36.0;
const HEAD: f64 = 64.0;
/// Where the longest bar ends, so that its value still fits.
const LONGEST: f64 = WIDTH - NAMES - 70.0;

/// Draws the throughput of one stream of every setup, for both kinds of senders.
pub fn svg(results: &Results) -> String {
    let rows: Vec<_> = SETUPS.iter().filter(|setup| results.median(setup.name, TCP1).is_some()).collect();
    let most = rows.iter().flat_map(|setup| [TCP1, TCP1_NODELAY].map(|figure| results.median(setup.name, figure).unwrap_or(0.0)));
    let scale = LONGEST / most.fold(f64::MIN_POSITIVE, f64::max);
    let height = HEAD + ROW * rows.len() as f64 + 14.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>TCP throughput of one stream, container to container</title>\n\
         <style>text {{ font: 13px sans-serif; fill: #222 }} .small {{ font-size: 11px; fill: #555 }} .a {{ fill: #2a6fb0 }} \
         .b {{ fill: #9dbfdf }} .bg {{ fill: #fff }}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{arguments}");
    };
    line(format_args!("<text x=\"10\" y=\"20\">TCP, one stream, Gbit/s of payload (median), container to container</text>"));
    line(format_args!("<text class=\"small\" x=\"10\" y=\"36\">{}</text>", escape(&machine::sentence(&results.machine))));
    line(format_args!("<rect class=\"a\" x=\"10\" y=\"44\" width=\"12\" height=\"12\"/>"));
    line(format_args!("<text class=\"small\" x=\"27\" y=\"54\">ordinary sender</text>"));
    line(format_args!("<rect class=\"b\" x=\"130\" y=\"44\" width=\"12\" height=\"12\"/>"));
    line(format_args!("<text class=\"small\" x=\"147\" y=\"54\">sender with TCP_NODELAY</text>"));
    for (n, setup) in rows.iter().enumerate() {
        let top = HEAD + ROW * n as f64;
        let middle = top + BAR + 4.0;
        line(format_args!("<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>", NAMES - 8.0, escape(setup.name)));
        for (class, figure, y) in [("a", TCP1, top), ("b", TCP1_NODELAY, top + BAR + 1.0)] {
            let Some(value) = results.median(setup.name, figure) else { continue };
            let (width, end) = (value * scale, y + BAR - 2.0);
            line(format_args!("<rect class=\"{class}\" x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\"/>"));
            line(format_args!("<text class=\"small\" x=\"{:.1}\" y=\"{end}\">{}</text>", NAMES + width + 5.0, number(value)));
        }
    }
    text.push_str("</svg>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
