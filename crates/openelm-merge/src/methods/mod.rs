//! The ways to merge one tensor. A new one is a file here and a row in [`METHODS`].
//!
//! What must stay true: a method sees one tensor of every model and nothing else; it reads only parameters that its row lists, and
//! these are checked against the row before any tensor is read.

mod breadcrumbs;
mod dare;
mod della;
mod linear;
mod model_stock;
mod passthrough;
mod slerp;
mod sums;
mod task_arithmetic;
mod task_vectors;
mod ties;

/// One tensor of every model, with the parameters that hold for it.
pub struct Inputs<'a> {
    /// Hugging Face's name.
    pub name: &'a str,
    pub shape: &'a [usize],
    /// The base model's values, for methods that have a base.
    pub base: &'a [f32],
    /// The other models' values.
    pub tensors: &'a [&'a [f32]],
    /// Parameters of the whole tensor.
    pub whole: &'a Values,
    /// Parameters of each model.
    pub each: &'a [Values],
    pub seed: u64,
}

/// A way to merge.
pub struct Method {
    /// As `merge_method` names it.
    pub name: &'static str,
    /// Whether one model is the base that the others are compared with.
    pub base: bool,
    /// Fewest and most models besides the base.
    pub models: (usize, usize),
    pub parameters: &'static [Parameter],
    /// Whether each value of the result depends on the values in its place alone.
    pub(crate) by_value: bool,
    pub(crate) merge: fn(&Inputs<'_>) -> Result<Vec<f32>, Fault>,
}

/// A parameter of a method.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    /// Whether each model has its own.
    pub per_model: bool,
    /// What holds when nothing is given; `None`: must be given.
    pub default: Option<f64>,
    pub kind: Kind,
}

/// What values a parameter takes. Flags and words are numbers inside: 0 and 1, the word's place.
#[derive(Debug)]
pub enum Kind {
    /// At least the first, at most the second.
    Number(f64, f64),
    Flag,
    Word(&'static [&'static str]),
}

/// Why a tensor cannot be merged: reason and remedy.
pub(crate) type Fault = (String, &'static str);

/// Resolved values of parameters, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(pub(crate) Vec<(&'static str, f64)>);

impl Values {
    /// The value; not a number for a name that the method's row does not list.
    fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|(known, _)| *known == name).map_or(f64::NAN, |(_, value)| *value)
    }

    fn is_set(&self, name: &str) -> bool {
        self.get(name) > 0.5
    }
}

impl Inputs<'_> {
    /// A parameter of each model.
    fn of_each(&self, name: &str) -> Vec<f64> {
        self.each.iter().map(|values| values.get(name)).collect()
    }
}

const ANY: Kind = Kind::Number(f64::MIN, f64::MAX);
const SHARE: Kind = Kind::Number(0.0, 1.0);

const fn whole(name: &'static str, default: Option<f64>, kind: Kind) -> Parameter {
    Parameter { name, per_model: false, default, kind }
}

const fn each(name: &'static str, default: Option<f64>, kind: Kind) -> Parameter {
    Parameter { name, per_model: true, default, kind }
}

/// What models weigh, and what the sum is multiplied with. `$normalize` is the default of `normalize`.
macro_rules! weighted {
    ($normalize:expr $(, $more:expr)*) => {
        &[each("weight", Some(1.0), ANY), whole("normalize", Some($normalize), Kind::Flag), whole("lambda", Some(1.0), ANY) $(, $more)*]
    };
}

/// How values that stay make up for those that were dropped: see [`task_vectors::Rescale`].
const RESCALE_NORM: Parameter = whole("rescale_norm", Some(0.0), Kind::Word(&["density", "l1", "l2"]));
const RESCALE: Parameter = whole("rescale", Some(1.0), Kind::Flag);
const NO_RESCALE: Parameter = whole("rescale", Some(0.0), Kind::Flag);
const DENSITY: Parameter = each("density", Some(1.0), SHARE);
const MANY: usize = usize::MAX;

