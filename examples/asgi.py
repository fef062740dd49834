"""A web service that speaks DICOM, in one event loop: `uvicorn asgi:app`. FastAPI takes `routes` and `lifespan`, too.

It has a Storage SCP for as long as it lives, and asks an archive; a study comes out of `/studies/{uid}` while it comes in.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import aiodicom

server = aiodicom.Server("WEB", port=11112)


@server.on_c_store
async def keep(operation: aiodicom.Operation) -> None:
    """Keep what is sent to us."""
    await operation.save("received")


archive = aiodicom.RemoteAE(
    os.environ.get("ARCHIVE_HOST", "127.0.0.1"),
    int(os.environ.get("ARCHIVE_PORT", "4242")),
    ae_title=os.environ.get("ARCHIVE_AE_TITLE", "ANY-SCP"),
    calling_ae_title="WEB",
    listener=server,  # for an archive that has no C-GET: it is to move to us
)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Serve DICOM in the loop of the web server."""
    async with server, archive:
        yield


async def echo(_request: Request) -> Response:
    """Is the archive there?"""
    return JSONResponse({"status": (await archive.echo()).status})


async def patients(request: Request) -> Response:
    """`/patients?name=A*`: who they are."""
    matches = await archive.find(level="patient", PatientName=request.query_params.get("name")).all()
    return JSONResponse([match.to_json_dict() for match in matches], media_type="application/dicom+json")


async def study(request: Request) -> ASGIApp:
    """`/studies/UID`: a study as multipart/related, like that of WADO-RS (PS3.18 §8.6.1.2)."""
    boundary = uuid4().hex
    parts = retrieved(request.path_params["uid"], boundary)
    if await anext(parts, None) is None:  # what goes wrong until the first instance comes has a status of its own
        raise HTTPException(404)
    response = StreamingResponse(parts, media_type=f'multipart/related; type="application/dicom"; boundary={boundary}')

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(parts):  # when the client goes away, the C-GET is cancelled
            await response(scope, receive, send)

    return respond


async def retrieved(uid: str, boundary: str) -> AsyncGenerator[bytes, None]:
    """Yield an empty chunk when the first instance comes, then the parts, each a Part 10 file, as they come."""
    async with archive.retrieve(level="study", StudyInstanceUID=uid) as instances:
        instance = await anext(instances, None)
        if instance is None:
            return
        yield b""
        while instance is not None:
            yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            yield aiodicom.file_meta(instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid)
            async for chunk in instance.stream():  # whoever reads slowly holds the archive back
                yield chunk
            yield b"\r\n"
            instance = await anext(instances, None)
        if instances.progress.failed:
            raise aiodicom.DimseError(0xB000, instances.comment)  # the response is cut: it must not look complete
    yield f"--{boundary}--\r\n".encode()


async def bad_gateway(_request: Request, error: Exception) -> Response:
    """Say what the archive did."""
    return JSONResponse({"error": str(error)}, status_code=502)


routes = [Route("/echo", echo), Route("/patients", patients), Route("/studies/{uid}", study)]
app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={aiodicom.DicomNetworkError: bad_gateway})
