"""PS3.8 Table 9-10, the state transition table of the DICOM upper layer, as data.

Rules that hold for the whole file: every name is the Standard's; a cell that the Standard leaves empty is absent from
`TABLE`, and to ask for it is a mistake of the caller (a local event) or cannot happen (a PDU, a timer); every action is
the list of its effects and the state that follows (Tables 9-6 to 9-9). Nothing here acts: `provider.UpperLayer` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final


class State(IntEnum):
    """PS3.8 Tables 9-1 to 9-5."""

    STA1 = 1  # idle
    STA2 = 2  # transport connection open, awaiting A-ASSOCIATE-RQ
    STA3 = 3  # awaiting local A-ASSOCIATE response primitive
    STA4 = 4  # awaiting transport connection opening to complete
    STA5 = 5  # awaiting A-ASSOCIATE-AC or A-ASSOCIATE-RJ
    STA6 = 6  # association established, ready for data transfer
    STA7 = 7  # awaiting A-RELEASE-RP
    STA8 = 8  # awaiting local A-RELEASE response primitive
    STA9 = 9  # release collision, requestor side: awaiting A-RELEASE response primitive
    STA10 = 10  # release collision, acceptor side: awaiting A-RELEASE-RP
    STA11 = 11  # release collision, requestor side: awaiting A-RELEASE-RP
    STA12 = 12  # release collision, acceptor side: awaiting A-RELEASE response primitive
    STA13 = 13  # awaiting transport connection close indication


class Event(IntEnum):
    """The rows of PS3.8 Table 9-10."""

    EVT1 = 1  # A-ASSOCIATE request (local user)
    EVT2 = 2  # transport connection confirmation (local transport service)
    EVT3 = 3  # A-ASSOCIATE-AC PDU received
    EVT4 = 4  # A-ASSOCIATE-RJ PDU received
    EVT5 = 5  # transport connection indication (local transport service)
    EVT6 = 6  # A-ASSOCIATE-RQ PDU received
    EVT7 = 7  # A-ASSOCIATE response primitive, accept
    EVT8 = 8  # A-ASSOCIATE response primitive, reject
    EVT9 = 9  # P-DATA request primitive
    EVT10 = 10  # P-DATA-TF PDU received
    EVT11 = 11  # A-RELEASE request primitive
    EVT12 = 12  # A-RELEASE-RQ PDU received
    EVT13 = 13  # A-RELEASE-RP PDU received
    EVT14 = 14  # A-RELEASE response primitive
    EVT15 = 15  # A-ABORT request primitive
    EVT16 = 16  # A-ABORT PDU received
    EVT17 = 17  # transport connection closed indication
    EVT18 = 18  # ARTIM timer expired
    EVT19 = 19  # unrecognized or invalid PDU received


class Effect(Enum):
    """What an action does; the PDU that is sent or indicated is the one that belongs to the event."""

    CONNECT = auto()  # issue a TRANSPORT CONNECT request
    SEND = auto()  # send the PDU
    INDICATE = auto()  # issue the PDU to the user, as indication or confirmation
    INDICATE_P_ABORT = auto()  # issue an A-P-ABORT indication
    START_ARTIM = auto()  # start the ARTIM timer, anew if it runs
    STOP_ARTIM = auto()
    CLOSE = auto()  # close the transport connection


@dataclass(frozen=True, slots=True)
class Action:
    """An action of PS3.8 Tables 9-6 to 9-9: what is done, and the state that follows."""

    name: str
    effects: tuple[Effect, ...]
    next_state: State


CONNECT, SEND, INDICATE, P_ABORT, START, STOP, CLOSE = Effect
(STA1, STA2, STA3, STA4, STA5, STA6, STA7, STA8, STA9, STA10, STA11, STA12, STA13) = State

# Table 9-6: association establishment. AE-6 rejects by itself where the upper layer cannot support the request.
AE_1: Final = Action("AE-1", (CONNECT,), STA4)
AE_2: Final = Action("AE-2", (SEND,), STA5)
AE_3: Final = Action("AE-3", (INDICATE,), STA6)
AE_4: Final = Action("AE-4", (INDICATE, CLOSE), STA1)
AE_5: Final = Action("AE-5", (START,), STA2)
AE_6: Final = Action("AE-6", (STOP, INDICATE), STA3)
AE_6_REJECT: Final = Action("AE-6", (SEND, START), STA13)
AE_7: Final = Action("AE-7", (SEND,), STA6)
AE_8: Final = Action("AE-8", (SEND, START), STA13)
# Table 9-7: data transfer.
DT_1: Final = Action("DT-1", (SEND,), STA6)
DT_2: Final = Action("DT-2", (INDICATE,), STA6)
# Table 9-8: association release. AR-8 depends on which end requested the association.
AR_1: Final = Action("AR-1", (SEND,), STA7)
AR_2: Final = Action("AR-2", (INDICATE,), STA8)
AR_3: Final = Action("AR-3", (INDICATE, CLOSE), STA1)
AR_4: Final = Action("AR-4", (SEND, START), STA13)
AR_5: Final = Action("AR-5", (STOP,), STA1)
AR_6: Final = Action("AR-6", (INDICATE,), STA7)
AR_7: Final = Action("AR-7", (SEND,), STA8)
AR_8: Final = Action("AR-8", (INDICATE,), STA9)
AR_8_ACCEPTOR: Final = Action("AR-8", (INDICATE,), STA10)
AR_9: Final = Action("AR-9", (SEND,), STA11)
AR_10: Final = Action("AR-10", (INDICATE,), STA12)
# Table 9-9: association abort.
AA_1: Final = Action("AA-1", (SEND, START), STA13)
AA_2: Final = Action("AA-2", (STOP, CLOSE), STA1)
AA_3: Final = Action("AA-3", (INDICATE, CLOSE), STA1)
AA_4: Final = Action("AA-4", (P_ABORT,), STA1)
AA_5: Final = Action("AA-5", (STOP,), STA1)
AA_6: Final = Action("AA-6", (), STA13)
AA_7: Final = Action("AA-7", (SEND,), STA13)
AA_8: Final = Action("AA-8", (SEND, P_ABORT, START), STA13)

____ = None
# fmt: off
_ROWS: Final[Mapping[Event, tuple[Action | None, ...]]] = {
    #             Sta1  Sta2  Sta3  Sta4  Sta5  Sta6  Sta7  Sta8  Sta9  Sta10  Sta11 Sta12 Sta13
    Event.EVT1:  (AE_1, ____, ____, ____, ____, ____, ____, ____, ____, ____,  ____, ____, ____),
    Event.EVT2:  (____, ____, ____, AE_2, ____, ____, ____, ____, ____, ____,  ____, ____, ____),
    Event.EVT3:  (____, AA_1, AA_8, ____, AE_3, AA_8, AA_8, AA_8, AA_8, AA_8,  AA_8, AA_8, AA_6),
    Event.EVT4:  (____, AA_1, AA_8, ____, AE_4, AA_8, AA_8, AA_8, AA_8, AA_8,  AA_8, AA_8, AA_6),
    Event.EVT5:  (AE_5, ____, ____, ____, ____, ____, ____, ____, ____, ____,  ____, ____, ____),
    Event.EVT6:  (____, AE_6, AA_8, ____, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8,  AA_8, AA_8, AA_7),
    Event.EVT7:  (____, ____, AE_7, ____, ____, ____, ____, ____, ____, ____,  ____, ____, ____),
    Event.EVT8:  (____, ____, AE_8, ____, ____, ____, ____, ____, ____, ____,  ____, ____, ____),
    Event.EVT9:  (____, ____, ____, ____, ____, DT_1, ____, AR_7, ____, ____,  ____, ____, ____),
    Event.EVT10: (____, AA_1, AA_8, ____, AA_8, DT_2, AR_6, AA_8, AA_8, AA_8,  AA_8, AA_8, AA_6),
    Event.EVT11: (____, ____, ____, ____, ____, AR_1, ____, ____, ____, ____,  ____, ____, ____),
    Event.EVT12: (____, AA_1, AA_8, ____, AA_8, AR_2, AR_8, AA_8, AA_8, AA_8,  AA_8, AA_8, AA_6),
    Event.EVT13: (____, AA_1, AA_8, ____, AA_8, AA_8, AR_3, AA_8, AA_8, AR_10, AR_3, AA_8, AA_6),
    Event.EVT14: (____, ____, ____, ____, ____, ____, ____, AR_4, AR_9, ____,  ____, AR_4, ____),
    Event.EVT15: (____, ____, AA_1, AA_2, AA_1, AA_1, AA_1, AA_1, AA_1, AA_1,  AA_1, AA_1, ____),
    Event.EVT16: (____, AA_2, AA_3, ____, AA_3, AA_3, AA_3, AA_3, AA_3, AA_3,  AA_3, AA_3, AA_2),
    Event.EVT17: (____, AA_5, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4, AA_4,  AA_4, AA_4, AR_5),
    Event.EVT18: (____, AA_2, ____, ____, ____, ____, ____, ____, ____, ____,  ____, ____, AA_2),
    Event.EVT19: (____, AA_1, AA_8, ____, AA_8, AA_8, AA_8, AA_8, AA_8, AA_8,  AA_8, AA_8, AA_7),
}
# fmt: on

TABLE: Final[Mapping[tuple[State, Event], Action]] = {
    (state, event): action
    for event, row in _ROWS.items()
    for state, action in zip(State, row, strict=True)
    if action is not None
}
"""PS3.8 Table 9-10: what to do when `event` comes in `state`."""
