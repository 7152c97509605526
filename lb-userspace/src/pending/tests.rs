//! Every moment at which the daemon may be killed between an apply and its confirmation, and what the next start makes of it.

use std::os::unix::fs::symlink;

use super::*;
use crate::api::types::BackendChange;

const OLD: &str = "# old\n";
const NEW: &str = "# new\n";

/// A configuration file that keeps its state beside it.
struct Site {
    directory: tempfile::TempDir,
    file: PathBuf,
    state: PathBuf,
}

/// So many seconds into a boot, by a clock of the test's own.
fn at(seconds: u64) -> Moment {
    Moment::test(7, 100 + seconds, 5000 + seconds)
}

fn old() -> String {
    format!("{OLD}[daemon]\nstate_directory = \"state\"\n")
}

fn new() -> String {
    format!("{NEW}[daemon]\nstate_directory = \"state\"\nrubbish\n").replace("rubbish", "interfaces = 3")
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        let file = root.join("lb.toml");
        fs::write(&file, old()).unwrap();
        Self {
            directory,
            state: root.join("state"),
            file,
        }
    }

    /// To be confirmed within a minute of the beginning.
    fn pending(&self) -> Pending {
        Pending::new(self.file.clone(), old(), new(), at(60))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    fn taken_back(&self) -> Option<String> {
        fs::read_to_string(self.file.with_extension("toml.rolled-back")).ok()
    }

    fn start(&self, now: Moment) -> Option<String> {
        at_start(&self.file, now).unwrap()
    }

    fn waits(&self) -> bool {
        Pending::load(&self.state).unwrap().is_some()
    }
}

fn drained(name: &str) -> Overrides {
    let mut overrides = Overrides::default();
    let drain = BackendChange::Drain {
        deadline_seconds: None,
    };
    overrides.apply_change("www", name, drain, true, at(0));
    overrides
}

#[test]
fn nothing_waits() {
    let site = Site::new();
    assert_eq!(site.start(at(0)), None);
    assert_eq!(at_start(Path::new("/nonexistent/lb.toml"), at(0)).unwrap(), None);
}

#[test]
fn it_is_taken_back_when_its_time_is_over_and_not_before() {
    let site = Site::new();
    site.pending().save(&site.state).unwrap();
    assert_eq!(
        exchange_applied(&site.file, &new()).unwrap(),
        Some(site.file.with_extension("toml.previous"))
    );
    for seconds in [0, 59] {
        assert_eq!(site.start(at(seconds)), None);
        assert!(site.text() == new() && site.waits());
    }
    // The wall clock may say what it wants.
    assert_eq!(site.start(Moment::test(7, 159, 1_000_000)), None);
    let said = site.start(at(60)).unwrap();
    assert!(said.contains("not confirmed in time"), "{said}");
    assert_eq!((site.text(), site.taken_back()), (old(), Some(new())));
    assert!(!site.waits());
    assert_eq!(site.start(at(61)), None, "once");
    drop(site.directory);
}

#[test]
fn a_boot_in_between_is_time_that_goes_by() {
    let site = Site::new();
    site.pending().save(&site.state).unwrap();
    exchange_applied(&site.file, &new()).unwrap();
    assert_eq!(site.start(Moment::test(8, 3, 5059)), None);
    assert!(site.start(Moment::test(8, 4, 5060)).is_some());
    assert_eq!(site.text(), old());
}

#[test]
fn killed_before_the_file_was_replaced() {
    let site = Site::new();
    site.pending().save(&site.state).unwrap();
    let said = site.start(at(1)).unwrap();
    assert!(said.contains("not in force"), "{said}");
    assert_eq!((site.text(), site.taken_back()), (old(), None));
    assert!(!site.waits());
}

