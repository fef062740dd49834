"""A disk whose power fails: what may be on it, whatever was asked of it, when only what was synced is sure to be there.

A file's bytes are there after a sync of the file, a name after a sync of its folder. Anything else may be there or not,
which is less than any file system promises. One with a journal keeps the order of what happens to names, so that all up
to some point is there and nothing after it; such a disk is `ordered`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, TypeAlias

from bench.syscalls import Call

SECTOR: Final = 512
ONE_BY_ONE: Final = 12
"""How many of the last names that are not synced are left out, or alone kept, one by one."""


@dataclass(eq=False, slots=True)
class File:
    """A file.

    Args:
        durable: what is sure to be in it.
        pending: what was written since: where, and what; nothing is where it was cut.
    """

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)  # that were made of these already

    def content(self, how: str) -> bytes:
        """Return what may be in it: with "all", "none", the "torn" or the "last" of what was written, or every "other"."""
        if not self.pending:
            return self.durable
        if how not in self.contents:
            self.contents[how] = self._made(how)
        return self.contents[how]

    def _made(self, how: str) -> bytes:
        writes = self.pending
        if how == "none":
            return self.durable
        if how == "last":
            writes = writes[-1:]
        elif how == "other":
            writes = writes[1::2]
        made = bytearray(self.durable)
        for at, data in writes:
            if data is None:
                del made[at:]
                made.extend(bytes(at - len(made)))
                continue
            if how == "torn" and data is writes[-1][1]:
                data = data[: len(data) // 2 // SECTOR * SECTOR]
            made.extend(bytes(max(0, at + len(data) - len(made))))
            made[at : at + len(data)] = data
        return bytes(made)

    def write(self, at: int, data: bytes | None) -> None:
        """Take note of a write, or of where it was cut."""
        self.pending.append((at, data))
        self.contents.clear()

    def sync(self) -> None:
        """Have all of it."""
        self.durable = self.content("all")
        self.pending.clear()
        self.contents.clear()


@dataclass(eq=False, slots=True)
class Folder:
    """A folder, with the names that are sure to be in it."""

    durable: dict[str, File | Folder] = field(default_factory=dict)


Node: TypeAlias = File | Folder
WRITTEN: Final = ("all", "none", "torn", "last", "other")


@dataclass(eq=False, slots=True)
class Naming:
    """What happened to names at once.

    Args:
        names: for each the folder, and what it names now, if anything.
        in_journal: whether anything was synced since: with a journal it is on the disk.
    """

    names: tuple[tuple[Folder, str, Node | None], ...]
    in_journal: bool = False

    def within(self, folder: Folder) -> bool:
        """Tell whether it is about a folder's names."""
        return any(each is folder for each, _, _ in self.names)


@dataclass(frozen=True, slots=True)
class Image:
    """What may be on the disk.

    Args:
        folders: their paths, parents first.
        files: by path, with what is in them; two paths may be names of one file.
        ordered: whether a file system with a journal might leave it, too.
    """

    folders: tuple[str, ...]
    files: Mapping[str, tuple[File, bytes]]
    ordered: bool

    def fingerprint(self) -> int:
        """Return a number that others like it have, too."""
        return hash((self.folders, tuple((path, id(file), data) for path, (file, data) in self.files.items())))

    def write(self, folder: Path) -> None:
        """Make it, in a folder that is empty."""
        for path in self.folders:
            (folder / path).mkdir()
        first: dict[File, Path] = {}
        for path, (file, data) in self.files.items():
            if file in first:
                os.link(first[file], folder / path)
            else:
                first[file] = folder / path
                first[file].write_bytes(data)


