"""The embedded archive: instances as PS3.10 files, an index of them in SQLite, and queries of it (PS3.4 §C.6)."""

from aiodicom.archive.archive import Archive
from aiodicom.archive.rebuilding import Rebuilt, rebuild
from aiodicom.archive.worklist import Imported

__all__ = ["Archive", "Imported", "Rebuilt", "rebuild"]
