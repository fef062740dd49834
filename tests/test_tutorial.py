"""The tutorial is true: its commands are run one after the other, as on a terminal, and print what it shows."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, NoReturn

import pytest

from tests.peers.process import SECONDS_BETWEEN_LOOKS, SECONDS_TO_START, Peer, free_port, require, running

ROOT: Final = Path(__file__).parent.parent
TUTORIAL: Final = ROOT / "examples" / "tutorial.md"
DCMTK: Final = ("echoscu", "storescu", "findscu", "movescu", "getscu", "storescp", "dcmqrscp", "dump2dcm")
# Commands that go on until they are stopped, by the port that they open last.
SERVERS: Final[Mapping[str, str]] = {
    "Orthanc orthanc.json": "8042",
    "Orthanc second.json": "8043",
    "aiodicom serve -aet BACKUP": "11114",
    "aiodicom serve": "11112",
    "storescp": "11113",
}
ARCHIVE: Final = "aiodicom serve"
PORTS: Final = (*SERVERS.values(), "4242", "4243", "11120")
COLUMNS: Final = 120

# What is done: a file that is to be written, or added to, and commands with what they print.
STEPS: Final = re.compile(
    r"`(?P<file>[\w-]+\.\w+)`(?:(?!\n\n)[^`])*:\n\n```(?!console)\w+\n(?P<content>.*?)```|```console\n(?P<console>.*?)```",
    flags=re.DOTALL,
)
MEASURED: Final = re.compile(r"\b[\d.,]+ (?:ms|s|[kMG]?B/s|instances/s)\b")
UNSEEN: Final = re.compile(r"\x1b\[[\d;]*m|\0")  # colours, and what DCMTK prints of a padded UID
ASSIGNMENT: Final = re.compile(r"([A-Z]+)=.*")
ELLIPSIS: Final = "…"


@dataclass(frozen=True)
class File:
    """A file, or the next part of it."""

    name: str
    content: str


@dataclass
class Command:
    """A command, and what it prints; without a command it is what aiodicom's archive prints."""

    text: str
    shown: list[str] = field(default_factory=list)


def steps(page: str) -> Iterator[File | Command]:
    """What the page tells its reader to do, in its order."""
    for found in STEPS.finditer(page):
        if found["file"]:
            yield File(found["file"], found["content"])
        else:
            yield from commands(found["console"].splitlines())


def commands(lines: Sequence[str]) -> list[Command]:
    found: list[Command] = [] if lines[0].startswith("$ ") else [Command("")]
    for line in lines:
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ ")))
        else:
            found[-1].shown.append(line)
    return found


def fits(shown: Sequence[str], output: str, *, is_part: bool = False) -> bool:
    """Whether that was printed, or was a part of it.

    In what is shown an ellipsis stands for anything; what is measured may be any other measurement, columns any wider.
    """
    lines = [re.escape(MEASURED.sub(ELLIPSIS, line)).replace(ELLIPSIS, "[^\n]*") for line in shown]
    pattern = re.sub(r"(?:\\ )+", " +", "\n".join(".*" if line == "[^\n]*" else line for line in lines))
    matches = re.search if is_part else re.fullmatch
    return matches(pattern, output, flags=re.DOTALL) is not None


def fail(command: Command, output: str) -> NoReturn:
    shown = "\n".join(command.shown)
    pytest.fail(f"$ {command.text}\n{output}\n\ninstead of\n\n{shown}", pytrace=False)


