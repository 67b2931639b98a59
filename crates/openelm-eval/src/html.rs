//! A page that compares models: one group of bars a task and metric, and the numbers below. It needs nothing but itself.

use std::fmt::Write;

use crate::published::Published;
use crate::results::Report;

const COLOURS: [&str; 6] = ["#2563eb", "#ea580c", "#16a34a", "#9333ea", "#dc2626", "#0891b2"];
const BAR: usize = 14;
const LABELS: usize = 230;
const WIDTH: usize = 460;

/// The page for `reports`, with Apple's numbers where they are given.
pub fn html(reports: &[Report], published: Option<&Published>) -> String {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for row in reports.iter().flat_map(|report| &report.rows) {
        if !keys.contains(&(&row.task, &row.metric)) {
            keys.push((&row.task, &row.metric));
        }
    }
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>OpenELM evaluation</title><style>\
         body{font:14px system-ui,sans-serif;margin:2em;max-width:60em}table{border-collapse:collapse}\
         td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}\
         </style></head><body><h1>Evaluation</h1><p>",
    );
    for (number, report) in reports.iter().enumerate() {
        let _ = write!(page, "<span style=\"color:{}\">&#9632;</span> {} &nbsp; ", COLOURS[number % COLOURS.len()], escape(&report.model));
    }
    page += "</p>";
    page += &bars(reports, &keys);
    page += "<h2>Numbers</h2><table><tr><th>task, metric</th>";
    for report in reports {
        let _ = write!(page, "<th>{}</th>", escape(&report.model));
    }
    page += "</tr>";
    for (task, metric) in &keys {
        let _ = write!(page, "<tr><td>{}, {}</td>", escape(task), escape(metric));
        for report in reports {
            let cell = report.rows.iter().find(|row| row.task == *task && row.metric == *metric).map(|row| match row.stderr {
                Some(stderr) => format!("{:.4} ± {stderr:.4}", row.value),
                None => format!("{:.4}", row.value),
            });
            let _ = write!(page, "<td>{}</td>", cell.unwrap_or_default());
        }
        page += "</tr>";
    }
    page += "</table>";
    if let Some(published) = published {
        page += &published_table(published);
    }
    page += "</body></html>\n";
    page
}

/// Shares between 0 and 1 as bars; other values have no common scale and stand in the table alone.
fn bars(reports: &[Report], keys: &[(&str, &str)]) -> String {
    let is_share = |metric: &str| metric.starts_with("acc") || metric.starts_with("pct");
    let keys: Vec<_> = keys.iter().filter(|(_, metric)| is_share(metric)).collect();
    if keys.is_empty() {
        return String::new();
    }
    let group = reports.len() * BAR + 10;
    let mut svg = format!("<svg width=\"{}\" height=\"{}\" role=\"img\">", LABELS + WIDTH + 60, keys.len() * group + 20);
    for (place, (task, metric)) in keys.iter().enumerate() {
        let top = place * group;
        let _ = write!(svg, "<text x=\"0\" y=\"{}\">{}, {}</text>", top + group / 2 + 2, escape(task), escape(metric));
        for (number, report) in reports.iter().enumerate() {
            let Some(row) = report.rows.iter().find(|row| row.task == *task && row.metric == *metric) else { continue };
            let (y, width) = (top + number * BAR, row.value.clamp(0.0, 1.0) * WIDTH as f64);
            let colour = COLOURS[number % COLOURS.len()];
            let _ = write!(svg, "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>", BAR - 2);
            let _ = write!(
                svg,
                "<text x=\"{:.0}\" y=\"{}\" font-size=\"11\">{:.3}</text>",
                LABELS as f64 + width + 4.0,
                y + BAR - 4,
                row.value
            );
        }
    }
    svg + "</svg>"
}

fn published_table(published: &Published) -> String {
    let mut text = format!("<h2>{}, in percent</h2><table><tr><th>model</th>", escape(&published.source));
    published.tasks.iter().for_each(|task| text += &format!("<th>{}</th>", escape(task)));
    text += "</tr>";
    for (model, values) in &published.models {
        let _ = write!(text, "<tr><td>{}</td>", escape(model));
        values.iter().for_each(|value| text += &format!("<td>{value:.2}</td>"));
        text += "</tr>";
    }
    text + "</table>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::published;
    use crate::results::Row;

    #[test]
    fn names_cannot_break_the_page() {
        let row = Row { task: "<b>".into(), metric: "acc".into(), value: 0.5, stderr: None, shots: None, documents: None };
        let report = Report { model: "a&b".into(), rows: vec![row] };
        let page = html(&[report], Some(&published().unwrap()));
        assert!(page.contains("&lt;b&gt;") && page.contains("a&amp;b") && !page.contains("<b>"));
        assert!(page.contains("<rect x=\"230\" y=\"0\" width=\"230.0\"") && page.contains("OpenELM-270M"));
    }
}
