//! What the demo prints: short sections, each with a heading.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;

use super::stop::Interrupted;

/// Standard output, in sections.
#[derive(Debug)]
pub struct Screen {
    bold: bool,
}

impl Screen {
    /// Headings stand out where a terminal shows them.
    pub fn new() -> Screen {
        Screen { bold: io::stdout().is_terminal() }
    }

    /// A line as it is.
    pub fn line(&self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            // A reader that has seen enough (`| head`) wants the demo to end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Interrupted.into()),
            done => done.context("cannot write to stdout"),
        }
    }

    /// An empty line and a heading.
    pub fn heading(&self, text: &str) -> anyhow::Result<()> {
        match self.bold {
            true => self.line(&format!("\n\x1b[1m{text}\x1b[0m")),
            false => self.line(&format!("\n{text}")),
        }
    }

    /// A line of a section: what, and the facts about it.
    pub fn item(&self, what: &str, facts: &str) -> anyhow::Result<()> {
        self.line(&format!("  {what:<12}{facts}"))
    }

    /// Rows in columns as wide as their widest cell; a heading that starts with `>` aligns its column to the right.
    pub fn table<const N: usize>(&self, heads: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
        for line in columns(heads, rows) {
            self.line(&format!("  {line}"))?;
        }
        Ok(())
    }
}

fn columns<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let right = heads.map(|head| head.starts_with('>'));
    let heads = heads.map(|head| head.trim_start_matches('>').to_string());
    let all: Vec<&[String; N]> = std::iter::once(&heads).chain(rows).collect();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    all.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).zip(right).map(|((cell, width), right)| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            cells.collect::<Vec<_>>().join("   ").trim_end().to_string()
        })
        .collect()
}

/// A round trip in milliseconds.
pub fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// A longer time in whole milliseconds.
pub fn whole_milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            ["c1".to_string(), "0.21 ms".to_string(), "direct".to_string()],
            ["c10".to_string(), "10.21 ms".to_string(), "via h2".to_string()],
        ];
        let expected = ["FROM        RTT   PATH", "c1      0.21 ms   direct", "c10    10.21 ms   via h2"];
        assert_eq!(columns(["FROM", ">RTT", "PATH"], &rows), expected);
        assert_eq!(milliseconds(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(whole_milliseconds(Duration::from_micros(612_400)), "612 ms");
    }
}