class Terminals:
    """Where the commands are run: servers in the background, everything else to its end."""

    def __init__(self, folder: Path, ports: Mapping[str, str], environment: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._environment = environment
        self._ports = ports
        self._servers: dict[str, tuple[ExitStack, Peer]] = {}

    def __enter__(self) -> Terminals:
        return self

    def __exit__(self, *_: object) -> None:
        for name in tuple(self._servers):
            self._stop(name)

    def run(self, command: Command) -> None:
        server = next((name for name in SERVERS if command.text.startswith(name)), None)
        if server is not None:
            self._serve(server, command)
        elif not command.text:
            wait_for(command, self._servers[ARCHIVE][1])
        elif assigned := ASSIGNMENT.fullmatch(command.text):
            self._environment.setenv(assigned[1], value_of(assigned[1], command.text))
        else:
            exit_code, output = on_a_terminal(command.text)
            if not fits(command.shown, output):
                fail(command, output)
            if command.text.startswith("aiodicom"):
                assert (exit_code == 0) == (not re.search("^error: ", output, flags=re.MULTILINE)), exit_code

    def _serve(self, name: str, command: Command) -> None:
        """Start a server, instead of the one that was started so before."""
        self._stop(name)
        port = self._ports[SERVERS[name]]
        said = f" --port {port}" if name == ARCHIVE else ""  # the others have it in what is written of them
        log = self._folder / f"{name.replace(' ', '-')}.log"
        stack, peer = ExitStack(), Peer(name, "", int(port), self._folder, log)
        stack.enter_context(running(peer, ["bash", "-c", f"exec {command.text}{said}"]))
        self._servers[name] = stack, peer
        wait_for(command, peer)

    def _stop(self, name: str) -> None:
        if name in self._servers:
            self._servers.pop(name)[0].close()


def wait_for(command: Command, server: Peer) -> None:
    """Return when a server has printed what is shown."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not fits(command.shown, server.output(), is_part=True):
        if time.monotonic() > deadline:
            fail(command, server.output())
        time.sleep(SECONDS_BETWEEN_LOOKS)


def on_a_terminal(command: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it printed: first to the terminal, then about errors."""
    leader, follower = pty.openpty()
    with TemporaryFile() as errors:
        process = subprocess.Popen(["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=follower, stderr=errors)
        os.close(follower)
        output = b""
        with suppress(OSError):  # Linux says EIO when nobody writes any more
            while piece := os.read(leader, 65536):
                output += piece
        os.close(leader)
        exit_code = process.wait()
        errors.seek(0)
        printed = (output + errors.read()).decode(errors="replace")
    return exit_code, UNSEEN.sub("", printed).replace("\r\n", "\n").rstrip("\n")


def value_of(variable: str, assignment: str) -> str:
    """What a variable of the shell has for its value after an assignment."""
    command = f'{assignment}\necho "${variable}"'
    return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout.strip()


def install(folder: Path) -> None:
    """Put the programs into a folder, since an environment may have others of the same names."""
    folder.mkdir()
    for program in DCMTK:
        (folder / program).symlink_to(require(program, "dcmtk"))
    (folder / "Orthanc").symlink_to(require("Orthanc", "orthanc"))
    for name, arguments in (("python", ""), ("aiodicom", "-m aiodicom")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        script.chmod(0o755)


def test_every_command_and_file_is_found() -> None:
    page = TUTORIAL.read_text(encoding="utf-8")
    found = list(steps(page))
    assert [step.text for step in found if isinstance(step, Command) and step.text] == re.findall(
        r"^\$ (.*)$", page, re.M
    )
    written = ["orthanc.json", "aiodicom.toml", "query.txt", "aiodicom.toml", "second.json"]
    assert [step.name for step in found if isinstance(step, File)] == written


@pytest.mark.timeout(300)  # it takes a newcomer ten minutes
def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tour"
    folder.mkdir()
    install(tmp_path / "bin")
    monkeypatch.chdir(folder)
    for name, value in {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": str(COLUMNS),
        "LC_ALL": "C.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    ports = {port: str(free_port()) for port in PORTS}
    page = re.sub(rf"\b(?:{'|'.join(PORTS)})\b", lambda found: ports[found[0]], TUTORIAL.read_text(encoding="utf-8"))
    with Terminals(tmp_path, ports, monkeypatch) as terminals:
        for step in steps(page):
            if isinstance(step, File):
                with (folder / step.name).open("a", encoding="utf-8") as file:
                    file.write(step.content)
            else:
                terminals.run(step)
