//! Saving, loading, breaking, changing.

use super::*;
use std::os::unix::fs::PermissionsExt;

const DRAIN: BackendChange = BackendChange::Drain {
    deadline_seconds: None,
};

/// So many seconds into a boot.
fn at(seconds: u64) -> Moment {
    Moment::test(7, seconds, 5000 + seconds)
}

fn backend(name: &str, weight: u16) -> config::Backend {
    config::Backend {
        name: name.to_owned(),
        address: "198.18.1.2".parse().unwrap(),
        port: Some(443.try_into().unwrap()),
        weight,
        backup: false,
    }
}

fn many() -> Overrides {
    let mut overrides = Overrides::default();
    overrides.apply_change("www", "web1", DRAIN, true, at(0));
    overrides.apply_change("www", "web2", BackendChange::Weight(Some(256)), true, at(0));
    overrides.apply_change("www", "web3", BackendChange::Remove { force: false }, true, at(0));
    overrides.apply_change("api", "web1", BackendChange::Disable, true, at(0));
    overrides.apply_add("api", &backend("web9", 7), None);
    overrides
}

#[test]
fn what_is_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("var/lib/lb");
    assert_eq!(Overrides::load(&state).unwrap(), Overrides::default());
    for overrides in [many(), Overrides::default(), many()] {
        overrides.save(&state).unwrap();
        assert_eq!(Overrides::load(&state).unwrap(), overrides);
    }
    let names: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [FILE], "nothing is left behind");
    assert_eq!(
        fs::metadata(state.join(FILE)).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_crash_in_the_middle_of_a_save_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    many().save(directory.path()).unwrap();
    fs::write(directory.path().join("overrides.json.new"), "{\"vers").unwrap();
    assert_eq!(Overrides::load(directory.path()).unwrap(), many());
    Overrides::default().save(directory.path()).unwrap();
    assert_eq!(Overrides::load(directory.path()).unwrap(), Overrides::default());
}

