"""Types of Parquet columns whose values need not be looked at one by one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def plain_type(kind: "pa.DataType") -> "pa.DataType":
    """The type of a column's values."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_id(kind: "pa.DataType") -> bool:
    """Whether all values of the type are ids: of integers, those of 64 bits with a sign."""
    import pyarrow as pa

    kind = plain_type(kind)
    if pa.types.is_uint64(kind):
        return False
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    )


def is_number(kind: "pa.DataType") -> bool:
    """Whether all values of the type are numbers or missing."""
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))
