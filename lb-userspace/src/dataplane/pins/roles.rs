//! What each map is for, as far as it matters to what becomes of it when a new set of tables takes the place of an old one.

/// What becomes of a map's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The daemon writes it anew whenever it starts.
    Configuration,
    /// Entries of connections: brought over one by one, wherever they belong then.
    Connections,
    /// The own ports of `full-nat` connections: brought over place by place.
    Ports,
    /// Of every number something that the program goes on from: the old map itself is taken over, or the whole set cannot be.
    State,
    /// What may be forgotten: it is taken over if it can be.
    Passing,
    /// What one packet leaves for the next program, or the programs themselves: of each generation its own.
    OfGeneration,
}

/// The object's maps; those of the compiler's own (`.rodata`) are each generation's own as well.
const ROLES: &[(&str, Role)] = &[
    ("TABLE_HEADER", Role::Configuration),
    ("DAEMON_NOTES", Role::Configuration),
    ("CONTROL", Role::Configuration),
    ("SERVICE_TABLE", Role::Configuration),
    ("ENDPOINT_TABLE", Role::Configuration),
    ("SIBLINGS", Role::Configuration),
    ("SERVICES", Role::Configuration),
    ("BACKENDS", Role::Configuration),
    ("OUTERS", Role::Configuration),
    ("SLOTS", Role::Configuration),
    ("CONNECTIONS", Role::Connections),
    ("WIDE_CONNECTIONS", Role::Connections),
    ("PORTS", Role::Ports),
    ("SERVICE_STATES", Role::State),
    ("BACKEND_STATES", Role::State),
    ("RETURN_HOP_TABLE", Role::State),
    ("BACKEND_COUNTERS", Role::State),
    ("OUTCOME_COUNTERS", Role::Passing),
    ("PRESSURE", Role::Passing),
    ("FRAGMENTS", Role::Passing),
    ("EVICTIONS", Role::Passing),
    ("ICMP_SENT", Role::Passing),
];

impl Role {
    /// That of a map.
    pub(crate) fn of(map: &str) -> Self {
        let known = ROLES.iter().find(|(name, _)| *name == map);
        known.map_or(Self::OfGeneration, |(_, role)| *role)
    }
}
