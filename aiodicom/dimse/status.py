"""Status codes: their category and what they say (PS3.7 Annex C, and the service classes of PS3.4).

A peer may send any code. One that no table names still has a category, by its range, so nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

__all__ = [
    "ATTRIBUTE_LIST_WARNING",
    "ATTRIBUTE_VALUE_OUT_OF_RANGE",
    "CANCEL",
    "CLASS_INSTANCE_CONFLICT",
    "DUPLICATE_INVOCATION",
    "DUPLICATE_SOP_INSTANCE",
    "GENERAL",
    "INVALID_ARGUMENT_VALUE",
    "INVALID_ATTRIBUTE_VALUE",
    "INVALID_SOP_INSTANCE",
    "MISSING_ATTRIBUTE",
    "MISSING_ATTRIBUTE_VALUE",
    "MISTYPED_ARGUMENT",
    "NOT_AUTHORIZED",
    "NO_SUCH_ACTION",
    "NO_SUCH_ARGUMENT",
    "NO_SUCH_ATTRIBUTE",
    "NO_SUCH_EVENT_TYPE",
    "NO_SUCH_SOP_CLASS",
    "NO_SUCH_SOP_INSTANCE",
    "PENDING",
    "PROCESSING_FAILURE",
    "RESOURCE_LIMITATION",
    "SERVICE_CLASSES",
    "SOP_CLASS_NOT_SUPPORTED",
    "SUCCESS",
    "UNRECOGNIZED_OPERATION",
    "Category",
    "Status",
]


class Category(Enum):
    """The status classes of PS3.7 Annex C: what a response says of its operation.

    SUCCESS and WARNING mean that it was performed, FAILURE and CANCEL that it was not, or not to its end; PENDING that
    more responses follow.
    """

    SUCCESS = "Success"
    PENDING = "Pending"
    CANCEL = "Cancel"
    WARNING = "Warning"
    FAILURE = "Failure"


class Status(int):
    """A status code, the value of Status (0000,0900): an `int` that knows its category and its meaning.

    Any number is allowed, and equal to itself as an `int`: `Status(0) == 0`.
    """

    __slots__ = ()

    @property
    def category(self) -> Category:
        """The status class by the ranges of PS3.7 Annex C; FAILURE for a code outside of all of them."""
        if self == 0x0000:
            return Category.SUCCESS
        if self in (0xFF00, 0xFF01):
            return Category.PENDING
        if self == 0xFE00:
            return Category.CANCEL
        if 0xB000 <= self <= 0xBFFF or self in (0x0001, 0x0107, 0x0116):
            return Category.WARNING
        return Category.FAILURE

    @property
    def description(self) -> str:
        """What PS3.7 or PS3.4 says about the code: "Refused: Out of Resources"; for an unknown one its category.

        Where services differ in what they call the same code, it names both.
        """
        for codes, description in SERVICE_CLASSES.items():
            if self in codes:
                return description
        return GENERAL.get(self, self.category.value)

    def __repr__(self) -> str:
        category, description = self.category.value, self.description
        return f"<Status 0x{self:04X} {category if description == category else f'{category}: {description}'}>"


# PS3.7 Annex C. These codes mean the same in every service.
SUCCESS: Final = Status(0x0000)
NO_SUCH_ATTRIBUTE: Final = Status(0x0105)
INVALID_ATTRIBUTE_VALUE: Final = Status(0x0106)
ATTRIBUTE_LIST_WARNING: Final = Status(0x0107)
PROCESSING_FAILURE: Final = Status(0x0110)
DUPLICATE_SOP_INSTANCE: Final = Status(0x0111)
NO_SUCH_SOP_INSTANCE: Final = Status(0x0112)
NO_SUCH_EVENT_TYPE: Final = Status(0x0113)
NO_SUCH_ARGUMENT: Final = Status(0x0114)
INVALID_ARGUMENT_VALUE: Final = Status(0x0115)
ATTRIBUTE_VALUE_OUT_OF_RANGE: Final = Status(0x0116)
INVALID_SOP_INSTANCE: Final = Status(0x0117)
NO_SUCH_SOP_CLASS: Final = Status(0x0118)
CLASS_INSTANCE_CONFLICT: Final = Status(0x0119)
MISSING_ATTRIBUTE: Final = Status(0x0120)
MISSING_ATTRIBUTE_VALUE: Final = Status(0x0121)
SOP_CLASS_NOT_SUPPORTED: Final = Status(0x0122)
NO_SUCH_ACTION: Final = Status(0x0123)
NOT_AUTHORIZED: Final = Status(0x0124)
DUPLICATE_INVOCATION: Final = Status(0x0210)
UNRECOGNIZED_OPERATION: Final = Status(0x0211)
MISTYPED_ARGUMENT: Final = Status(0x0212)
RESOURCE_LIMITATION: Final = Status(0x0213)
CANCEL: Final = Status(0xFE00)
PENDING: Final = Status(0xFF00)

GENERAL: Final[Mapping[int, str]] = {
    SUCCESS: "Success",
    NO_SUCH_ATTRIBUTE: "No such Attribute",
    INVALID_ATTRIBUTE_VALUE: "Invalid Attribute Value",
    ATTRIBUTE_LIST_WARNING: "Attribute List warning",
    PROCESSING_FAILURE: "Processing failure",
    DUPLICATE_SOP_INSTANCE: "Duplicate SOP Instance",
    NO_SUCH_SOP_INSTANCE: "No such SOP Instance",
    NO_SUCH_EVENT_TYPE: "No such Event Type",
    NO_SUCH_ARGUMENT: "No such argument",
    INVALID_ARGUMENT_VALUE: "Invalid argument value",
    ATTRIBUTE_VALUE_OUT_OF_RANGE: "Attribute Value out of range",
    INVALID_SOP_INSTANCE: "Invalid SOP Instance",
    NO_SUCH_SOP_CLASS: "No such SOP Class",
    CLASS_INSTANCE_CONFLICT: "Class-Instance conflict",
    MISSING_ATTRIBUTE: "Missing Attribute",
    MISSING_ATTRIBUTE_VALUE: "Missing Attribute Value",
    SOP_CLASS_NOT_SUPPORTED: "Refused: SOP Class not supported",
    NO_SUCH_ACTION: "No such Action",
    NOT_AUTHORIZED: "Refused: Not authorized",
    DUPLICATE_INVOCATION: "Duplicate invocation",
    UNRECOGNIZED_OPERATION: "Unrecognized operation",
    MISTYPED_ARGUMENT: "Mistyped argument",
    RESOURCE_LIMITATION: "Resource limitation",
    CANCEL: "Cancel",
    PENDING: "Pending",
}
"""The general status codes of PS3.7 Annex C and what each says."""

SERVICE_CLASSES: Final[Mapping[range, str]] = {
    range(0x0001, 0x0002): "Requested optional Attributes are not supported",
    range(0xA701, 0xA702): "Refused: Out of Resources, unable to calculate number of matches",
    range(0xA702, 0xA703): "Refused: Out of Resources, unable to perform sub-operations",
    range(0xA700, 0xA800): "Refused: Out of Resources",
    range(0xA801, 0xA802): "Refused: Move Destination unknown",
    range(0xA900, 0xAA00): "Error: Data Set or Identifier does not match SOP Class",
    range(0xAA00, 0xAA01): "None of the frames requested were found in the SOP Instance",
    range(0xAA01, 0xAA02): "Unable to create new object for this SOP Class",
    range(0xAA02, 0xAA03): "Unable to extract frames",
    range(0xAA03, 0xAA04): "Time-based request received for a non-time-based original SOP Instance",
    range(0xAA04, 0xAA05): "Invalid request",
    range(0xB000, 0xB001): "Coercion of Data Elements, or sub-operations complete with failures or warnings",
    range(0xB001, 0xB002): "Matching reached response limit, a subsequent request may return additional matches",
    range(0xB006, 0xB007): "Elements discarded",
    range(0xB007, 0xB008): "Data Set does not match SOP Class",
    range(0xC000, 0xD000): "Error: Cannot understand, or unable to process",
    range(0xFF01, 0xFF02): "Matches are continuing, one or more Optional Keys are not supported",
}
"""The codes of Storage (PS3.4 §B.2.3) and Query/Retrieve (§C.4, §Y.4) and what each says; the first range counts."""
