"""Send a folder over several associations, with progress. What was stored stands in a report, and is not sent again."""

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

import aiodicom


async def transfer(peer: aiodicom.RemoteAE, folder: Path, report: Path) -> int:
    """Send what the peer does not have yet, says the report, and add what comes of it; return how many failed."""
    files, broken = await asyncio.to_thread(aiodicom.find_files, [folder])
    for error in broken:
        print(f"cannot be sent: {error}", file=sys.stderr)
    already = stored(report)
    left = [file for file in files if file.sop_instance_uid not in already]
    done, failed = len(files) - len(left), len(broken)
    delivery = peer.send(left, associations=4)
    with report.open("a", encoding="utf-8", buffering=1) as lines:  # each is in the file as soon as it is written
        try:
            async with delivery:
                async for outcome in delivery:
                    lines.write(line(outcome))
                    done, failed = done + 1, failed + (not outcome.is_stored)
                    print(f"\r{done} of {len(files)}, {failed} failed", end="", file=sys.stderr, flush=True)
        finally:  # what was on its way when we were interrupted
            lines.writelines(map(line, delivery.unreported))
            print(file=sys.stderr)
    return failed


def line(outcome: aiodicom.Outcome) -> str:
    """What the report says of an instance: an object of JSON."""
    said = str(outcome.error) if outcome.status is None else repr(outcome.status)
    entry = {"sop_instance_uid": outcome.sop_instance_uid, "is_stored": outcome.is_stored, "said": said}
    return json.dumps({**entry, "path": str(outcome.path)}) + "\n"


def stored(report: Path) -> set[str]:
    """Return the instances that the peer has."""
    uids = set()
    for text in report.read_text(encoding="utf-8").splitlines() if report.exists() else ():
        with suppress(ValueError):  # half a line, if the power failed: that instance is sent again
            entry = json.loads(text)
            if entry["is_stored"]:
                uids.add(entry["sop_instance_uid"])
    return uids


async def main(host: str, port: str, ae_title: str, folder: str, report: str) -> int:
    """Transfer over four associations, with as many instances in flight on each as help."""
    async with aiodicom.RemoteAE(host, int(port), ae_title=ae_title) as peer:
        return await transfer(peer, Path(folder), Path(report))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit("usage: bulk_transfer.py HOST PORT AET FOLDER REPORT.jsonl")
    sys.exit(1 if asyncio.run(main(*sys.argv[1:])) else 0)
