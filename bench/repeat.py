"""A script: runs a command line many times, one after the other or all at once, and reports what all of them took."""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import time


def main() -> None:
    """Run it, and end with an error where one of them does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("times", type=int)
    parser.add_argument("command", help="a command line")
    arguments = parser.parse_args()
    command = shlex.split(arguments.command)
    begun = time.perf_counter()
    if arguments.at_once:
        started = [subprocess.Popen(command) for _ in range(arguments.times)]
        statuses = [process.wait() for process in started]
    else:
        statuses = [subprocess.run(command, check=False).returncode for _ in range(arguments.times)]
    seconds = time.perf_counter() - begun
    if any(statuses):
        raise SystemExit(f"{statuses.count(0)} of {arguments.times} went well")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": None, "added": None}))


if __name__ == "__main__":
    main()
