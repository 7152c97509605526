use super::*;
use crate::api::types::BackendChange;
use crate::config::{test_config, test_site};

const DRAIN: BackendChange = BackendChange::Drain {
    deadline_seconds: None,
};

/// So many seconds after the drain began.
fn at(seconds: u64) -> Moment {
    Moment::test(7, seconds, seconds)
}

fn desired(
    change: &[(&str, BackendChange)],
    handed_off: &[&str],
    edit: impl FnOnce(&mut config::Service),
    health: [Status; 2],
) -> Vec<(BackendState, u16, bool, bool)> {
    let mut file = test_config();
    file.site = Some(test_site());
    edit(&mut file.services[0]);
    let mut overrides = Overrides::default();
    for (name, change) in change {
        overrides.apply_change("www", name, *change, true, at(0));
    }
    let config = with_overrides(&file, &overrides);
    let handed_off = handed_off.iter().map(ToString::to_string).collect();
    let inputs = Inputs {
        config: &config,
        overrides: &overrides,
        handed_off: &handed_off,
        now: at(30),
    };
    let services = inputs.desired(|id| {
        if id.backend == "web1" {
            health[0]
        } else {
            health[1]
        }
    });
    services[0]
        .backends
        .iter()
        .map(|b| (b.state, b.share, b.up, b.reset))
        .collect()
}

const UP: (BackendState, u16, bool, bool) = (BackendState::Up, 1, true, false);

#[test]
fn what_backends_should_be() {
    use BackendChange::{Disable, Weight};
    use Status::{Checking, Down, Up};
    let reset = |service: &mut config::Service| service.on_down = OnDown::Reset;
    let keep = |_: &mut config::Service| {};
    assert_eq!(desired(&[], &[], keep, [Up, Up]), [UP, UP], "all well");
    assert_eq!(
        desired(&[], &[], keep, [Checking, Up])[0],
        (BackendState::Checking, 0, false, false),
        "not yet probed"
    );
    assert_eq!(
        desired(&[], &[], keep, [Down, Up])[0],
        (BackendState::Down, 0, false, false),
        "down, keep"
    );
    assert_eq!(
        desired(&[], &[], reset, [Down, Up])[0],
        (BackendState::Down, 0, false, true),
        "down, reset"
    );
    assert_eq!(
        desired(&[("web1", DRAIN)], &[], reset, [Up, Up])[0],
        (BackendState::Draining, 0, true, false),
        "drain"
    );
    assert_eq!(
        desired(&[], &["web1"], keep, [Up, Up])[0],
        (BackendState::Draining, 0, true, false),
        "hand-off"
    );
    assert_eq!(
        desired(&[], &["web1"], keep, [Up, Down])[0],
        (BackendState::Draining, 1, true, false),
        "hand-off, and the other one fails"
    );
    assert_eq!(
        desired(&[("web1", DRAIN)], &["web1"], keep, [Up, Down])[0],
        (BackendState::Draining, 0, true, false),
        "drained by hand as well, and the other one fails"
    );
    let mysql = |service: &mut config::Service| {
        for backend in &mut service.backends {
            backend.port = NonZeroU16::new(3306);
        }
    };
    assert_eq!(
        desired(&[], &["web1"], mysql, [Up, Up])[0],
        UP,
        "a hand-off, and nginx does not listen there"
    );
    assert_eq!(
        desired(&[("web1", Disable)], &[], reset, [Up, Up])[0],
        (BackendState::Disabled, 0, false, true),
        "disable"
    );
    assert_eq!(
        desired(&[("web1", DRAIN)], &[], keep, [Down, Up])[0],
        (BackendState::Down, 0, false, false),
        "drained, fails"
    );
    assert_eq!(
        desired(&[("web1", Weight(Some(7)))], &[], keep, [Up, Up])[0],
        (BackendState::Up, 7, true, false),
        "weight"
    );
    assert_eq!(
        desired(&[("web1", Weight(Some(0)))], &[], keep, [Up, Up])[0],
        (BackendState::Up, 0, true, false),
        "weight 0"
    );
}

#[test]
fn unchecked_backends_count_as_up() {
    let no_checks = |service: &mut config::Service| service.health = None;
    assert_eq!(
        desired(&[], &[], no_checks, [Status::Down, Status::Checking]),
        [UP, UP]
    );
}

