//! Points of a search as recipes: each searched parameter has a value for each model (where it is a model's) and each layer group; or
//! the coordinates say which layers follow each other (see [`Layers`]).
//!
//! What must stay true: every point, however far out, is a recipe with all values inside their ranges; what leaves the range comes
//! back as from a mirror, so that the search sees no wall.

use crate::data_flow::Layers;
use crate::methods::Method;
use crate::models::Models;
use crate::plan::Plan;
use crate::recipe::{Recipe, Source};
use crate::search_file::{Range, SearchFile};
use crate::setting::{Setting, Settings};

/// The meaning of a point's coordinates.
#[derive(Debug)]
pub(crate) struct Genome<'a> {
    file: &'a SearchFile,
    space: Space<'a>,
}

/// What is searched.
#[derive(Debug)]
enum Space<'a> {
    /// Name, range, and model for parameters of one model.
    Parameters(Vec<(&'a str, Range, Option<usize>)>),
    Layers(Layers<'a>),
}

impl<'a> Genome<'a> {
    /// For the models of `file`, which `models` holds.
    pub fn new(file: &'a SearchFile, models: &Models) -> Self {
        match &file.data_flow {
            Some(flow) => Self { file, space: Space::Layers(Layers::new(file, flow, models)) },
            None => Self { file, space: Space::Parameters(Self::genes(file)) },
        }
    }

    fn genes(file: &'a SearchFile) -> Vec<(&'a str, Range, Option<usize>)> {
        let mut genes = Vec::new();
        for (name, range) in &file.search {
            let known =
                Method::named(&file.merge_method).and_then(|method| method.parameters.iter().find(|parameter| parameter.name == name));
            match known.is_some_and(|parameter| parameter.per_model) {
                true => genes.extend((0..file.models.len()).map(|model| (name.as_str(), *range, Some(model)))),
                false => genes.push((name, *range, None)),
            }
        }
        genes
    }

    /// Coordinates of the first point.
    pub fn start(&self) -> Vec<f64> {
        match &self.space {
            Space::Parameters(genes) => {
                let groups = self.file.layer_groups;
                genes.iter().flat_map(|(_, range, _)| std::iter::repeat_n(range.start_coordinate(), groups)).collect()
            }
            Space::Layers(layers) => layers.start(),
        }
    }

    /// The recipe of a point.
    pub fn recipe(&self, point: &[f64]) -> Recipe {
        match &self.space {
            Space::Parameters(genes) => self.of_parameters(genes, point),
            Space::Layers(layers) => {
                Recipe { slices: layers.slices(point), ..self.plain(&self.file.merge_method, Vec::new(), Settings::new()) }
            }
        }
    }

    fn of_parameters(&self, genes: &[(&str, Range, Option<usize>)], point: &[f64]) -> Recipe {
        let mut whole = self.file.parameters.clone();
        let mut each = vec![Settings::new(); self.file.models.len()];
        for ((name, range, model), coordinates) in genes.iter().zip(point.chunks(self.file.layer_groups)) {
            let values: Vec<f64> = coordinates.iter().map(|coordinate| range.value(*coordinate)).collect();
            let setting = match values.as_slice() {
                [only] => Setting::number(*only),
                _ => Setting::Gradient(values),
            };
            let settings = match model {
                Some(model) => &mut each[*model],
                None => &mut whole,
            };
            settings.insert((*name).to_owned(), setting);
        }
        let source = |(model, parameters)| Source { model, layer_range: None, parameters };
        self.plain(&self.file.merge_method, self.file.models.iter().cloned().zip(each).map(source).collect(), whole)
    }

    /// Whether the models of the search have a mean: those of a search for layers may differ in shape.
    pub fn has_mean(&self, models: &Models) -> bool {
        match &self.space {
            Space::Parameters(_) => true,
            Space::Layers(_) => Plan::new(&self.mean(&self.file.models), models).is_ok(),
        }
    }

    /// The mean of `models`.
    pub fn mean(&self, models: &[std::path::PathBuf]) -> Recipe {
        let source = |model: &std::path::PathBuf| Source { model: model.clone(), layer_range: None, parameters: Settings::new() };
        Recipe { base_model: None, ..self.plain("linear", models.iter().map(source).collect(), Settings::new()) }
    }

    fn plain(&self, method: &str, models: Vec<Source>, parameters: Settings) -> Recipe {
        Recipe {
            merge_method: method.to_owned(),
            models,
            slices: Vec::new(),
            base_model: self.file.base_model.clone(),
            parameters,
            dtype: self.file.dtype,
            out_dtype: None,
            seed: self.file.seed,
            tokenizer_source: None,
            path: self.file.path.clone(),
        }
    }
}

impl Range {
    /// The coordinate of the value that a search begins with.
    pub(crate) fn start_coordinate(&self) -> f64 {
        self.start.map_or(0.5, |start| (start - self.from) / (self.to - self.from))
    }

    /// The value of a coordinate, inside the range.
    pub(crate) fn value(&self, coordinate: f64) -> f64 {
        rounded(self.from + (self.to - self.from) * mirrored(coordinate))
    }
}

/// `x` folded into [0, 1] at its walls.
pub(crate) fn mirrored(x: f64) -> f64 {
    let x = x.rem_euclid(2.0);
    if x > 1.0 { 2.0 - x } else { x }
}

/// Six digits: what a recipe shows is what was measured.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_are_mirrors() {
        for (x, folded) in [(0.25, 0.25), (1.25, 0.75), (-0.25, 0.25), (2.25, 0.25), (3.5, 0.5)] {
            assert_eq!(mirrored(x), folded, "{x}");
        }
    }

    #[test]
    fn points_are_recipes() {
        let text = "merge_method: ties\nmodels: [a, b]\nbase_model: c\nlayer_groups: 2\ngenerations: 1\nobjective: {files: [x.jsonl]}\n\
                    parameters: {normalize: true}\nsearch:\n  weight: {from: 0, to: 2, start: 0.5}\n  lambda: {from: 1, to: 3}\n";
        let file: SearchFile = serde_yaml_ng::from_str(text).unwrap();
        let genome = Genome { file: &file, space: Space::Parameters(Genome::genes(&file)) };
        // lambda's two layer groups, then weight's two for each model.
        assert_eq!(genome.start(), [0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
        let recipe = genome.recipe(&[0.0, 1.0, 0.5, 0.25, 1.0, 1.5]);
        assert_eq!(recipe.parameters["lambda"], Setting::Gradient(vec![1.0, 3.0]));
        assert_eq!(recipe.models[0].parameters["weight"], Setting::Gradient(vec![1.0, 0.5]));
        assert_eq!(recipe.models[1].parameters["weight"], Setting::Gradient(vec![2.0, 1.0]));
        assert_eq!(recipe.parameters.len(), 2);
    }
}
