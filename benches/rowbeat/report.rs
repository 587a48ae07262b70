//! Figures, how they relate to their yardsticks, and how they are printed.
//!
//! The compared variants alternate, so a ratio is taken within each run; what is printed is the median of these.

use std::io::IsTerminal;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::options::Options;

/// What was measured, once for each run.
pub struct Figure {
    case: String,
    unit: &'static str,
    values: Vec<f64>,
    ratios: Vec<Ratio>,
    at_most: Option<f64>,
}

/// The same divided by a yardstick of the same run.
struct Ratio {
    to: String,
    values: Vec<f64>,
    at_least: Option<f64>,
}

impl Figure {
    /// A figure without a yardstick.
    pub fn new(case: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { case: case.into(), unit, values, ratios: Vec::new(), at_most: None }
    }

    /// Its ratio to a yardstick of the same runs, and what that should at least be.
    pub fn to(mut self, to: impl Into<String>, yardstick: &[f64], at_least: Option<f64>) -> Self {
        let values = self.values.iter().zip(yardstick).map(|(value, of)| value / of).collect();
        self.ratios.push(Ratio { to: to.into(), values, at_least });
        self
    }

    /// What it should at most be.
    pub fn at_most(mut self, limit: f64) -> Self {
        self.at_most = Some(limit);
        self
    }

    fn missed(&self) -> bool {
        self.at_most.is_some_and(|most| median(&self.values) > most)
    }
}

impl Ratio {
    fn missed(&self) -> bool {
        self.at_least.is_some_and(|least| median(&self.values) < least)
    }
}

/// The value at a share of the values.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(index - 1).copied().unwrap_or(f64::NAN)
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

fn least(values: &[f64]) -> f64 {
    percentile(values, 0.0)
}

fn most(values: &[f64]) -> f64 {
    percentile(values, 1.0)
}

/// What is being done, for somebody who watches.
pub fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K{text}");
    }
}

/// Prints the table; a figure with several yardsticks takes several lines.
pub fn print_table(figures: &[(String, Figure)]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["MEASURE", "CASE", "VALUE", "", "SPREAD", "RATIO", "TO", "TARGET"]);
    for (measure, figure) in figures {
        let value = median(&figure.values);
        let spread = match figure.values.len() {
            1 => String::new(),
            _ => format!("{} - {}", short(least(&figure.values)), short(most(&figure.values))),
        };
        let mut row =
            [measure.clone(), figure.case.clone(), short(value), figure.unit.to_owned(), spread].to_vec();
        if figure.ratios.is_empty() {
            row.extend(["".to_owned(), "".to_owned(), target("<=", figure.at_most, figure.missed())]);
            table.add_row(row);
            continue;
        }
        for (number, ratio) in figure.ratios.iter().enumerate() {
            let mut row = if number == 0 { row.clone() } else { vec![String::new(); row.len()] };
            row.extend([
                short(median(&ratio.values)),
                ratio.to.clone(),
                target(">=", ratio.at_least, ratio.missed()),
            ]);
            table.add_row(row);
        }
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if [2, 5].contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

fn target(sign: &str, bound: Option<f64>, missed: bool) -> String {
    bound.map_or_else(String::new, |bound| format!("{sign} {bound}{}", if missed { ", missed" } else { "" }))
}

/// Prints everything for machines.
pub fn print_json(options: &Options, server: &str, figures: &[(String, Figure)]) {
    let spread = |values: &[f64]| json!({ "median": median(values), "low": least(values), "high": most(values), "runs": values });
    let figures: Vec<Value> = figures
        .iter()
        .map(|(measure, figure)| {
            let ratios: Vec<Value> = figure
                .ratios
                .iter()
                .map(|r| json!({ "to": r.to, "value": spread(&r.values), "at_least": r.at_least, "missed": r.missed() }))
                .collect();
            json!({ "measure": measure, "case": figure.case, "unit": figure.unit, "value": spread(&figure.values),
                "at_most": figure.at_most, "missed": figure.missed(), "ratios": ratios })
        })
        .collect();
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "server": server,
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "runs": options.runs, "tasks": options.tasks, "waiting": options.waiting, "rate": options.rate, "raw": options.raw, "merchants": options.merchants, "secs": options.secs,
        "figures": figures,
    });
    println!("{}", serde_json::to_string_pretty(&document).unwrap());
}

/// A number for people: three digits or more, no more decimals than they help.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
