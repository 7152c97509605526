//! Whatever is read, nothing panics and the form of messages is kept.

use std::path::Path;

use proptest::prelude::*;

use super::{FakeHost, GOOD};
use crate::config::{parse, rules};

/// TOML-like text: the good file with lines put in, taken out, and cut off.
fn mangled() -> impl Strategy<Value = String> {
    let pieces: Vec<String> = GOOD.lines().map(|line| format!("{line}\n")).collect();
    let noise = prop_oneof![
        3 => proptest::sample::select(pieces),
        1 => "[a-z_]{1,9} = (-?[0-9]{1,20}|\"[^\"\\\\\n]{0,9}\"|\\[[0-9, ]{0,9}\\]|true|\\{\\})\n",
        1 => "\\PC{0,9}\n?",
    ];
    proptest::collection::vec(noise, 0..40).prop_map(|pieces| pieces.concat())
}

/// Whatever is read, it is accepted or told why, a line for each problem, in the form that is promised.
fn told_in_form(text: &str) {
    if let Err(error) = parse(text, Path::new("lb.toml"), &FakeHost::new()) {
        assert!(!error.problems.is_empty(), "refused without a reason: {text:?}");
        for problem in &error.problems {
            let lines = 1 + text.matches('\n').count();
            assert!((1..=lines).contains(&problem.line.unwrap()), "{problem}");
            assert!(!problem.what.contains(char::is_control), "{problem}");
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_not_walked_into() {
    for depth in [79, 80, 81, 1000, 100_000] {
        told_in_form(&format!("{}a = 1", "a.".repeat(depth)));
        told_in_form(&format!("[{}a]", "a.".repeat(depth)));
        told_in_form(&format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)));
        told_in_form(&format!("a = {}1{}", "{a=".repeat(depth), "}".repeat(depth)));
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}|(?s).{0,200}") {
        told_in_form(&text);
    }

    #[test]
    fn mangled_files_never_panic(text in mangled()) {
        told_in_form(&text);
    }

    #[test]
    fn an_accepted_server_name_is_one_for_rustls(name in "\\*?[a-zA-Z0-9_.:-]{0,70}") {
        if rules::server_name(&name).is_ok() {
            prop_assert!(rustls::pki_types::ServerName::try_from(name).is_ok());
        }
    }
}
