//! The TOML as a person typed it: every key optional, every value with its place in the text, nothing checked but its
//! TOML type. What a key means, its range and its default are in `config/lb.toml`.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// A key that may be absent, with its value's place.
pub(super) type Given<T> = Option<Spanned<T>>;

/// A table that may be absent.
pub(super) type GivenTable<T> = Given<Table<T>>;

/// `[[tables]]`, which may be absent.
pub(super) type Tables<T> = Option<Vec<Spanned<Table<T>>>>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) daemon: GivenTable<Daemon>,
    pub(super) service: Tables<Service>,
    pub(super) site: GivenTable<Site>,
}

/// `[daemon]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Daemon {
    pub(super) interfaces: Given<Vec<Spanned<String>>>,
    pub(super) xdp_mode: Given<String>,
    pub(super) max_connections: Given<i64>,
    pub(super) max_wide_connections: Given<i64>,
    pub(super) full_nat_ports: Given<i64>,
    pub(super) selection_seed: Given<i64>,
    pub(super) socket: Given<String>,
    pub(super) socket_group: Given<String>,
    pub(super) state_directory: Given<String>,
    pub(super) pin_directory: Given<String>,
    pub(super) metrics: Given<String>,
}

/// `[[service]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: Given<String>,
    pub(super) vip: Given<String>,
    pub(super) port: Given<i64>,
    pub(super) ports: Given<String>,
    pub(super) protocol: Given<String>,
    pub(super) mode: Given<String>,
    pub(super) scheduler: Given<String>,
    pub(super) stateless: Given<bool>,
    pub(super) source_address: Given<String>,
    pub(super) source_ports: Given<String>,
    pub(super) answer_ping: Given<bool>,
    pub(super) slow_start: Given<Time>,
    pub(super) manage_vip: Given<String>,
    pub(super) when_all_down: Given<String>,
    pub(super) on_down: Given<String>,
    pub(super) drain_timeout: Given<Time>,
    pub(super) timeouts: GivenTable<Timeouts>,
    pub(super) health: GivenTable<Health>,
    pub(super) backend: Tables<Backend>,
}

/// `[service.timeouts]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) half_open: Given<Time>,
    pub(super) established: Given<Time>,
    pub(super) closing: Given<Time>,
    pub(super) udp: Given<Time>,
}

/// `[service.health]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    #[serde(rename = "type")]
    pub(super) kind: Given<String>,
    pub(super) interval: Given<Time>,
    pub(super) timeout: Given<Time>,
    pub(super) jitter: Given<Time>,
    pub(super) rise: Given<i64>,
    pub(super) fall: Given<i64>,
    pub(super) port: Given<i64>,
    pub(super) path: Given<String>,
    pub(super) host: Given<String>,
    pub(super) expect_status: Given<OneOrMany>,
    pub(super) ca: Given<String>,
    pub(super) server_name: Given<String>,
}

/// `[[service.backend]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    pub(super) name: Given<String>,
    pub(super) address: Given<String>,
    pub(super) port: Given<i64>,
    pub(super) weight: Given<i64>,
    pub(super) backup: Given<bool>,
}

/// `[site]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) server_names: Given<Vec<Spanned<String>>>,
    pub(super) certificate: Given<String>,
    pub(super) key: Given<String>,
    pub(super) upstream: Given<Vec<Spanned<String>>>,
    pub(super) http_port: Given<i64>,
    pub(super) https_port: Given<i64>,
    pub(super) redirect_http: Given<bool>,
    pub(super) hsts: Given<Time>,
    pub(super) tls_versions: Given<Vec<Spanned<String>>>,
    pub(super) keepalive_time: Given<Time>,
    pub(super) keepalive_timeout: Given<Time>,
    pub(super) drain_timeout: Given<Time>,
    pub(super) server: Tables<SiteServer>,
}

/// `[[site.server]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteServer {
    pub(super) name: Given<String>,
    pub(super) address: Given<String>,
    pub(super) via: Given<Vec<Spanned<String>>>,
    pub(super) directory: Given<String>,
    pub(super) nginx: Given<String>,
    pub(super) scripts: GivenTable<SiteScripts>,
}

/// `[site.server.scripts]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteScripts {
    pub(super) stage: Given<String>,
    pub(super) test: Given<String>,
    pub(super) swap: Given<String>,
    pub(super) reload: Given<String>,
    pub(super) restore: Given<String>,
}

/// A table and nothing else: serde would read a list, too, as the fields one by one.
#[derive(Debug, Default)]
pub(super) struct Table<T>(T);

impl<T> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }
        deserializer.deserialize_map(Map(PhantomData))
    }
}

/// A length of time, written as a string with units: `"500ms"`, `"2h4m"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a time such as "500ms", "30s" or "2h4m""#)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                humantime::parse_duration(text).map(Time).map_err(|_| {
                    E::custom(
                        r#"not a length of time; write numbers with units (ms, s, m, h, d) such as "500ms", "30s" or "2h4m""#,
                    )
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A number or a list of numbers.
#[derive(Debug, Clone)]
pub(super) struct OneOrMany(pub(super) Vec<i64>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a list of them")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![number]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = list.next_element()? {
                    numbers.push(number);
                }
                Ok(OneOrMany(numbers))
            }
        }
        deserializer.deserialize_any(Numbers)
    }
}
