//! Which PostgreSQL type is which Python type: the built-in ones, those that a database has of its
//! own, and those that an application has registered.
//!
//! OIDs of a database's own types differ from database to database: there is one map for each
//! connection string. Built-in OIDs are PostgreSQL's for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};

use pyo3::prelude::*;

/// How the values of a type are converted.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Text, in text and in binary.
    Text,
    Bool,
    Bytea,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Inet,
    Cidr,
    Record,
    Hstore,
    Array(Arc<Kind>),
    Range(Arc<Kind>),
    Multirange(Arc<Kind>),
    Composite(Arc<Composite>),
    Enum(Arc<[(String, Py<PyAny>)]>),
    Custom(Arc<Custom>),
    /// Its binary form is not known here: it is asked for as text.
    Unknown,
}

/// A row type of the database.
#[derive(Debug)]
pub struct Composite {
    /// The types of its fields.
    pub fields: Vec<u32>,
    /// Called with the fields.
    pub factory: Py<PyAny>,
}

/// A conversion in Python.
#[derive(Debug)]
pub struct Custom {
    pub loads: Py<PyAny>,
    /// It takes bytes in PostgreSQL's binary form; otherwise a str.
    pub binary: bool,
}

impl Kind {
    pub fn is_binary(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Custom(custom) => custom.binary,
            Self::Array(inner) | Self::Range(inner) | Self::Multirange(inner) => inner.is_binary(),
            _ => true,
        }
    }
}

impl Kind {
    /// Whether converting it runs no code written in Python, in which a signal's handler may raise.
    pub fn is_plain(&self) -> bool {
        match self {
            Self::Custom(_) | Self::Json | Self::Jsonb | Self::Composite(_) | Self::Record => false,
            Self::Range(_) | Self::Multirange(_) | Self::Inet | Self::Cidr => false,
            Self::Array(inner) => inner.is_plain(),
            _ => true,
        }
    }
}

/// OID, OID of the array, kind.
const BUILT_IN: &[(u32, u32, Kind)] = &[
    (16, 1000, Kind::Bool),
    (17, 1001, Kind::Bytea),
    // "char" is one byte, in any encoding; its text form says \0 and \200 to \377 in ASCII.
    (18, 1002, Kind::Unknown),
    (19, 1003, Kind::Text),
    (20, 1016, Kind::Int8),
    (21, 1005, Kind::Int2),
    (23, 1007, Kind::Int4),
    (25, 1009, Kind::Text),
    (26, 1028, Kind::Oid),
    (114, 199, Kind::Json),
    (142, 143, Kind::Text),
    (650, 651, Kind::Cidr),
    (700, 1021, Kind::Float4),
    (701, 1022, Kind::Float8),
    (705, 0, Kind::Text),
    (869, 1041, Kind::Inet),
    (1042, 1014, Kind::Text),
    (1043, 1015, Kind::Text),
    (1082, 1182, Kind::Date),
    (1083, 1183, Kind::Time),
    (1114, 1115, Kind::Timestamp),
    (1184, 1185, Kind::TimestampTz),
    (1186, 1187, Kind::Interval),
    (1266, 1270, Kind::TimeTz),
    (1700, 1231, Kind::Numeric),
    (2249, 2287, Kind::Record),
    (2275, 1263, Kind::Text),
    (2278, 0, Kind::Text),
    (2950, 2951, Kind::Uuid),
    (3802, 3807, Kind::Jsonb),
    (1790, 2201, Kind::Text),
    // For the sake of their arrays.
    (22, 1006, Kind::Unknown),
    (24, 1008, Kind::Unknown),
    (27, 1010, Kind::Unknown),
    (28, 1011, Kind::Unknown),
    (29, 1012, Kind::Unknown),
    (30, 1013, Kind::Unknown),
    (600, 1017, Kind::Unknown),
    (601, 1018, Kind::Unknown),
    (602, 1019, Kind::Unknown),
    (604, 1027, Kind::Unknown),
    (628, 629, Kind::Unknown),
    (718, 719, Kind::Unknown),
    (774, 775, Kind::Unknown),
    (790, 791, Kind::Unknown),
    (829, 1040, Kind::Unknown),
    (1033, 1034, Kind::Unknown),
    (1560, 1561, Kind::Unknown),
    (1562, 1563, Kind::Unknown),
    (2202, 2207, Kind::Unknown),
    (2205, 2210, Kind::Unknown),
    (2206, 2211, Kind::Unknown),
    (3220, 3221, Kind::Unknown),
    (3614, 3643, Kind::Unknown),
    (3615, 3645, Kind::Unknown),
    (4072, 4073, Kind::Unknown),
];

/// Range, its array, multirange, its array, and the OID of the bounds' type.
pub const RANGES: &[(u32, u32, u32, u32, u32)] = &[
    (3904, 3905, 4451, 6150, 23),
    (3906, 3907, 4532, 6151, 1700),
    (3908, 3909, 4533, 6152, 1114),
    (3910, 3911, 4534, 6153, 1184),
    (3912, 3913, 4535, 6155, 1082),
    (3926, 3927, 4536, 6157, 20),
];

static BUILT_IN_KINDS: LazyLock<HashMap<u32, Kind>> = LazyLock::new(|| {
    let mut kinds = HashMap::new();
    for (oid, array, kind) in BUILT_IN {
        kinds.insert(*oid, kind.clone());
        if *array != 0 {
            kinds.insert(*array, Kind::Array(Arc::new(kind.clone())));
        }
    }
    for (range, range_array, multi, multi_array, bound) in RANGES {
        if let Some(bound) = kinds.get(bound).cloned().map(Arc::new) {
            for (oid, array, kind) in [
                (range, range_array, Kind::Range(Arc::clone(&bound))),
                (multi, multi_array, Kind::Multirange(bound)),
            ] {
                kinds.insert(*array, Kind::Array(Arc::new(kind.clone())));
                kinds.insert(*oid, kind);
            }
        }
    }
    kinds
});

/// The OID of the array of a built-in type; 0 if there is none.
pub fn array_of(oid: u32) -> u32 {
    BUILT_IN.iter().find(|(known, ..)| *known == oid).map_or(0, |(_, array, _)| *array)
}

/// From here on types belong to the database.
pub const FIRST_OWN_OID: u32 = 16_384;

/// The types of one database, as far as they are known.
#[derive(Debug, Default)]
pub struct TypeMap {
    own: RwLock<HashMap<u32, Kind>>,
    epoch: AtomicU64,
}

impl TypeMap {
    /// The map of the database of this connection string.
    pub fn of(conninfo: &str) -> Arc<Self> {
        static MAPS: LazyLock<Mutex<HashMap<String, Arc<TypeMap>>>> = LazyLock::new(Mutex::default);
        let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(maps.entry(conninfo.to_owned()).or_default())
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn kind(&self, oid: u32) -> Kind {
        if self.epoch() > 0 {
            if let Some(kind) = self.own.read().unwrap_or_else(PoisonError::into_inner).get(&oid) {
                return kind.clone();
            }
        }
        BUILT_IN_KINDS.get(&oid).cloned().unwrap_or(Kind::Unknown)
    }

    /// Whether it is a type of the database's own that has not been looked up yet.
    pub fn is_strange(&self, oid: u32) -> bool {
        oid >= FIRST_OWN_OID
            && !self.own.read().unwrap_or_else(PoisonError::into_inner).contains_key(&oid)
    }

    pub fn set(&self, oid: u32, kind: Kind) {
        self.own.write().unwrap_or_else(PoisonError::into_inner).insert(oid, kind);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}
