//! Numbers for people. `--json` has them exact.

pub(super) use crate::numbers::{count, plural};

/// `999 B`, `1.5 KiB`, `12.0 GiB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64;
    let mut unit = "B";
    for next in UNITS {
        // Not 1024: 1023.95 would be shown as 1024.0.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// The two largest units: `45s`, `3m 20s`, `2h 5m`, `12d 1h`.
pub(super) fn seconds(number: u64) -> String {
    let (days, hours, minutes, seconds) = (
        number / 86_400,
        number / 3_600 % 24,
        number / 60 % 60,
        number % 60,
    );
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// `1.2 %`; `0 %` only of nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let percent = if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    };
    match percent {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.1 => "under 0.1 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

/// Without control characters: some of what is shown was sent by a web server, and must not drive the terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (24 * 1024 * 1024, "24.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (number, text) in cases {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn durations() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (7440, "2h 4m"),
            (86_399, "23h 59m"),
            (86_400 * 12 + 3_700, "12d 1h"),
        ];
        for (number, text) in cases {
            assert_eq!(seconds(number), text, "{number}");
        }
    }

    #[test]
    fn shares() {
        let cases = [
            (0, 100, "0 %"),
            (1, 1_000_000, "under 0.1 %"),
            (12, 1000, "1.2 %"),
            (1, 0, "0 %"),
            (5, 5, "100.0 %"),
        ];
        for (part, whole, text) in cases {
            assert_eq!(percent(part, whole), text);
        }
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(
            clean("HTTP 200 \x1b[2J\rok\u{9b}1m ü"),
            "HTTP 200 \u{fffd}[2J\u{fffd}ok\u{fffd}1m ü"
        );
    }
}
