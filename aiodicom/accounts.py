"""What an operation transfers, instance by instance, for whoever keeps an audit trail (PS3.15 §A.5.3.3, §A.5.3.7).

An account names patients: it is for no log. There is one only where an observer asks for it, so that others pay nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

Effect: TypeAlias = Literal["C", "R", "U"]
"""What a transfer did to the receiver: C, it had no such instance; U, the one that it had was replaced; R, it stayed as it
was, or nobody here knows."""


class Subject(NamedTuple):
    """Whose instance it is; "" is what is not known.

    Args:
        study_instance_uid: of which study.
        patient_id: whose.
        patient_name: the same.
    """

    study_instance_uid: str = ""
    patient_id: str = ""
    patient_name: str = ""


class Transfer(NamedTuple):
    """What instances have in common that are counted together.

    Args:
        subject: whose.
        effect: on the receiver.
        succeeded: whether they arrived.
    """

    subject: Subject
    effect: Effect = "R"
    succeeded: bool = True


Counts: TypeAlias = dict[Transfer, Counter[str]]
"""How many instances, by what they have in common, then by SOP class."""


class Account:
    """What one operation transfers.

    A handler of C-STORE that knows better than the command set enters what it has kept::

        if operation.account is not None:
            operation.account.enter(Subject(study, patient_id, patient_name), operation.sop_class_uid, effect="C")

    Args:
        on_begin: told how many instances of whom are about to be sent.

    Attributes:
        subjects: whose instances are to be sent, by SOP Instance UID; whoever finds them enters them.
        counts: what has been transferred.
    """

    __slots__ = ("_on_begin", "counts", "subjects")

    def __init__(self, on_begin: Callable[[Counts], None]) -> None:
        self._on_begin = on_begin
        self.subjects: Mapping[str, Subject] = {}
        self.counts: Counts = {}

    def begin(self, instances: Iterable[tuple[str, str]]) -> None:
        """Say that instances are about to be sent, each a SOP class and an instance by their UIDs."""
        intended: Counts = {}
        for sop_class_uid, sop_instance_uid in instances:
            subject = self.subjects.get(sop_instance_uid, Subject())
            intended.setdefault(Transfer(subject), Counter())[sop_class_uid] += 1
        if intended:
            self._on_begin(intended)

    def enter(
        self, subject: Subject | str, sop_class_uid: str, *, effect: Effect = "R", succeeded: bool = True
    ) -> None:
        """Count an instance that was transferred, or should have been.

        Args:
            subject: whose it is; or its SOP Instance UID, where it is one of `subjects`.
            sop_class_uid: of what kind it is.
            effect: on the receiver.
            succeeded: whether it arrived.
        """
        of = subject if isinstance(subject, Subject) else self.subjects.get(subject, Subject())
        self.counts.setdefault(Transfer(of, effect, succeeded), Counter())[sop_class_uid] += 1
