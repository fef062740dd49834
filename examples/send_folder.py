"""Send everything in a folder over as few associations as its presentation contexts need, several instances in flight."""

import asyncio
import sys

import aiodicom


async def send(host: str, port: int, folder: str) -> None:
    """Send what can be sent, and say what cannot."""
    files, broken = await asyncio.to_thread(aiodicom.find_files, [folder])
    for error in broken:
        print(f"not sent: {error}")
    for plan in aiodicom.plan_associations(files):
        async with aiodicom.associate(host, port, contexts=plan.contexts, operations_window=(8, 1)) as association:
            responses = await asyncio.gather(*(association.c_store(file) for file in plan.files))
            for file, response in zip(plan.files, responses, strict=True):
                print(f"{file.path.name}: {response.status!r}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: send_folder.py HOST PORT FOLDER")
    asyncio.run(send(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
