"""What SQLAlchemy's compliance suite may expect of PostgreSQL through Segue.

What is open is tested; what is not says why. The suite's own defaults hold for the rest.
"""

import sqlalchemy
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

# PostgreSQL has these, and the suite would leave them out unless told.
OPEN = """
aggregate_order_by array_type autocommit boolean_col_expressions
cast_precision_numerics_many_significant_digits check_constraint_reflection
column_collation_reflection comment_reflection comment_reflection_full_unicode computed_columns
computed_columns_reflect_persisted computed_columns_stored computed_columns_default_persisted
constraint_comment_reflection
create_or_replace_view create_table_as create_temp_table_as cross_schema_fk_reflection ctes
ctes_on_dml ctes_with_update_delete ctes_with_values date_historic datetime_historic
datetime_interval datetime_literals datetime_timezone datetime_timezone_historic
default_schema_name_switch deferrable_fks delete_from except_ expression_server_defaults
fetch_expression fetch_first fetch_no_order_by fetch_offset_with_options fetch_ties
fk_constraint_option_reflection_ondelete_noaction fk_constraint_option_reflection_ondelete_restrict
fk_constraint_option_reflection_onupdate_restrict
float_or_double_precision_behaves_generically foreign_key_constraint_name_reflection
foreign_key_constraint_option_reflection_ondelete foreign_key_constraint_option_reflection_onupdate
has_temp_table identity_columns identity_columns_standard implicit_default_schema
index_ddl_if_exists index_reflects_included_columns indexes_check_column_order
indexes_with_expressions infinity_floats inline_check_constraint_reflection intersect
isolation_level json_type legacy_unconditional_json_extract materialized_views
mod_operator_as_percent_sign nullsordering order_by_label_with_expression percent_schema_names
precision_numerics_enotation_small precision_numerics_many_significant_digits
precision_numerics_retains_significant_digits reflect_indexes_with_expressions
reflect_tables_no_columns reflects_pk_names regexp_match regexp_replace
reflect_table_options repeated_column_foreign_keys savepoints schema_create_delete
server_defaults skip_autocommit_rollback supports_bitwise_and supports_bitwise_not
supports_bitwise_or supports_bitwise_shift supports_bitwise_xor supports_distinct_on
table_ddl_if_exists table_value_constructor temp_table_comment_reflection temp_table_names
temporary_views time_timezone timestamp_microseconds tuple_in two_phase_transactions unicode_ddl
unique_constraints_reflect_as_index update_from uuid_data_type views window_functions window_range
window_range_non_numeric window_range_numeric
""".split()

# And these not, or not so.
CLOSED = {
    "computed_columns_virtual": "PostgreSQL has them from version 18 on",
    "dbapi_lastrowid": "PostgreSQL has no row identifiers to tell; the DB-API allows None",
    "emulated_lastrowid": "keys come by RETURNING",
    "emulated_lastrowid_even_with_sequences": "keys come by RETURNING",
    "fetch_percent": "PostgreSQL has no FETCH FIRST n PERCENT",
    "foreign_keys_reflect_as_index": "PostgreSQL makes no index for a foreign key",
    "json_deserializer_binary": "a deserializer is given str, as json.loads would be by psycopg",
    "materialized_views_reflect_pk": "a materialized view has no primary key in PostgreSQL",
    "non_updating_cascade": "PostgreSQL has ON UPDATE CASCADE",
    "nvarchar_types": "PostgreSQL has no NVARCHAR: every text is Unicode",
    "reflect_indexes_with_ascdesc_as_expression": "PostgreSQL tells the direction as such",
    "repeated_remote_col_foreign_keys": "PostgreSQL refuses it (SQLSTATE 42830)",
    "unique_index_reflect_as_unique_constraints": "PostgreSQL tells constraints from indexes",
}


class Requirements(SuiteRequirements):
    """PostgreSQL through Segue."""

    @property
    def async_dialect(self):
        """Whether it is the dialect for asyncio that is tested."""
        return exclusions.only_if(lambda config: config.db.dialect.is_async)

    def get_isolation_levels(self, config):
        """Give the levels that there are, and the default."""
        levels = config.db.dialect.get_isolation_level_values(None)
        return {"default": "READ COMMITTED", "supported": list(levels)}

    def get_order_by_collation(self, config):
        """Give a collation that every server has."""
        return "POSIX"


def _opened(_self):
    return exclusions.open()


def _closed(reason):
    return property(lambda _self: exclusions.skip_if(lambda: True, reason))


for _name in OPEN:
    setattr(Requirements, _name, property(_opened))
for _name, _reason in CLOSED.items():
    setattr(Requirements, _name, _closed(_reason))

if sqlalchemy.__version__.startswith("2.0."):
    Requirements.reflect_table_options = _closed("of PostgreSQL's tables from version 2.1 on")
else:
    # Version 2.0 does not ask for all of them.
    assert {*OPEN, *CLOSED} <= {*dir(SuiteRequirements)}
