//! The tests that may be skipped where everything else has to run.

/// `SUITE::TEST` names. With `CI=true` a skipped test that is not in this list is a failed one, so that a machine that
/// lost something is noticed. Tests for `--full` need not be here.
pub const EXPECTED_SKIPS: &[&str] = &[
    // Debian's packages cannot be had everywhere, nor can containers.
    "package::installs_starts_balances_and_goes",
];