#[test]
fn killed_while_it_was_taken_back() {
    let site = Site::new();
    let pending = site
        .pending()
        .with_overrides(&drained("web1"), &Overrides::default());
    pending.save(&site.state).unwrap();
    exchange_applied(&site.file, &new()).unwrap();
    // The file is back, the overrides are not, and it still waits.
    pending.restore().unwrap();
    assert!(site.start(at(1)).is_some());
    assert_eq!(Overrides::load(&site.state).unwrap(), drained("web1"));
    assert!(site.text() == old() && !site.waits());
}

#[test]
fn overrides_come_back_but_for_what_was_changed_since() {
    let was = drained("web1");
    let pending = Site::new().pending().with_overrides(&was, &Overrides::default());
    assert_eq!(pending.overrides_before(&Overrides::default()), was);
    let mut both = drained("web2");
    assert_eq!(pending.overrides_before(&both).backends["www"].len(), 2);
    both.apply_change("www", "web1", BackendChange::Weight(Some(7)), true, at(0));
    assert_eq!(
        pending.overrides_before(&both),
        both,
        "somebody has changed it since"
    );
    let none = Site::new().pending().with_overrides(&was, &was);
    assert_eq!(none.overrides_before(&Overrides::default()), Overrides::default());
}

#[test]
fn an_edit_after_the_apply_is_not_lost() {
    let site = Site::new();
    site.pending().save(&site.state).unwrap();
    exchange_applied(&site.file, &new()).unwrap();
    let edited = new() + "# by hand\n";
    fs::write(&site.file, &edited).unwrap();
    assert!(site.start(at(60)).is_some());
    assert_eq!((site.text(), site.taken_back()), (old(), Some(edited)));
}

#[test]
fn a_symbolic_link_stays_one() {
    let site = Site::new();
    let link = site.directory.path().join("link.toml");
    symlink(&site.file, &link).unwrap();
    site.pending().save(&site.state).unwrap();
    exchange_applied(&site.file, &new()).unwrap();
    assert!(at_start(&link, at(60)).unwrap().is_some());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && site.text() == old());
}

#[test]
fn another_configuration_with_the_same_state_directory_is_left_alone() {
    let site = Site::new();
    site.pending().save(&site.state).unwrap();
    let other = site.directory.path().join("other.toml");
    fs::write(&other, new()).unwrap();
    assert_eq!(at_start(&other, at(600)).unwrap(), None);
    assert!(site.waits() && fs::read_to_string(&other).unwrap() == new());
}

#[test]
fn what_is_broken_stops_the_start_and_changes_nothing() {
    let site = Site::new();
    site.pending().save(&site.state).unwrap();
    exchange_applied(&site.file, &new()).unwrap();
    let whole = fs::read(site.state.join(FILE)).unwrap();
    for length in (0..whole.len() - 2).step_by(7) {
        fs::write(site.state.join(FILE), &whole[..length]).unwrap();
        let error = at_start(&site.file, at(60)).unwrap_err().to_string();
        assert!(
            error.contains(FILE) && error.contains("cannot understand it"),
            "{error}"
        );
    }
    let other = String::from_utf8(whole)
        .unwrap()
        .replace("\"version\": 1", "\"version\": 2");
    fs::write(site.state.join(FILE), other).unwrap();
    let error = at_start(&site.file, at(60)).unwrap_err().to_string();
    assert!(error.contains("of version 2"), "{error}");
    assert_eq!(site.text(), new());
}

#[test]
fn what_cannot_be_written_still_waits() {
    let site = Site::new();
    site.pending().save(&site.state).unwrap();
    exchange_applied(&site.file, &new()).unwrap();
    let in_the_way = site.file.with_extension("toml.new");
    fs::create_dir(&in_the_way).unwrap();
    let said = site.start(at(60)).unwrap();
    assert!(said.contains("lb.toml.new: cannot write it"), "{said}");
    assert!(site.waits() && site.text() == new());
    fs::remove_dir(&in_the_way).unwrap();
    assert!(site.start(at(600)).is_some());
    assert_eq!(site.text(), old());
}
