//! Certificates and keys for the tests, made anew each time, and that real files are read as the fake ones are.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::{FakeHost, edited};
use crate::config::{Host, ThisHost, load};

/// The files of the fake machine, by the name in the configuration.
pub(super) fn files() -> HashMap<PathBuf, Vec<u8>> {
    static FILES: OnceLock<HashMap<PathBuf, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(make).clone()
}

fn make() -> HashMap<PathBuf, Vec<u8>> {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed = |names: &[&str], years: (i32, i32)| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        params.signed_by(&key, &authority).unwrap().pem()
    };
    let site = signed(
        &["www.foobar.com", "foobar.com", "*.apps.foobar.com"],
        (2020, 2100),
    );
    let mut files = HashMap::new();
    let mut put = |name: &str, text: &str| files.insert(PathBuf::from(name), text.as_bytes().to_vec());
    put("ca.pem", &authority.pem());
    put("chain.pem", &format!("{site}{}", authority.pem()));
    put("backwards.pem", &format!("{}{site}", authority.pem()));
    put("site.key", &key.serialize_pem());
    put("other.key", &KeyPair::generate().unwrap().serialize_pem());
    put("expired.pem", &signed(&["www.foobar.com"], (2020, 2021)));
    put("early.pem", &signed(&["www.foobar.com"], (2099, 2100)));
    put(
        "other.pem",
        &signed(&["www.example.com", "example.com"], (2020, 2100)),
    );
    put("nameless.pem", &signed(&[], (2020, 2100)));
    put("text.pem", "no PEM at all\n");
    put("cut.pem", site.get(..200).unwrap());
    put(
        "wrong.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    put(
        "wrong.key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    put(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    put("site.pem", &site);
    files
}

#[test]
fn real_files_are_read_from_the_directory_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files() {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let file = directory.path().join("lb.toml");
    let text = edited(&[(r#"interfaces = ["eth0", "eth1"]"#, r#"interfaces = ["lo"]"#)]);
    std::fs::write(&file, text).unwrap();
    let config = load(&file, &ThisHost).unwrap();
    assert_eq!(config.file, file);
    assert_eq!(config.daemon.interfaces, ["lo"]);
    assert_eq!(config.site.unwrap().key, directory.path().join("site.key"));
}

#[test]
fn a_configuration_that_cannot_be_read_says_what_to_do() {
    let mut host = FakeHost::new();
    let told = |host: &dyn Host, file: &str| load(file.as_ref(), host).unwrap_err().to_string();
    assert_eq!(
        told(&host, "nowhere.toml"),
        "nowhere.toml: cannot be read: No such file or directory; name the configuration file with --config FILE, or \
         write it after the example lb.toml"
    );
    host.files.insert("binary.toml".into(), vec![0xff, 0xfe]);
    assert_eq!(
        told(&host, "binary.toml"),
        "binary.toml: not UTF-8 text; a configuration is TOML, see the example lb.toml"
    );
    assert_eq!(
        told(&ThisHost, "/dev/zero"),
        "/dev/zero: cannot be read: it is larger than 4 MiB; name the configuration file with --config FILE, or write \
         it after the example lb.toml"
    );
}