#[test]
fn every_truncation_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    many().save(directory.path()).unwrap();
    let whole = fs::read(&file).unwrap();
    // Without the final newline it is still whole.
    for length in 0..whole.len() - 1 {
        fs::write(&file, &whole[..length]).unwrap();
        let error = Overrides::load(directory.path()).unwrap_err();
        assert!(
            matches!(error, PersistError::Broken { .. }),
            "{length} bytes: {error}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    let cases = [
        ("", "EOF"),
        ("\0\0\0\0", "expected value"),
        ("{}", "missing field `version`"),
        (r#"{"version":1}"#, "missing field `backends`"),
        (
            r#"{"version":2,"backends":[1]}"#,
            "version 2 and this lbd writes version 1",
        ),
        (
            r#"{"version":1,"backends":{"www":{"web1":{"draind":true}}}}"#,
            "unknown field `draind`",
        ),
        (
            r#"{"version":1,"backends":{"www":{"web1":{"weight":70000}}}}"#,
            "70000",
        ),
        (r#"{"version":1,"backends":{}}{}"#, "trailing characters"),
    ];
    for (text, problem) in cases {
        fs::write(&file, text).unwrap();
        let message = Overrides::load(directory.path()).unwrap_err().to_string();
        assert!(message.contains(problem), "{text}: {message}");
        assert!(
            message.contains(file.to_str().unwrap()) && message.contains("move it away"),
            "{message}"
        );
    }
}

#[test]
fn a_save_that_fails_says_where_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    many().save(directory.path()).unwrap();
    fs::create_dir(directory.path().join("overrides.json.new")).unwrap();
    let error = Overrides::default().save(directory.path()).unwrap_err();
    assert!(
        error.to_string().contains("overrides.json.new: cannot write it"),
        "{error}"
    );
    assert_eq!(Overrides::load(directory.path()).unwrap(), many());
}

#[test]
fn changes() {
    use BackendChange::{Disable, Enable, Undrain, Weight};
    let remove = BackendChange::Remove { force: false };
    let until = |deadline_seconds| BackendChange::Drain { deadline_seconds };
    let drain = |since, deadline_seconds| {
        Some(Drain {
            since: at(since),
            deadline_seconds,
        })
    };
    let none = BackendOverride::default;
    let drained = || BackendOverride {
        drained: true,
        drain: drain(0, None),
        ..none()
    };
    let hurried = |since, seconds| BackendOverride {
        drain: drain(since, Some(seconds)),
        ..drained()
    };
    let added = || BackendOverride {
        added: Some(backend("web1", 1)),
        ..none()
    };
    let removed = || BackendOverride {
        removed: true,
        ..none()
    };
    let weight = |weight| BackendOverride {
        weight: Some(weight),
        ..none()
    };
    let both = || BackendOverride {
        disabled: true,
        ..drained()
    };
    // (purpose, before, change, in the file, after)
    let cases = [
        (
            "drain",
            none(),
            DRAIN,
            true,
            BackendOverride {
                drain: drain(9, None),
                ..drained()
            },
        ),
        ("drain again", drained(), DRAIN, true, drained()),
        (
            "with a deadline",
            drained(),
            until(Some(60)),
            true,
            hurried(9, 60),
        ),
        (
            "another one",
            hurried(0, 60),
            until(Some(30)),
            true,
            hurried(9, 30),
        ),
        ("again without one", hurried(0, 60), DRAIN, true, hurried(0, 60)),
        ("undrain with a deadline", hurried(0, 60), Undrain, true, none()),
        ("undrain", drained(), Undrain, true, none()),
        ("undrain what is not drained", none(), Undrain, true, none()),
        ("disable keeps the drain", drained(), Disable, true, both()),
        ("enable keeps the drain", both(), Enable, true, drained()),
        ("weight", none(), Weight(Some(3)), true, weight(3)),
        (
            "weight 0 is an override as well",
            none(),
            Weight(Some(0)),
            true,
            weight(0),
        ),
        ("another weight", weight(3), Weight(Some(4)), true, weight(4)),
        ("the file's weight", weight(3), Weight(None), true, none()),
        ("remove one of the file's", both(), remove, true, removed()),
        ("remove an added one", added(), remove, false, none()),
        (
            "remove an added one that the file has too",
            added(),
            remove,
            true,
            removed(),
        ),
    ];
    for (purpose, before, change, in_file, after) in cases {
        let mut overrides = Overrides::default();
        overrides.edit("www", "web1", |entry| *entry = before.clone());
        let changed = overrides.apply_change("www", "web1", change, in_file, at(9));
        assert_eq!(changed, before != after, "{purpose}");
        assert_eq!(
            overrides.get("www", "web1").cloned().unwrap_or_default(),
            after,
            "{purpose}"
        );
        assert_eq!(
            overrides.backends.is_empty(),
            after == none(),
            "{purpose}: no empty entry stays"
        );
    }
}

#[test]
fn additions() {
    let file = backend("web1", 1);
    let other = backend("web1", 2);
    let mut overrides = Overrides::default();
    assert!(overrides.apply_add("www", &other, None));
    assert!(!overrides.apply_add("www", &other, None), "nothing new");
    overrides.apply_change("www", "web1", DRAIN, false, at(0));
    assert!(overrides.apply_add("www", &other, None), "afresh");
    assert!(!overrides.get("www", "web1").unwrap().drained);

    overrides.apply_change("www", "web1", BackendChange::Remove { force: false }, true, at(0));
    assert!(
        overrides.apply_add("www", &file, Some(&file)),
        "the file's own comes back"
    );
    assert_eq!(overrides, Overrides::default());
}

#[test]
fn in_words() {
    let file = backend("web1", 1);
    let mut entry = BackendOverride {
        drained: true,
        disabled: true,
        weight: Some(3),
        ..BackendOverride::default()
    };
    assert_eq!(
        entry.describe(Some(&file)),
        ["drain", "disable", "weight 3 (file: 1)"]
    );
    entry = BackendOverride {
        added: Some(file.clone()),
        weight: Some(3),
        ..BackendOverride::default()
    };
    assert_eq!(entry.describe(None), ["added", "weight 3 (added with: 1)"]);
    assert_eq!(entry.describe(Some(&file))[0], "added (instead of the file's)");
    assert!(BackendOverride::default().describe(Some(&file)).is_empty());
}

#[test]
fn a_drain_ends_when_it_says_or_when_the_service_does() {
    let drain = |deadline_seconds| Drain {
        since: at(10),
        deadline_seconds,
    };
    let minute = Some(Duration::from_secs(60));
    assert_eq!(drain(None).until(None), None);
    assert_eq!(drain(None).until(minute), Some(at(70)));
    assert_eq!(drain(Some(5)).until(minute), Some(at(15)));
}

#[test]
fn a_file_from_before_there_were_deadlines_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"{"version":1,"backends":{"www":{"web1":{"drained":true}}}}"#;
    fs::write(directory.path().join(FILE), text).unwrap();
    let overrides = Overrides::load(directory.path()).unwrap();
    let change = overrides.get("www", "web1").unwrap();
    assert!(change.drained && change.drain.is_none());
}
