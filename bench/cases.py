"""All that is measured."""

from __future__ import annotations

from bench import associations, distance, queries, script, stores, tls
from bench.case import Case, Scale


def all_cases(scale: Scale) -> tuple[Case, ...]:
    """Return the cases, with counts by `scale`."""
    return (
        *stores.cases(scale),
        *associations.cases(scale),
        *queries.cases(scale),
        *tls.cases(scale),
        *script.cases(scale),
        *distance.cases(scale),
    )
