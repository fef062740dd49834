"""The limit of open files, which is one of connections, too (RLIMIT_NOFILE)."""

from __future__ import annotations

from contextlib import suppress

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]


def ensure_descriptors(needed: int) -> str:
    """Raise the limit of open files of this process, and of those it starts, as far as it may.

    Args:
        needed: how many files and connections it may come to have open.

    Returns:
        What to tell the user where that is not enough; else nothing.
    """
    if resource is None:
        return ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = max(soft, needed) if hard == resource.RLIM_INFINITY else hard
        with suppress(OSError, ValueError):  # some systems have a further limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return ""
    return (
        f"it may need {needed:,} files and connections at a time, and the system allows {soft:,}: before it is started, "
        f"type `ulimit -n {needed}` as root (or LimitNOFILE={needed} for systemd), or have fewer --max-associations"
    )
