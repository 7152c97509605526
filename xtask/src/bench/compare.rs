//! Ratios, and only of what was measured alike.

use std::fmt;

use super::measurement::{Measurement, Summary};

/// Why two measurements are not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotComparable {
    /// They count different things.
    Units(String),
    /// They were taken under different conditions.
    Conditions(Vec<String>),
    /// Sample `n` of one is not of the round of sample `n` of the other.
    Rounds(usize, usize),
    /// What is divided by is 0.
    Zero,
}

impl fmt::Display for NotComparable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Units(units) => write!(formatter, "not the same unit ({units})"),
            Self::Conditions(differences) => {
                write!(formatter, "not measured alike ({})", differences.join("; "))
            }
            Self::Rounds(one, other) => write!(formatter, "not as many rounds ({one} and {other})"),
            Self::Zero => formatter.write_str("there is nothing to divide by (0)"),
        }
    }
}

impl std::error::Error for NotComparable {}

/// How many times the other one is: the quotients of each round, in which both were measured one soon after the other, so
/// that a slow minute of the machine is in both.
///
/// # Errors
/// When they were not measured alike.
pub fn ratio(one: &Measurement, other: &Measurement) -> Result<Summary, NotComparable> {
    alike(one, other)?;
    quotients(&one.samples, &other.samples)
}

/// How many times what `other` takes beyond `base` is what `one` takes beyond it: processor time, of which what a direct
/// connection takes as well is not the balancing's. Below 0 if `one` took less than `base`.
///
/// # Errors
/// When the three were not measured alike, or `other` takes nothing beyond `base`.
pub fn ratio_beyond(
    one: &Measurement,
    other: &Measurement,
    base: &Measurement,
) -> Result<Summary, NotComparable> {
    alike(one, other)?;
    alike(one, base)?;
    let beyond = |of: &Measurement| -> Vec<f64> {
        let samples = of.samples.iter().zip(&base.samples);
        samples.map(|(sample, base)| sample - base).collect()
    };
    let others = beyond(other);
    // The differences of a single round are small and noisy, and may be 0; their median is not, if there is anything.
    let divisor = Summary::of(&others).median;
    if divisor <= 0.0 {
        return Err(NotComparable::Zero);
    }
    let quotients: Vec<f64> = beyond(one).iter().map(|sample| sample / divisor).collect();
    Ok(Summary::of(&quotients))
}

fn quotients(ones: &[f64], others: &[f64]) -> Result<Summary, NotComparable> {
    if others.contains(&0.0) {
        return Err(NotComparable::Zero);
    }
    let quotients: Vec<f64> = ones.iter().zip(others).map(|(one, other)| one / other).collect();
    Ok(Summary::of(&quotients))
}

fn alike(one: &Measurement, other: &Measurement) -> Result<(), NotComparable> {
    if one.unit != other.unit {
        return Err(NotComparable::Units(format!("{} and {}", one.unit, other.unit)));
    }
    let differences = one.conditions.differences(&other.conditions);
    if !differences.is_empty() {
        return Err(NotComparable::Conditions(differences));
    }
    if one.samples.len() != other.samples.len() {
        return Err(NotComparable::Rounds(one.samples.len(), other.samples.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::measurement::{Conditions, Key, Section, Unit};
    use super::*;

    fn measured(samples: &[f64]) -> Measurement {
        Measurement {
            key: Key::new(Section::Site, "row", "candidate", "quantity"),
            unit: Unit::Cores,
            samples: samples.to_vec(),
            conditions: Conditions::new().with("TSO", "off"),
        }
    }

    #[test]
    fn a_slow_round_is_in_both() {
        let (one, other) = (measured(&[10.0, 40.0, 11.0]), measured(&[5.0, 20.0, 5.0]));
        assert_eq!(ratio(&one, &other).unwrap().median, 2.0);
    }

    #[test]
    fn what_goes_beyond_a_third() {
        let base = measured(&[1.0, 1.0, 2.0]);
        let (one, other) = (measured(&[1.1, 1.0, 2.1]), measured(&[1.5, 1.4, 2.6]));
        let ratio = ratio_beyond(&one, &other, &base).unwrap();
        assert!((ratio.median - 0.2).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ratio_beyond(&one, &base, &base), Err(NotComparable::Zero));
    }

    #[test]
    fn only_what_was_measured_alike() {
        let one = measured(&[1.0, 2.0]);
        let mut other = one.clone();
        other.conditions = Conditions::new().with("TSO", "on");
        let refused = ratio(&one, &other).unwrap_err();
        assert_eq!(refused.to_string(), "not measured alike (TSO: off and on)");
        assert_eq!(ratio_beyond(&one, &one, &other), Err(refused));

        other = measured(&[1.0]);
        assert_eq!(ratio(&one, &other), Err(NotComparable::Rounds(2, 1)));
        other.unit = Unit::Bytes;
        assert!(matches!(ratio(&one, &other), Err(NotComparable::Units(_))));
        assert_eq!(ratio(&one, &measured(&[0.0, 1.0])), Err(NotComparable::Zero));
    }
}
