//! Points of a search over the order of layers, as Sakana AI has them ("Evolutionary Optimization of Model Merging Recipes", 2024):
//! all layers of all models stand in a row, several times over; an indicator for each says whether it is taken, and a factor for each
//! scales the stream into it.
//!
//! A passthrough recipe can say both. A block reads the stream through RMS norms, which a factor does not change, and adds to it; so
//! to multiply the stream by w before a block is to divide what this block and all later ones add by w, but for a factor of the whole
//! stream, which the last norm takes away. What a block adds comes from `out_proj` and `ffn.proj_2`.
//!
//! What must stay true: every point is a recipe with at least one layer and at most `max_layers`; layers stay in the order of the row.

use crate::genome::{mirrored, rounded};
use crate::models::Models;
use crate::recipe::{Slice, Source};
use crate::search_file::{DataFlow, SearchFile};
use crate::setting::{Condition, Setting, Settings};

/// Coordinates above this take their layer.
const TAKEN: f64 = 0.5;
/// Where the first point stands: the first model's own layers, and no others.
const START: [f64; 2] = [0.25, 0.75];
/// Ends of the names of what adds to the stream.
const ADDING: [&str; 2] = ["attn.out_proj", "ffn.proj_2"];

/// The row of candidates.
#[derive(Debug)]
pub(crate) struct Layers<'a> {
    file: &'a SearchFile,
    flow: &'a DataFlow,
    /// Model and layer of each candidate.
    row: Vec<(usize, usize)>,
    /// Candidates that the first point takes.
    first: usize,
}

/// Consecutive layers of one model with one factor.
struct Stretch {
    model: usize,
    from: usize,
    to: usize,
    /// What the layers add is multiplied by this.
    scale: f64,
    /// Place in the row of the last one.
    place: usize,
}

impl<'a> Layers<'a> {
    /// For the models of `file`, which `models` holds in their order.
    pub fn new(file: &'a SearchFile, flow: &'a DataFlow, models: &Models) -> Self {
        let counts: Vec<usize> =
            file.models.iter().map(|path| models.number(path).map_or(0, |number| models.config(number).num_transformer_layers)).collect();
        let once = || counts.iter().enumerate().flat_map(|(model, count)| (0..*count).map(move |layer| (model, layer)));
        let row = (0..flow.repetitions).flat_map(|_| once()).collect();
        Self { file, flow, row, first: counts.first().copied().unwrap_or(0) }
    }

    /// Indicators of the row, then the factors where they are searched.
    pub fn start(&self) -> Vec<f64> {
        let indicators = (0..self.row.len()).map(|place| START[usize::from(place < self.first)]);
        let factors = self.flow.scale.iter().flat_map(|range| std::iter::repeat_n(range.start_coordinate(), self.row.len()));
        indicators.chain(factors).collect()
    }

    /// The runs of layers of a point.
    pub fn slices(&self, point: &[f64]) -> Vec<Slice> {
        let (indicators, factors) = point.split_at(self.row.len().min(point.len()));
        let mut divisor = 1.0;
        let mut stretches: Vec<Stretch> = Vec::new();
        for place in self.taken(indicators) {
            let Some(&(model, layer)) = self.row.get(place) else { continue };
            if let (Some(range), Some(coordinate)) = (&self.flow.scale, factors.get(place)) {
                divisor *= range.value(*coordinate);
            }
            let scale = rounded(1.0 / divisor);
            match stretches.last_mut() {
                // The next layer of the same repetition.
                Some(last) if (last.model, last.to, last.scale, last.place + 1) == (model, layer, scale, place) => {
                    (last.to, last.place) = (layer + 1, place);
                }
                _ => stretches.push(Stretch { model, from: layer, to: layer + 1, scale, place }),
            }
        }
        stretches.into_iter().map(|stretch| self.slice(&stretch)).collect()
    }

