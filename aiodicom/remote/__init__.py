"""A known peer: its pool of associations, what is sent to it over several of them, and what is retrieved from it."""

from aiodicom.remote.ae import RemoteAE
from aiodicom.remote.delivery import Delivery
from aiodicom.remote.parcels import Outcome
from aiodicom.remote.retrieval import Retrieval

__all__ = ["Delivery", "Outcome", "RemoteAE", "Retrieval"]
