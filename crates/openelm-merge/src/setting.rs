//! One parameter of a recipe, as mergekit writes it: a scalar, a gradient over the layers, or a list of values with name filters.
//!
//! What must stay true: the first condition whose filter occurs in the tensor's name decides; a gradient is a line through its
//! points, spread evenly over t from 0 (first layer) to 1 (last).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_yaml_ng::Value;

/// Parameters by name.
pub type Settings = BTreeMap<String, Setting>;

/// The value of one parameter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub enum Setting {
    Scalar(Scalar),
    /// At least one point.
    Gradient(Vec<f64>),
    Conditions(Vec<Condition>),
}

/// A value without further structure.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    Flag(bool),
    Number(f64),
    Text(String),
}

/// A value for the tensors whose name holds `filter`; for all without one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    pub value: Setting,
}

impl Setting {
    /// A plain number.
    pub fn number(value: f64) -> Self {
        Self::Scalar(Scalar::Number(value))
    }

    /// The value for the tensor `name` at `t`; `None` when no condition fits.
    pub fn at(&self, name: &str, t: f64) -> Option<Scalar> {
        match self {
            Self::Scalar(scalar) => Some(scalar.clone()),
            Self::Gradient(points) => gradient(points, t).map(Scalar::Number),
            Self::Conditions(conditions) => {
                let fits = |filter: &str| filter == "*" || name.contains(filter);
                let first = conditions.iter().find(|condition| condition.filter.as_deref().is_none_or(fits))?;
                first.value.at(name, t)
            }
        }
    }
}

/// The line through evenly spaced `points` at `t` from 0 to 1.
fn gradient(points: &[f64], t: f64) -> Option<f64> {
    let place = t.clamp(0.0, 1.0) * points.len().saturating_sub(1) as f64;
    let before = place.floor() as usize;
    let left = *points.get(before)?;
    let right = points.get(before + 1).copied().unwrap_or(left);
    let share = place - before as f64;
    Some((1.0 - share) * left + share * right)
}

impl TryFrom<Value> for Setting {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(flag) => Ok(Self::Scalar(Scalar::Flag(flag))),
            Value::Number(number) => match number.as_f64() {
                Some(number) if number.is_finite() => Ok(Self::number(number)),
                _ => Err(format!("{number} is no finite number")),
            },
            Value::String(text) => Ok(Self::Scalar(Scalar::Text(text))),
            Value::Sequence(items) if items.is_empty() => Err("the list is empty".into()),
            Value::Sequence(items) if items.iter().all(Value::is_number) => {
                let points: Vec<f64> = items.iter().filter_map(Value::as_f64).collect();
                if points.iter().all(|point| point.is_finite()) {
                    Ok(Self::Gradient(points))
                } else {
                    Err("the list holds a number that is not finite".into())
                }
            }
            Value::Sequence(items) => Ok(Self::Conditions(items.into_iter().map(condition).collect::<Result<_, _>>()?)),
            _ => Err("a parameter is a number, true or false, a word, a list of numbers, or a list of {filter, value}".into()),
        }
    }
}

fn condition(item: Value) -> Result<Condition, String> {
    let Value::Mapping(fields) = item else {
        return Err("a list holds either numbers alone or {filter, value} alone".into());
    };
    let (mut filter, mut value) = (None, None);
    for (key, field) in fields {
        match (key.as_str(), field) {
            (Some("filter"), Value::String(text)) => filter = Some(text),
            (Some("filter"), Value::Null) => {}
            (Some("filter"), _) => return Err("`filter` must be a part of a tensor's name".into()),
            (Some("value"), field) => value = Some(Setting::try_from(field)?),
            _ => return Err("a condition has the keys `filter` and `value` alone".into()),
        }
    }
    Ok(Condition { filter, value: value.ok_or("a condition needs the key `value`")? })
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(scalar) => scalar.serialize(serializer),
            Self::Gradient(points) => points.serialize(serializer),
            Self::Conditions(conditions) => conditions.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Setting, String> {
        serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn gradients_and_filters() {
        let setting = read("[{filter: attn, value: [0, 0.5, 0.3, 0.7, 1]}, {value: 0.25}]").unwrap();
        let at = |name, t| setting.at(name, t).unwrap();
        assert_eq!(at("layers.0.attn.qkv_proj.weight", 0.25), Scalar::Number(0.5));
        assert_eq!(at("layers.0.attn.qkv_proj.weight", 0.375), Scalar::Number(0.4));
        assert_eq!(at("layers.0.attn.qkv_proj.weight", 1.0), Scalar::Number(1.0));
        assert_eq!(at("layers.0.ffn.proj_1.weight", 1.0), Scalar::Number(0.25));
        assert_eq!(read("[{filter: attn, value: 1}]").unwrap().at("norm.weight", 0.0), None);
        let back: Setting = serde_yaml_ng::from_str(&serde_yaml_ng::to_string(&setting).unwrap()).unwrap();
        assert_eq!(back, setting);
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, reason) in [
            ("[]", "empty"),
            ("[1, {value: 2}]", "numbers alone"),
            ("[{filters: a, value: 2}]", "`filter` and `value` alone"),
            ("[{filter: a}]", "needs the key `value`"),
            (".nan", "no finite number"),
            ("{a: 1}", "a parameter is"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(reason), "{text}: {message}");
        }
    }
}
