"""PostgreSQL's own types by name: the OID of each, and that of its array."""

from __future__ import annotations

TYPES = {
    "bool": (16, 1000),
    "bytea": (17, 1001),
    '"char"': (18, 1002),
    "name": (19, 1003),
    "int8": (20, 1016),
    "int2": (21, 1005),
    "int4": (23, 1007),
    "text": (25, 1009),
    "oid": (26, 1028),
    "json": (114, 199),
    "xml": (142, 143),
    "cidr": (650, 651),
    "float4": (700, 1021),
    "float8": (701, 1022),
    "money": (790, 791),
    "macaddr8": (774, 775),
    "macaddr": (829, 1040),
    "inet": (869, 1041),
    "bpchar": (1042, 1014),
    "varchar": (1043, 1015),
    "date": (1082, 1182),
    "time": (1083, 1183),
    "timestamp": (1114, 1115),
    "timestamptz": (1184, 1185),
    "interval": (1186, 1187),
    "timetz": (1266, 1270),
    "bit": (1560, 1561),
    "varbit": (1562, 1563),
    "numeric": (1700, 1231),
    "uuid": (2950, 2951),
    "jsonb": (3802, 3807),
    "int4range": (3904, 3905),
    "numrange": (3906, 3907),
    "tsrange": (3908, 3909),
    "tstzrange": (3910, 3911),
    "daterange": (3912, 3913),
    "int8range": (3926, 3927),
    "int4multirange": (4451, 6150),
    "nummultirange": (4532, 6151),
    "tsmultirange": (4533, 6152),
    "tstzmultirange": (4534, 6153),
    "datemultirange": (4535, 6155),
    "int8multirange": (4536, 6157),
}

ALIASES = {
    "bigint": "int8",
    "boolean": "bool",
    "char": "bpchar",
    "character": "bpchar",
    "character varying": "varchar",
    "decimal": "numeric",
    "double precision": "float8",
    "int": "int4",
    "integer": "int4",
    "real": "float4",
    "smallint": "int2",
    "time with time zone": "timetz",
    "time without time zone": "time",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}

NAMES = {oid: name for name, (oid, _) in TYPES.items()} | {
    array: f"{name}[]" for name, (_, array) in TYPES.items()
}


def oid_of(name: str) -> int | None:
    """The OID of a type; of an array, for a name that ends in `[]`."""
    element = name.removesuffix("[]").strip().lower()
    found = TYPES.get(ALIASES.get(element, element))
    return None if found is None else found[name.endswith("[]")]