/// Every way to merge.
pub const METHODS: &[Method] = &[
    Method {
        name: "linear",
        base: false,
        models: (1, MANY),
        parameters: &[each("weight", Some(1.0), ANY), whole("normalize", Some(1.0), Kind::Flag)],
        by_value: true,
        merge: linear::merge,
    },
    Method { name: "slerp", base: true, models: (1, 1), parameters: &[whole("t", None, SHARE)], by_value: false, merge: slerp::merge },
    Method {
        name: "task_arithmetic",
        base: true,
        models: (1, MANY),
        parameters: weighted!(0.0),
        by_value: true,
        merge: task_arithmetic::merge,
    },
    Method {
        name: "ties",
        base: true,
        models: (1, MANY),
        parameters: weighted!(1.0, DENSITY, NO_RESCALE, RESCALE_NORM),
        by_value: false,
        merge: ties::merge,
    },
    Method {
        name: "dare_linear",
        base: true,
        models: (1, MANY),
        parameters: weighted!(0.0, DENSITY, RESCALE, RESCALE_NORM),
        by_value: false,
        merge: dare::linear,
    },
    Method {
        name: "dare_ties",
        base: true,
        models: (1, MANY),
        parameters: weighted!(0.0, DENSITY, RESCALE, RESCALE_NORM),
        by_value: false,
        merge: dare::ties,
    },
    Method {
        name: "breadcrumbs",
        base: true,
        models: (1, MANY),
        parameters: weighted!(0.0, each("density", Some(0.9), SHARE), each("gamma", Some(0.01), SHARE), NO_RESCALE, RESCALE_NORM),
        by_value: false,
        merge: breadcrumbs::linear,
    },
    Method {
        name: "breadcrumbs_ties",
        base: true,
        models: (1, MANY),
        parameters: weighted!(0.0, each("density", Some(0.9), SHARE), each("gamma", Some(0.01), SHARE), NO_RESCALE, RESCALE_NORM),
        by_value: false,
        merge: breadcrumbs::ties,
    },
    Method {
        name: "della",
        base: true,
        models: (1, MANY),
        parameters: weighted!(0.0, DENSITY, each("epsilon", Some(0.15), SHARE), RESCALE, RESCALE_NORM),
        by_value: false,
        merge: della::ties,
    },
    Method {
        name: "della_linear",
        base: true,
        models: (1, MANY),
        parameters: weighted!(0.0, DENSITY, each("epsilon", Some(0.15), SHARE), RESCALE, RESCALE_NORM),
        by_value: false,
        merge: della::linear,
    },
    Method { name: "model_stock", base: true, models: (2, MANY), parameters: &[], by_value: false, merge: model_stock::merge },
    Method {
        name: "passthrough",
        base: false,
        models: (1, 1),
        parameters: &[each("scale", Some(1.0), ANY)],
        by_value: true,
        merge: passthrough::merge,
    },
];

impl Method {
    /// The method called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name == name)
    }
}

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Method").field(&self.name).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs a method by name with its defaults and what is given: for the whole tensor, and for every model alike.
    pub fn run(method: &str, base: &[f32], tensors: &[&[f32]], given: &[(&'static str, f64)]) -> Vec<f32> {
        let method = Method::named(method).unwrap();
        let values = |per_model| {
            let of =
                |p: &Parameter| given.iter().find(|(name, _)| *name == p.name).map_or(p.default.unwrap_or(f64::NAN), |(_, value)| *value);
            Values(method.parameters.iter().filter(|p| p.per_model == per_model).map(|p| (p.name, of(p))).collect())
        };
        let each = vec![values(true); tensors.len()];
        let shape = [tensors[0].len()];
        (method.merge)(&Inputs { name: "x", shape: &shape, base, tensors, whole: &values(false), each: &each, seed: 7 }).unwrap()
    }

    #[test]
    fn with_full_density_every_task_method_is_task_arithmetic() {
        let (base, a, b) = ([1.0, -2.0, 0.5, 4.0], [1.5, -2.5, 0.25, 4.0], [1.25, -3.0, 0.125, 5.0]);
        let expected = run("task_arithmetic", &base, &[&a, &b], &[("weight", 0.5)]);
        assert_eq!(expected, [1.375, -2.75, 0.1875, 4.5]);
        for method in ["dare_linear", "dare_ties", "della", "della_linear"] {
            assert_eq!(run(method, &base, &[&a, &b], &[("weight", 0.5)]), expected, "{method}");
        }
        for method in ["breadcrumbs", "breadcrumbs_ties"] {
            assert_eq!(run(method, &base, &[&a, &b], &[("weight", 0.5), ("density", 1.0), ("gamma", 0.0)]), expected, "{method}");
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<&str> = METHODS.iter().map(|method| method.name).collect();
        assert_eq!(names.len(), METHODS.len());
    }
}