    /// Places of the layers that a point takes, in order. The largest indicators win where there would be none, or too many.
    fn taken(&self, indicators: &[f64]) -> Vec<usize> {
        let mut places: Vec<(usize, f64)> = indicators.iter().map(|coordinate| mirrored(*coordinate)).enumerate().collect();
        places.sort_by(|(a, one), (b, other)| other.total_cmp(one).then(a.cmp(b)));
        let wanted = places.iter().filter(|(_, coordinate)| *coordinate > TAKEN).count();
        places.truncate(wanted.min(self.flow.max_layers.unwrap_or(usize::MAX)).max(1));
        let mut taken: Vec<usize> = places.into_iter().map(|(place, _)| place).collect();
        taken.sort_unstable();
        taken
    }

    fn slice(&self, stretch: &Stretch) -> Slice {
        let mut parameters = Settings::new();
        if stretch.scale != 1.0 {
            let condition = |tail: &str| Condition { filter: Some(tail.to_owned()), value: Setting::number(stretch.scale) };
            parameters.insert("scale".to_owned(), Setting::Conditions(ADDING.map(condition).into()));
        }
        let model = self.file.models.get(stretch.model).cloned().unwrap_or_default();
        let source = Source { model, layer_range: Some([stretch.from, stretch.to]), parameters };
        Slice { sources: vec![source], parameters: Settings::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SearchFile {
        let head = "merge_method: passthrough\nmodels: [a, b]\ngenerations: 1\nobjective: {files: [x.jsonl]}\n";
        serde_yaml_ng::from_str(&format!("{head}data_flow: {text}\n")).unwrap()
    }

    fn layers<'a>(file: &'a SearchFile) -> Layers<'a> {
        let row = [0, 1].repeat(2).into_iter().flat_map(|model| (0..2).map(move |layer| (model, layer))).collect();
        Layers { file, flow: file.data_flow.as_ref().unwrap(), row, first: 2 }
    }

    /// `a0-2` for layers 0 and 1 of a.
    fn said(slices: &[Slice]) -> String {
        let text = |slice: &Slice| {
            let source = &slice.sources[0];
            let [from, to] = source.layer_range.unwrap();
            format!("{}{from}-{to}", source.model.display())
        };
        slices.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn indicators_choose_layers() {
        let file = file("{repetitions: 2, max_layers: 5}");
        let layers = layers(&file);
        assert_eq!(said(&layers.slices(&layers.start())), "a0-2");
        // Row: a0 a1 b0 b1 a0 a1 b0 b1.
        for (point, expected) in [
            ([0.9, 0.1, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1], "a0-1 b1-2 a1-2"),
            // Layers that follow each other in the model but not in the row are two slices.
            ([0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1], "a0-1 a1-2"),
            ([0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2], "b0-1"),
            ([0.9, 0.8, 0.9, 0.9, 0.7, 0.6, 1.1, 0.6], "a0-2 b0-2 b0-1"),
            ([-0.9, 1.9, 2.1, 0.1, 0.1, 0.1, 0.1, 0.1], "a0-1"),
        ] {
            assert_eq!(said(&layers.slices(&point)), expected, "{point:?}");
        }
    }

    #[test]
    fn factors_divide_what_comes_after_them() {
        let file = file("{repetitions: 2, scale: {from: 0.5, to: 2.5, start: 1}}");
        let layers = layers(&file);
        let mut point = layers.start();
        assert_eq!(point.len(), 16);
        assert_eq!(said(&layers.slices(&point)), "a0-2");
        // 2 before layer 1 of a, 0.5 before layer 0 of b.
        (point[2], point[8 + 1], point[8 + 2]) = (0.9, 0.75, 0.0);
        let slices = layers.slices(&point);
        assert_eq!(said(&slices), "a0-1 a1-2 b0-1");
        let scale = |slice: &Slice, name: &str| slice.sources[0].parameters.get("scale").and_then(|setting| setting.at(name, 1.0));
        let number = |value| Some(crate::setting::Scalar::Number(value));
        assert_eq!(scale(&slices[0], "transformer.layers.0.attn.out_proj.weight"), None);
        for name in ["transformer.layers.1.attn.out_proj.weight", "transformer.layers.1.ffn.proj_2.weight"] {
            assert_eq!(scale(&slices[1], name), number(0.5));
        }
        assert_eq!(scale(&slices[1], "transformer.layers.1.attn.qkv_proj.weight"), None);
        assert!(slices[2].sources[0].parameters.is_empty());
    }
}
