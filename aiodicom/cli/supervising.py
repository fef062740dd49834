"""Several processes that serve one archive at one port: started, started again when they die, stopped together.

A worker is told what to do by words on its standard input, a Unix socket, each on a line: listen, status, stop, abort. It
answers with JSON, a line each: "ready" and "listening" when it is, and its associations to a status. If the supervisor
dies the socket ends, and so does the worker, in good order.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from argparse import Namespace
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from tempfile import TemporaryFile
from typing import Any, Final

from aiodicom.activity import Counters
from aiodicom.cli.console import complain, say
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.pacs import Ending, listeners_of, opened_archive
from aiodicom.cli.view import View, now, shown, viewed
from aiodicom.server import Server

ATTEMPTS: Final = 5
"""How often a worker may end too soon in a row before all is given up."""

STEADY: Final = 10.0
"""A worker that lives for so many seconds did not end too soon."""

FIRST_PAUSE: Final = 0.25
"""How many seconds pass before a worker is started again; twice as many after each that ended too soon."""

GRACE: Final = 3.0
"""How many seconds beyond its deadline a worker may take to end, before it is killed."""

LONGEST_ANSWER: Final = 64 * 1024 * 1024
PATIENCE: Final = 2.0  # seconds for an answer

_log: Final = logging.getLogger("aiodicom.serve")


class WorkerFailed(Exception):
    """A worker ends whatever is done.

    Args:
        reason: why that is thought.
        code: how all of it is to end.
    """

    def __init__(self, reason: str, code: ExitCode) -> None:
        super().__init__(reason)
        self.code = code


async def supervise(options: Namespace, invitation: Callable[[Namespace, int], str]) -> ExitCode:
    """Serve by several workers, until a signal comes.

    Args:
        options: of `aiodicom serve`.
        invitation: says what to print when all of them listen.
    """
    async with opened_archive(options) as archive:
        await archive.share()
        # While it listens nobody else can; whoever calls meanwhile is rejected, as transient.
        placeholder = Server(options.aet, listeners=listeners_of(options), maximum_associations=0, observers=())
        async with placeholder:
            with TemporaryFile() as memory:
                return await _Crew(options, placeholder, memory.fileno()).run(invitation)


class _Crew:
    """The workers.

    Args:
        options: of the command line.
        placeholder: listens where they shall.
        descriptor: of the file that holds the counters.
    """

    def __init__(self, options: Namespace, placeholder: Server, descriptor: int) -> None:
        self._options = options
        self._placeholder = placeholder
        self._port = placeholder.port
        self._counters = Counters(options.workers, descriptor)
        arguments = [*options.arguments, "--port", str(self._port)]
        if options.plain_port is not None:
            arguments += ["--plain-port", str(placeholder.addresses[-1][1])]
        self._workers = [_Worker(row, descriptor, arguments, self._counters) for row in range(options.workers)]
        self._since = now()
        self._ending = Ending(self._abort, options.limits.stop)

    async def run(self, invitation: Callable[[Namespace, int], str]) -> ExitCode:
        """Let them serve until a signal comes, or they fail."""
        keeping = [asyncio.create_task(worker.keep()) for worker in self._workers]
        others = [asyncio.create_task(self._serve(invitation)), asyncio.create_task(self._ending.asked.wait())]
        with self._ending.on_signals(lambda: self._ending.ask_or_abort(self._counters.total("open"))):
            await asyncio.wait([*keeping, *others], return_when=asyncio.FIRST_COMPLETED)
            for worker in self._workers:
                worker.stop()
            self._kill_in(self._options.limits.stop + GRACE)
            await asyncio.wait(keeping)
        for task in others:
            task.cancel()
        ends = await asyncio.gather(*keeping, *others, return_exceptions=True)
        for end in ends:
            if isinstance(end, WorkerFailed):
                complain(str(end))
                return end.code
            if isinstance(end, Exception):
                raise end
        return ExitCode.INTERRUPTED if self._ending.aborted else ExitCode.OK

    async def _serve(self, invitation: Callable[[Namespace, int], str]) -> None:
        """Let them listen when all of them are ready, and whoever asks know what they do."""
        for worker in self._workers:
            await worker.is_ready.wait()
        await self._placeholder.stop()
        for worker in self._workers:
            worker.listen()
        for worker in self._workers:
            await worker.is_listening.wait()
        async with shown(self._options.storage, self._view):
            if not self._options.quiet:
                say(invitation(self._options, self._port))
            await asyncio.Event().wait()  # until it is cancelled

    async def _view(self) -> View:
        associations = await asyncio.gather(*(worker.associations() for worker in self._workers))
        numbers = [worker.number for worker in self._workers]
        workers = [worker.described() for worker in self._workers]
        return viewed(self._options, self._port, self._since, workers, dict(zip(numbers, associations, strict=True)))

    def _abort(self) -> bool:
        is_serving = self._counters.total("open") > 0
        for worker in self._workers:
            worker.tell("abort")
        self._kill_in(GRACE)
        return is_serving

    def _kill_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        for worker in self._workers:
            loop.call_later(seconds, worker.kill)


class _Worker:
    """A worker: one process after the other, in which it lives.

    Args:
        row: of the counters.
        descriptor: of the file that holds them.
        arguments: of `aiodicom serve`.
        counters: what it counts.
    """

    def __init__(self, row: int, descriptor: int, arguments: Sequence[str], counters: Counters) -> None:
        self.number = row + 1
        self.is_ready = asyncio.Event()
        self.is_listening = asyncio.Event()
        self._row = row
        self._descriptor = descriptor
        self._arguments = arguments
        self._counters = counters
        self._since = ""
        self._restarts = 0
        self._may_listen = False
        self._has_listened = False
        self._stopped = asyncio.Event()
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answer: asyncio.Future[list[dict[str, Any]]] | None = None

    async def keep(self) -> None:
        """Keep it alive until it is stopped.

        Raises:
            WorkerFailed: it cannot be.
        """
        loop = asyncio.get_running_loop()
        ends = 0  # too soon, in a row
        while not self._stopped.is_set():
            begun = loop.time()
            code = await self._live()
            self._counters.forget(self._row)
            if self._stopped.is_set():
                return
            ends = 1 if loop.time() - begun >= STEADY else ends + 1
            if code > 0 and not self._has_listened:
                raise WorkerFailed(f"worker {self.number} cannot start, and so none does", _exit_code(code))
            if ends == ATTEMPTS:
                reason = (
                    f"worker {self.number} ended {ATTEMPTS} times within {STEADY:g} s, the last time by {_words(code)}"
                )
                raise WorkerFailed(f"{reason}; all of them are stopped", ExitCode.FAILURES)
            pause = FIRST_PAUSE * 2 ** (ends - 1)
            _log.error("worker %d ended by %s; it is started again in %g s", self.number, _words(code), pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), pause)
            self._restarts += 1

    def listen(self) -> None:
        """Let it listen, now and whenever it is ready again."""
        self._may_listen = True
        self.tell("listen")

    def stop(self) -> None:
        """Let it end in good order, and not begin again."""
        self._stopped.set()
        self.tell("stop")

    def kill(self) -> None:
        """Let it end at once."""
        if self._process is not None and self._process.returncode is None:
            _log.error("worker %d does not end, and is killed", self.number)
            self._process.kill()

    def tell(self, word: str) -> None:
        """Tell it what to do, if it lives."""
        if self._writer is not None:
            self._writer.write(f"{word}\n".encode())

    async def associations(self) -> list[dict[str, Any]]:
        """Ask it for its associations; of one that does not answer, none are known."""
        if self._writer is None or not self.is_listening.is_set():
            return []
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
            self.tell("status")
        try:
            return await asyncio.wait_for(asyncio.shield(self._answer), PATIENCE)
        except TimeoutError:
            return []

    def described(self) -> dict[str, Any]:
        """Return what it is, and what it has counted."""
        pid = self._process.pid if self._process is not None else None
        own = {"worker": self.number, "pid": pid, "since": self._since or None, "restarts": self._restarts}
        return {**own, **self._counters.of(self._row)}

    async def _live(self) -> int:
        """Start a process, hear what it says, and return its exit code."""
        try:
            process, ours = await self._started()
        except OSError as error:  # such as too little memory for the moment
            _log.error("worker %d cannot be started: %s", self.number, error.strerror)
            return ExitCode.FAILURES
        self._process = process
        self._since = now()
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_ANSWER)
            if self._stopped.is_set():
                self.tell("stop")
            with suppress(ConnectionError):
                while (line := await reader.readline()).endswith(b"\n"):  # the last one is cut where it was killed
                    self._heard(json.loads(line))
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if self._writer is not None:
                self._writer.close()
            self._process = self._writer = None
            self.is_ready.clear()
            self.is_listening.clear()
            self._heard([])

    async def _started(self) -> tuple[Process, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as unless_it_works:
            unless_it_works.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "aiodicom.cli.worker", str(self._row), str(self._descriptor)),
                *self._arguments,
                stdin=theirs.fileno(),
                pass_fds=(self._descriptor,),
                start_new_session=True,  # Ctrl-C is for the supervisor
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            unless_it_works.pop_all()
        return process, ours

    def _heard(self, message: object) -> None:
        match message:
            case "ready":
                self.is_ready.set()
                if self._may_listen:
                    self.tell("listen")
            case "listening":
                self._has_listened = True
                self.is_listening.set()
            case list() if self._answer is not None and not self._answer.done():
                self._answer.set_result(message)


def _words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _exit_code(code: int) -> ExitCode:
    try:
        return ExitCode(code)
    except ValueError:
        return ExitCode.FAILURES
