//! A search as a picture: the best value so far, and each generation's spread.

use std::fmt::Write;

use crate::evolve::Generation;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 60.0;

/// An SVG of the generations: a band from each one's best to its worst, its median, and the best so far.
pub(crate) fn plot(generations: &[Generation]) -> String {
    let rows: Vec<[f64; 4]> = generations.iter().filter_map(row).collect();
    let least = rows.iter().map(|row| row[3].min(row[0])).fold(f64::INFINITY, f64::min);
    let most = rows.iter().map(|row| row[2]).fold(f64::NEG_INFINITY, f64::max);
    let span = if most > least { most - least } else { 1.0 };
    let x = |place: usize| MARGIN + (WIDTH - 2.0 * MARGIN) * place as f64 / rows.len().saturating_sub(1).max(1) as f64;
    let y = |value: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * (value - least) / span;
    let line = |column: usize| {
        let point = |(place, row): (usize, &[f64; 4])| format!("{:.1},{:.1}", x(place), y(row[column]));
        rows.iter().enumerate().map(point).collect::<Vec<_>>()
    };
    let (low, high) = (line(0), line(2));
    let band: Vec<String> = low.into_iter().chain(high.into_iter().rev()).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">"
    );
    let _ = write!(svg, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>");
    let _ = write!(svg, "<polygon points=\"{}\" fill=\"#bfdbfe\"/>", band.join(" "));
    let _ = write!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#60a5fa\"/>", line(1).join(" "));
    let _ = write!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1d4ed8\" stroke-width=\"2\"/>", line(3).join(" "));
    if !rows.is_empty() {
        for value in [least, most] {
            let _ = write!(svg, "<text x=\"4\" y=\"{:.1}\">{value:.4}</text>", y(value) + 4.0);
        }
    }
    let _ = write!(svg, "<text x=\"{MARGIN}\" y=\"{}\">generations 1 to {}</text>", HEIGHT - MARGIN / 3.0, generations.len());
    let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"24\">value: best so far (dark), median and range of each generation</text></svg>");
    svg
}

/// Least, median and largest value that is a number, and the best so far.
fn row(generation: &Generation) -> Option<[f64; 4]> {
    let mut values: Vec<f64> = generation.values.iter().copied().filter(|value| value.is_finite() && *value < f64::MAX).collect();
    values.sort_by(f64::total_cmp);
    Some([*values.first()?, *values.get(values.len() / 2)?, *values.last()?, generation.best])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_any_number_of_generations() {
        let generation = |generation, values: &[f64], best| Generation { generation, values: values.to_vec(), sigma: 0.1, best };
        assert!(plot(&[]).ends_with("</svg>\n"));
        assert!(!plot(&[generation(1, &[2.0, 2.0], 2.0)]).contains("NaN"));
        let two = plot(&[generation(1, &[3.0, 4.0, f64::NAN], 3.0), generation(2, &[2.0, 3.0, 2.5], 2.0)]);
        assert!(two.contains("points=\"60.0,160.0 580.0,260.0\"") && !two.contains("NaN"), "{two}");
    }
}
