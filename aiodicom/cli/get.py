"""`aiodicom get`: instances from a peer into a folder, over the association that asks for them (C-GET, PS3.4 §C.4.3)."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from aiodicom.cli import keeping, peer, wanted
from aiodicom.cli.advice import Facts
from aiodicom.cli.console import complain
from aiodicom.cli.exits import ExitCode
from aiodicom.cli.keeping import Keeper, add_keeping
from aiodicom.cli.options import Command, Parser, add_association_options, add_verbosity, remote_ae, start_logging
from aiodicom.cli.queries import add_query_options, parse_with_query, query_options_of
from aiodicom.cli.retrieving import Retrieving, perform
from aiodicom.cli.wanted import wanted_of
from aiodicom.client import DEFAULT_TIMEOUTS
