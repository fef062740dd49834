"""A Storage SCP: keeps every instance it receives as a Part 10 file."""

import aiodicom

server = aiodicom.Server("ARCHIVE", port=11112)


@server.on_c_store
async def keep(operation: aiodicom.Operation) -> None:
    """Keep an instance."""
    path = await operation.save("received")  # streams to disk; returning means Success
    print(f"{operation.peer} stored {path}", flush=True)


if __name__ == "__main__":
    server.run()
