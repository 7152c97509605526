//! Moments at which tests kill the daemon, to see that nothing is lost whenever it dies. Each has a name, and the list is made
//! by the same macro as the moments themselves, so that a test that goes through the list forgets none.
//!
//! `LBD_FAILPOINT_FILE` in the daemon's environment names a file. While that says the name of a moment, the daemon is killed, as by
//! SIGKILL, when it gets there. Nobody sets it but tests.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The environment variable.
pub const VARIABLE: &str = "LBD_FAILPOINT_FILE";

macro_rules! failpoints {
    ($( $(#[doc = $meaning:literal])+ $variant:ident = $name:literal, )*) => {
        /// A moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Failpoint {
            $( $(#[doc = $meaning])+ $variant, )*
        }

        impl Failpoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $name, )*
                }
            }
        }
    };
}

failpoints! {
    /// Start: the directory of a set of tables is there, or has been found.
    SetMade = "set-made",
    /// Start: the tables are there, the programs loaded.
    ProgramLoaded = "program-loaded",
    /// Start: the tables say what they should, and nobody looks at them yet.
    TablesFilled = "tables-filled",
    /// Upgrade: the connections of older tables are in the new ones.
    ConnectionsCopied = "connections-copied",
    /// Start: the set counts as complete.
    SetComplete = "set-complete",
    /// Start: the programs that are called are pinned.
    ProgramsPinned = "programs-pinned",
    /// Start: a link that was there has the new program.
    LinkChanged = "link-changed",
    /// Start: a new link is pinned.
    LinkPinned = "link-pinned",
    /// Start: all interfaces have the new program.
    LinksChanged = "links-changed",
    /// Upgrade: what had changed in the older tables meanwhile is in the new ones.
    RestCopied = "rest-copied",
    /// Upgrade: the new tables are looked at without reserve.
    Migrated = "migrated",
    /// Start: no other set is left.
    OldSetRemoved = "old-set-removed",
    /// Start: no other programs are left.
    OldProgramsRemoved = "old-programs-removed",
    /// Start: the VIPs are where they should be.
    VipsSet = "vips-set",
    /// A change: the notes are written, the tables not yet.
    NotesWritten = "notes-written",
    /// A change: the copy of the tables that nobody looks at is half written.
    CopyHalfWritten = "copy-half-written",
    /// A change: that copy is written.
    CopyWritten = "copy-written",
    /// A change: packets are judged by it.
    CopyActive = "copy-active",
    /// A reload, apply or rollback: everything is computed.
    ReloadComputed = "reload-computed",
    /// Likewise: the VIPs are where they should be.
    ReloadVipsSet = "reload-vips-set",
    /// Likewise: the files are written.
    ReloadSaved = "reload-saved",
    /// Likewise: all is in force.
    ReloadDone = "reload-done",
    /// A hand-off: a server has the new release.
    HandoffStaged = "handoff-stage",
    /// Its nginx has accepted it.
    HandoffTested = "handoff-test",
    /// It gets no new connections.
    HandoffDrained = "handoff-drain",
    /// The new release is the current one.
    HandoffSwapped = "handoff-swap",
    /// Its nginx was told so.
    HandoffReloaded = "handoff-reload",
    /// It serves what it should.
    HandoffVerified = "handoff-verify",
    /// It was put back as it was.
    HandoffRestored = "handoff-restore",
    /// It gets new connections again.
    HandoffUndrained = "handoff-undrain",
}

/// The same after a step of a hand-off.
pub fn reach_step(step: &str) {
    let is_after = |point: &&Failpoint| point.name().strip_prefix("handoff-") == Some(step);
    if let Some(point) = Failpoint::ALL.iter().find(is_after) {
        reach(*point);
    }
}

/// Ends the process if this is the moment that the file says.
pub fn reach(point: Failpoint) {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)) else {
        return;
    };
    let wanted = std::fs::read_to_string(file).unwrap_or_default();
    if wanted.trim() == point.name() {
        // SAFETY: no pointers. SIGKILL to ourselves: nothing of ours runs after this.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}