#[test]
fn when_all_are_down() {
    let keep_sending = |service: &mut config::Service| {
        service.when_all_down = WhenAllDown::KeepSending;
        service.on_down = OnDown::Reset;
    };
    let both = [Status::Down, Status::Checking];
    assert_eq!(
        desired(&[], &[], keep_sending, both),
        [
            (BackendState::Down, 1, true, false),
            (BackendState::Checking, 1, true, false)
        ],
    );
    let disabled = desired(
        &[("web2", BackendChange::Disable)],
        &[],
        keep_sending,
        [Status::Down, Status::Up],
    );
    assert_eq!(
        disabled[1],
        (BackendState::Disabled, 0, false, true),
        "what was taken out by hand stays out"
    );
    assert_eq!(disabled[0].1, 1);
    assert!(
        desired(&[], &[], |_| {}, both)
            .iter()
            .all(|backend| backend.1 == 0),
        "refuse is the default"
    );
}

#[test]
fn backends_added_and_removed_at_run_time() {
    let file = test_config();
    let mut overrides = Overrides::default();
    let mut web3 = file.services[0].backends[0].clone();
    web3.name = "web3".into();
    overrides.apply_add("www", &web3, None);
    overrides.apply_change("www", "web1", BackendChange::Remove { force: false }, true, at(0));
    let config = with_overrides(&file, &overrides);
    let names: Vec<_> = config.services[0]
        .backends
        .iter()
        .map(|b| b.name.as_str())
        .collect();
    assert_eq!(names, ["web2", "web3"]);
}

#[test]
fn a_backup_stands_in_while_nobody_else_has_a_share() {
    use BackendChange::{Disable, Weight};
    use Status::{Checking, Down, Up};
    let backup = |service: &mut config::Service| service.backends[1].backup = true;
    let shares = |change: &[(&str, BackendChange)], health| -> Vec<u16> {
        let backends = desired(change, &[], backup, health);
        backends.iter().map(|backend| backend.1).collect()
    };
    assert_eq!(shares(&[], [Up, Up]), [1, 0]);
    assert_eq!(shares(&[], [Down, Up]), [0, 1]);
    assert_eq!(shares(&[], [Checking, Up]), [0, 1]);
    for change in [Disable, DRAIN, Weight(Some(0))] {
        assert_eq!(shares(&[("web1", change)], [Up, Up]), [0, 1], "{change:?}");
    }
    assert_eq!(shares(&[], [Down, Down]), [0, 0]);
    assert_eq!(
        desired(&[], &[], backup, [Up, Up])[1],
        (BackendState::Up, 0, true, false),
        "it keeps the connections that it got while it stood in"
    );
    let keep_sending = |service: &mut config::Service| {
        backup(service);
        service.when_all_down = WhenAllDown::KeepSending;
    };
    let shares = |health| -> Vec<u16> {
        let backends = desired(&[], &[], keep_sending, health);
        backends.iter().map(|backend| backend.1).collect()
    };
    assert_eq!(shares([Down, Up]), [0, 1]);
    assert_eq!(shares([Down, Down]), [1, 0], "as if all were up");
}

#[test]
fn what_is_left_when_a_drain_is_over_is_reset() {
    use Status::{Down, Up};
    let drain = |deadline_seconds| [("web1", BackendChange::Drain { deadline_seconds })];
    let draining = (BackendState::Draining, 0, true, false);
    let overdue = (BackendState::Draining, 0, false, true);
    let none = |_: &mut config::Service| {};
    let timeout = |seconds| {
        move |service: &mut config::Service| {
            service.drain_timeout = Some(std::time::Duration::from_secs(seconds));
        }
    };
    assert_eq!(desired(&drain(None), &[], none, [Up, Up]), [draining, UP]);
    assert_eq!(desired(&drain(Some(31)), &[], none, [Up, Up])[0], draining);
    assert_eq!(desired(&drain(Some(30)), &[], none, [Up, Up]), [overdue, UP]);
    assert_eq!(desired(&drain(None), &[], timeout(31), [Up, Up])[0], draining);
    assert_eq!(desired(&drain(None), &[], timeout(30), [Up, Up])[0], overdue);
    assert_eq!(
        desired(&drain(Some(31)), &[], timeout(5), [Up, Up])[0],
        draining,
        "what was asked for counts"
    );
    assert_eq!(
        desired(&drain(Some(30)), &[], none, [Down, Up])[0],
        (BackendState::Down, 0, false, true)
    );
    assert_eq!(
        desired(&[], &["web1"], timeout(5), [Up, Up])[0],
        draining,
        "a hand-off has its own limit"
    );
}
