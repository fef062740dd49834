"""A JSON Web Token lets in (PS3.7 §D.3.3.7): signed by an issuer whom we trust, for us, for that AE title, not expired.

Send with one: aiodicom store ARCHIVE@localhost:11112 --jwt token.jwt FILES, or storescu --jwt token.jwt …
"""

import asyncio
import os
from pathlib import Path

import jwt

import aiodicom

ISSUER = "https://login.hospital.example"
server = aiodicom.Server("ARCHIVE", port=11112)


def issuers_key() -> str:
    """Read the public key of the issuer, in PEM; each time, so that it may change."""
    return Path(os.environ.get("ISSUER_KEY", "issuer.pem")).read_text()


@server.on_user_identity()  # whoever gives no identity is rejected, too
async def verify(identity: aiodicom.UserIdentity, peer: aiodicom.Peer) -> bool:
    """Say whether the token is right; what is raised here is a no, as well."""
    if identity.identity_type != aiodicom.IdentityType.JWT:
        return False
    claims = jwt.decode(
        identity.primary_field,
        await asyncio.to_thread(issuers_key),
        algorithms=["ES256"],  # none that the token may choose
        issuer=ISSUER,
        audience=server.ae_title,
        options={"require": ["exp"]},
    )
    return bool(claims.get("ae_title") == peer.calling_ae_title)


@server.on_c_store
async def keep(operation: aiodicom.Operation) -> None:
    """Keep what a peer sends that was let in."""
    await operation.save("received")


if __name__ == "__main__":
    server.run()
