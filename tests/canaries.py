"""What no log may hold: values of patients and secrets that the tests use, and a watch over all that is logged meanwhile.

It also hears control characters, which could begin a line or paint on a terminal, and fields that have no description.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Final

from aiodicom.logs import FIELDS

PATIENT_NAME: Final = "Canary^Tweety"
PATIENT_ID: Final = "Canary-4711"
PASSCODE: Final = "canary-passcode"
# A JWT whose claims have a canary, too; its signature is none.
TOKEN: Final = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.Y2FuYXJ5LXNpZ25hdHVyZQ"

# The last ones are those of tests/studies.py, of tests/archive/keeping.py, and of the files that pydicom comes with.
_WORDS: Final = (
    PATIENT_NAME,
    PATIENT_ID,
    PASSCODE,
    TOKEN,
    "Tweety",
    "Doe^Jane",
    "Roe^Jane",
    "CompressedSamples",
    "1CT1",
)
CANARIES: Final = (*_WORDS, *(word.encode().hex() for word in _WORDS if len(word) > 4))
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
# These say something in several lines; values in them are escaped.
_IN_LINES: Final = ("aiodicom.negotiation", "aiodicom.rights")


def sung(text: str) -> list[str]:
    """The canaries in a text."""
    return [canary for canary in CANARIES if canary in text]


class Watch(logging.Handler):
    """Hears all that is logged in this process, at every level, and remembers where a canary sang."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard: list[str] = []

    def begin(self) -> None:
        """Listen to all loggers; those of the library say everything from now on."""
        logging.getLogger().addHandler(self)
        for name in ("aiodicom", "pydicom"):
            logging.getLogger(name).setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        for fault in faults(record):
            self.heard.append(f"{fault} in {record.name} at {record.pathname}:{record.lineno}")

    def take(self) -> list[str]:
        """Return what was heard since the last time."""
        heard, self.heard = self.heard, []
        return heard


def faults(record: logging.LogRecord) -> Iterator[str]:
    """What is wrong with a record."""
    words = record.getMessage()
    fields = {name: str(value) for name, value in vars(record).items() if name not in _STANDARD}
    raised = traceback.format_exception(record.exc_info[1]) if record.exc_info else ()
    yield from sung("\n".join((words, *fields.values(), *raised)))
    if not record.name.startswith("aiodicom."):
        return
    for name in fields.keys() - FIELDS.keys():
        yield f"the field {name!r}, which is not in FIELDS,"
    if record.name in _IN_LINES:
        words = words.replace("\n", "")
    if not all(text.isprintable() for text in (words, *fields.values())):
        yield "a control character"
