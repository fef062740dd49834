"""A script: runs a client while a server of its own listens beside it, and reports what the client took.

So C-MOVE has a destination that is not in the client: movescu can be its own, but then it waits for a second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

from bench.processes import Command, serving


def main() -> None:
    """Start the server, run the client to its end, and stop the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, help="where the server listens")
    parser.add_argument("server", help="its command line")
    parser.add_argument("client", help="the command line of the client")
    parser.add_argument("words", help="what the client says if all went well")
    arguments = parser.parse_args()
    [core, *_] = os.sched_getaffinity(0)
    server = Command(tuple(shlex.split(arguments.server)), {})
    with tempfile.TemporaryDirectory() as name, serving(server, arguments.port, Path(name) / "server", core):
        begun = time.perf_counter()
        client = subprocess.run(shlex.split(arguments.client), capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the client: the server has not ended
    if arguments.words not in client.stdout + client.stderr:
        raise SystemExit(f"no {arguments.words!r} from {arguments.client}")
    print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": None, "added": None}))


if __name__ == "__main__":
    main()