class Disk:
    """The disk below a folder, which is empty at first.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._top = Folder()
        self._pending: list[Naming] = []

    def do(self, call: Call) -> bool:
        """Do what a program asked for; tell whether it changed anything here."""
        if call.name == "sync":
            self._sync_everything()
            return True
        paths = [call.where] if call.name in _OF_A_DESCRIPTOR else list(call.paths)
        inside = [self._parts(path) for path in paths]
        if not all(inside) and (call.name not in ("fsync", "fdatasync") or paths != [self._root]):
            return False
        return call.name in self._does and bool(self._does[call.name](self, call, *inside))

    def images(self) -> Iterator[Image]:
        """Yield what may be on it now, some of it more than once."""
        for number, (choice, ordered) in enumerate(self._choices()):
            tree = _tree(choice)
            # What becomes of bytes does not depend on what becomes of names: it is tried with all names and with none.
            for written in WRITTEN if number < 2 else WRITTEN[:1]:
                yield _image(self._top, tree, written, ordered)

    def image(self) -> Image:
        """Return what a program sees."""
        return _image(self._top, _tree(self._pending), "all", ordered=True)

    def _choices(self) -> Iterator[tuple[list[Naming], bool]]:
        """Which names are there of those that are not synced; the first choice is all of them, the second none."""
        pending = self._pending
        yield pending, True
        if not pending:
            return
        in_journal = sum(naming.in_journal for naming in pending)
        yield [], not in_journal
        for at in range(max(0, len(pending) - ONE_BY_ONE), len(pending)):
            yield pending[:at], at >= in_journal
            yield pending[:at] + pending[at + 1 :], False
            yield [pending[at]], False
        for folder in {id(folder): folder for naming in pending for folder, _, _ in naming.names}.values():
            yield [naming for naming in pending if not naming.within(folder)], False
            yield [naming for naming in pending if naming.within(folder)], False

    # What calls do.

    def _open(self, call: Call, parts: list[str]) -> bool:
        is_new = "O_CREAT" in call.arguments and self._find(parts) is None
        if is_new:
            self._name((parts, File()))
        elif "O_TRUNC" in call.arguments and (file := self._file(parts)) is not None:
            file.write(0, None)
        return is_new or "O_TRUNC" in call.arguments

    def _write(self, call: Call, parts: list[str]) -> bool:
        file = self._file(parts)
        if file is not None:
            file.write(call.last_number if call.name == "pwrite64" else len(file.content("all")), call.data)
        return file is not None

    def _cut(self, call: Call, parts: list[str]) -> bool:
        file = self._file(parts)
        if file is not None:
            file.write(call.last_number, None)
        return file is not None

    def _sync(self, call: Call, parts: list[str]) -> bool:
        node = self._find(parts)
        if call.name == "fsync":  # the other one is about a file's bytes
            for naming in self._pending:
                naming.in_journal = True
        if isinstance(node, File):
            node.sync()
        elif node is not None:
            self._make_durable([naming for naming in self._pending if naming.within(node)])
        return node is not None

    def _link(self, _call: Call, old: list[str], new: list[str]) -> bool:
        self._name((new, self._find(old)))
        return True

    def _rename(self, _call: Call, old: list[str], new: list[str]) -> bool:
        self._name((new, self._find(old)), (old, None))
        return True

    def _unlink(self, _call: Call, parts: list[str]) -> bool:
        self._name((parts, None))
        return True

    def _make_folder(self, _call: Call, parts: list[str]) -> bool:
        self._name((parts, Folder()))
        return True

    def _sync_everything(self) -> None:
        self._make_durable(list(self._pending))
        for file, _ in self.image().files.values():
            file.sync()

    def _name(self, *names: tuple[list[str], Node | None]) -> None:
        found = []
        for parts, node in names:
            folder = self._find(parts[:-1])
            assert isinstance(folder, Folder)
            found.append((folder, parts[-1], node))
        self._pending.append(Naming(tuple(found)))

    def _make_durable(self, namings: Iterable[Naming]) -> None:
        for naming in namings:
            self._pending.remove(naming)
            for folder, name, node in naming.names:
                _set(folder.durable, name, node)

    def _parts(self, path: str) -> list[str]:
        if not path.startswith(f"{self._root}/") or path.endswith(("-shm", " (deleted)")):
            return []
        return path[len(self._root) + 1 :].split("/")

    def _file(self, parts: list[str]) -> File | None:
        node = self._find(parts)
        return node if isinstance(node, File) else None

    def _find(self, parts: list[str]) -> Node | None:
        node: Node | None = self._top
        for part in parts:
            if not isinstance(node, Folder):
                return None
            found = node.durable.get(part)
            for naming in self._pending:
                for folder, name, named in naming.names:
                    if folder is node and name == part:
                        found = named
            node = found
        return node

    _does: ClassVar[Mapping[str, Callable[..., bool]]] = {
        "openat": _open,
        **dict.fromkeys(("write", "writev", "pwrite64"), _write),
        "ftruncate": _cut,
        **dict.fromkeys(("fsync", "fdatasync"), _sync),
        **dict.fromkeys(("link", "linkat"), _link),
        **dict.fromkeys(("rename", "renameat", "renameat2"), _rename),
        **dict.fromkeys(("unlink", "unlinkat", "rmdir"), _unlink),
        **dict.fromkeys(("mkdir", "mkdirat"), _make_folder),
    }


_OF_A_DESCRIPTOR: Final = frozenset(("write", "writev", "pwrite64", "ftruncate", "fsync", "fdatasync"))


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _tree(namings: Iterable[Naming]) -> dict[Folder, dict[str, Node]]:
    """The names in each folder that has others than the durable ones."""
    tree: dict[Folder, dict[str, Node]] = {}
    for naming in namings:
        for folder, name, node in naming.names:
            _set(tree.setdefault(folder, dict(folder.durable)), name, node)
    return tree


def _image(top: Folder, tree: Mapping[Folder, dict[str, Node]], written: str, ordered: bool) -> Image:
    folders: list[str] = []
    files: dict[str, tuple[File, bytes]] = {}

    def walk(folder: Folder, above: str) -> None:
        for name, node in sorted(tree.get(folder, folder.durable).items()):
            if isinstance(node, Folder):
                folders.append(above + name)
                walk(node, f"{above}{name}/")
            else:
                files[above + name] = node, node.content(written)

    walk(top, "")
    return Image(tuple(folders), files, ordered)
