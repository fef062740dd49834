"""A router: every instance goes to two destinations while it is still arriving; the slower of them sets the pace."""

import asyncio
from collections.abc import AsyncIterable, Iterable
from contextlib import ExitStack, suppress

from anyio import BrokenResourceError, create_memory_object_stream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

import aiodicom

DESTINATIONS = (
    aiodicom.Node("archive", "ARCHIVE", "127.0.0.1", 4242),
    aiodicom.Node("workstation", "WORKSTATION", "127.0.0.1", 4243),
)
OUT_OF_RESOURCES = aiodicom.Status(0xA700)  # PS3.4 §B.2.3: try again later

server = aiodicom.Server("ROUTER", port=11112)


@server.on_c_store
async def forward(operation: aiodicom.Operation) -> aiodicom.Conclusion:
    """Send an instance to each destination; it is a success where all of them have taken it."""
    pipes = [create_memory_object_stream[bytes](1) for _ in DESTINATIONS]
    with ExitStack() as stack:
        for branch, chunks in pipes:
            stack.enter_context(branch)
            stack.enter_context(chunks)
        async with asyncio.TaskGroup() as tasks:  # where the sender is lost, what was begun is aborted, not cut short
            sendings = [
                tasks.create_task(send(operation, node, chunks))
                for node, (_, chunks) in zip(DESTINATIONS, pipes, strict=True)
            ]
            await share(operation.stream(), [branch for branch, _ in pipes])
    conclusions = [sending.result() for sending in sendings]
    failures = [each for each in conclusions if aiodicom.Status(each.status).category is aiodicom.Category.FAILURE]
    return [*failures, *conclusions][0]


async def share(stream: AsyncIterable[bytes], branches: Iterable[MemoryObjectSendStream[bytes]]) -> None:
    """Hand on each chunk to every branch that is still open; a branch that is full lets the sender wait, by TCP."""
    async for chunk in stream:
        for branch in branches:
            with suppress(BrokenResourceError):  # that destination has failed: the others go on
                await branch.send(chunk)
    for branch in branches:
        branch.close()


async def send(
    operation: aiodicom.Operation, node: aiodicom.Node, chunks: MemoryObjectReceiveStream[bytes]
) -> aiodicom.Conclusion:
    """Send an instance to one destination as its chunks come; return how that went."""
    instance = aiodicom.EncodedInstance(
        operation.sop_class_uid, operation.sop_instance_uid, operation.transfer_syntax_uid, chunks
    )
    (plan,) = aiodicom.plan_associations([instance])
    with chunks:  # once it is left, for whatever reason, the others go on without it
        try:
            async with aiodicom.associate(
                node.host, node.port, called_ae_title=node.ae_title, calling_ae_title="ROUTER", contexts=plan.contexts
            ) as association:
                response = await association.c_store(instance)
        except aiodicom.DicomNetworkError as error:
            print(f"{node}: {error}", flush=True)
            return aiodicom.Conclusion(OUT_OF_RESOURCES, f"{node.ae_title}: {type(error).__name__}")
    return aiodicom.Conclusion(response.status, f"{node.ae_title}: {response.status.description}")


if __name__ == "__main__":
    server.run()
