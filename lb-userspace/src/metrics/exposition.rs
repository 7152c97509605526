//! The Prometheus text format, version 0.0.4: families of samples, each family written in one piece.

use std::fmt::{Display, Write};

/// Labels of a sample, in the order in which they are written.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// A text under construction.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Adds a family of things that go up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, samples: impl FnOnce(&mut Family<'_>)) {
        self.family(name, "gauge", help, samples);
    }

    /// Adds a family of things that only grow; its name ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, samples: impl FnOnce(&mut Family<'_>)) {
        self.family(name, "counter", help, samples);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str, samples: impl FnOnce(&mut Family<'_>)) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {}", escaped(help, false));
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        samples(&mut Family {
            text: &mut self.text,
            name,
        });
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// A family whose samples are being added.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Family<'_> {
    /// Adds a sample. No two of a family may have the same labels.
    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.text.push_str(self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{name}=\"{}\"", escaped(value, true));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Backslash and line feed are escaped everywhere, the quote in label values only.
fn escaped(text: &str, quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotes => escaped.push_str("\\\""),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples() {
        let mut exposition = Exposition::default();
        exposition.gauge("up", "Is it \"up\"?\nA \\ stays.", |family| {
            family.sample(&[], 1);
            family.sample(&[("a", "plain"), ("b", "q\"b\\n\nü")], u64::MAX);
        });
        let expected = concat!(
            "# HELP up Is it \"up\"?\\nA \\\\ stays.\n",
            "# TYPE up gauge\n",
            "up 1\n",
            "up{a=\"plain\",b=\"q\\\"b\\\\n\\nü\"} 18446744073709551615\n",
        );
        assert_eq!(exposition.finish(), expected);
    }
}
