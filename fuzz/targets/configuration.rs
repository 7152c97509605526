//! Any text as a configuration: it is accepted, or told what is wrong with it, line by line; it never panics.

#![no_main]

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use lb::config::{Host, parse};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};

/// Every key there is, the optional ones behind a `#`.
const EXAMPLE: &str = include_str!("../../config/lb.toml");
/// Ends of lines that the example has no reason to have.
const VALUES: [&str; 16] = [
    "0",
    "-1",
    "65535",
    "65536",
    "9223372036854775807",
    "\"any\"",
    "\"1-65535\"",
    "\"0s\"",
    "\"udp\"",
    "\"full-nat\"",
    "\"ipip\"",
    "\"maglev\"",
    "\"2001:db8::10\"",
    "\"::ffff:198.18.1.2\"",
    "[]",
    "true",
];

/// The certificate and the key of the example's site.
static CERTIFICATE: LazyLock<[String; 2]> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["www.foobar.com".to_owned()]);
    made.map(|made| [made.cert.pem(), made.signing_key.serialize_pem()])
        .unwrap_or_default()
});

/// A machine with two interfaces and two addresses, on which every file is a certificate or its key.
struct FakeHost;

impl Host for FakeHost {
    fn group(&self, name: &str) -> std::io::Result<Option<u32>> {
        Ok((name == "adm").then_some(4))
    }

    fn interfaces(&self) -> io::Result<Vec<String>> {
        Ok(vec!["lo".to_owned(), "eth0".to_owned(), "eth1".to_owned()])
    }

    fn addresses(&self) -> io::Result<Vec<(IpAddr, u32)>> {
        Ok(vec![
            (IpAddr::from([198, 51, 100, 5]), 24),
            (IpAddr::from([0x2001, 0xdb8, 5, 0, 0, 0, 0, 5]), 64),
        ])
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let [certificate, key] = &*CERTIFICATE;
        match file.extension() {
            Some(extension) if extension == "key" => Ok(key.clone().into_bytes()),
            Some(extension) if extension == "pem" => Ok(certificate.clone().into_bytes()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    // The file is read as text first; what is not fails before it comes here.
    let Ok(text) = str::from_utf8(bytes) else {
        return Corpus::Reject;
    };
    match parse(text, Path::new("lb.toml"), &FakeHost) {
        Ok(config) => {
            let again = parse(text, Path::new("lb.toml"), &FakeHost);
            assert_eq!(again.ok(), Some(config), "not the same when read again");
        }
        Err(error) => {
            assert!(!error.problems.is_empty(), "refused without a reason");
            let lines = 1 + text.matches('\n').count();
            for problem in &error.problems {
                assert!(
                    problem.line.is_none_or(|line| (1..=lines).contains(&line)),
                    "{problem}"
                );
                assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
            }
        }
    }
    Corpus::Keep
});

// By changing bytes alone the fuzzer would not come by a file with a service and backends; so every now and then it is given
// one that is made of the example's lines, most of them.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if !seed.is_multiple_of(16) {
        return fuzzer_mutate(data, size, max_size);
    }
    let text = of_the_examples_lines(&mut fastrand::Rng::with_seed(seed.into()));
    let length = text.len().min(max_size);
    data[..length].copy_from_slice(&text.as_bytes()[..length]);
    length
});

fn of_the_examples_lines(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    let has_site = random.bool();
    // Half of the files are as they should be, but for what is optional.
    let oddities = if random.bool() { 0 } else { random.u8(1..16) };
    for line in EXAMPLE.lines() {
        if line.starts_with("[site") && !has_site {
            break;
        }
        let (is_optional, line) = match line.strip_prefix('#') {
            Some(line) => (true, line),
            None => (false, line),
        };
        let is_key = line.starts_with(|first: char| first.is_ascii_lowercase()) && line.contains(" = ");
        let is_table = line.starts_with('[') && !is_optional;
        let is_odd = random.u8(..) < oddities;
        if is_table || is_key && (!is_optional || random.u8(..8) == 0) {
            match (line.split_once(" = "), is_odd, random.u8(..3)) {
                (Some((key, _)), true, 0) => {
                    let value = random.choice(VALUES).unwrap_or_default();
                    text += &format!("{key} = {value}\n");
                }
                (_, true, 1) => text += &format!("{line}\n{line}\n"),
                (_, true, _) => {}
                _ => text += &format!("{line}\n"),
            }
        }
    }
    text
}
