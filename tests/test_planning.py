"""Presentation contexts planned from files: PS3.8 §9.3.2.2, PS3.5 §10.1."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiodicom import (
    InstanceFile,
    InvalidInstance,
    LocalProtocolError,
    ProposedContext,
    contexts_for,
    contexts_to_retrieve,
    default_contexts,
    find_files,
    plan_associations,
)
from aiodicom.part10 import file_meta
from aiodicom.uids import (
    COMPOSITE_INSTANCE_ROOT_GET,
    COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    VERIFICATION,
)
from aiodicom.upper_layer.presentation import propose
from tests.loopback import CT, MR, data_set, instance_uid

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"


def an_instance(number: int, sop_class: str = CT, syntax: str = IMPLICIT_VR_LITTLE_ENDIAN) -> InstanceFile:
    return InstanceFile(Path(f"{number}.dcm"), sop_class, instance_uid(number), syntax, 0, 0)


def write_instance(path: Path, number: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_meta(CT, instance_uid(number), IMPLICIT_VR_LITTLE_ENDIAN) + data_set(number))
    return path


def test_by_default_verification_query_and_worklist_are_proposed() -> None:
    proposed = [context.abstract_syntax for context in default_contexts()]
    assert proposed[0] == VERIFICATION
    assert {STUDY_ROOT_FIND, MODALITY_WORKLIST_FIND} <= set(proposed)
    assert len(proposed) == len(set(proposed))


def test_each_transfer_syntax_has_a_context_of_its_own_and_the_fallbacks_one_more() -> None:
    (plan,) = plan_associations([an_instance(1, syntax=JPEG_LOSSLESS), an_instance(2, syntax=EXPLICIT_VR_BIG_ENDIAN)])
    assert plan.contexts == (
        ProposedContext(VERIFICATION),
        ProposedContext(CT, (JPEG_LOSSLESS,)),
        ProposedContext(CT, (EXPLICIT_VR_BIG_ENDIAN,)),
        ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),
    )


def test_a_fallback_that_the_files_have_is_not_proposed_twice() -> None:
    (plan,) = plan_associations([an_instance(1), an_instance(2, syntax=EXPLICIT_VR_LITTLE_ENDIAN)])
    assert plan.contexts == (
        ProposedContext(VERIFICATION),
        ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    )


def test_files_go_in_the_order_they_were_given() -> None:
    files = [an_instance(1), an_instance(2, MR), an_instance(3), an_instance(4, MR, JPEG_LOSSLESS), an_instance(5)]
    (plan,) = plan_associations(files)
    assert list(plan.files) == files


def test_what_needs_more_than_128_contexts_is_shared_out() -> None:
    files = [an_instance(number, f"1.2.3.{number}", JPEG_LOSSLESS) for number in range(100)]
    plans = plan_associations(files)
    assert [len(plan.contexts) for plan in plans] == [127, 75]
    assert [file for plan in plans for file in plan.files] == files
    for plan in plans:
        assert plan.contexts[0] == ProposedContext(VERIFICATION)
        proposed = {(context.abstract_syntax, uid) for context in plan.contexts for uid in context.transfer_syntaxes}
        assert {(file.sop_class_uid, file.transfer_syntax_uid) for file in plan.files} <= proposed


def test_nothing_to_send_needs_no_association() -> None:
    assert plan_associations([]) == ()
    assert contexts_for([]) == default_contexts()


def test_contexts_for_reads_the_files(tmp_path: Path) -> None:
    assert contexts_for([write_instance(tmp_path / "a.dcm"), str(write_instance(tmp_path / "b.dcm", 2))]) == (
        ProposedContext(VERIFICATION),
        ProposedContext(CT, (IMPLICIT_VR_LITTLE_ENDIAN,)),
        ProposedContext(CT, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    )


def test_contexts_for_says_what_to_do_with_too_many(tmp_path: Path) -> None:
    paths = []
    for number in range(70):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(file_meta(f"1.2.3.{number}", instance_uid(number), JPEG_LOSSLESS) + EXPLICIT_ELEMENT)
        paths.append(path)
    with pytest.raises(LocalProtocolError, match=r"128 .*plan_associations"):
        contexts_for(paths)


EXPLICIT_ELEMENT = b"\x08\x00\x18\x00UI\x04\x001.2\0"


def test_contexts_for_names_the_file_that_is_none(tmp_path: Path) -> None:
    bad = tmp_path / "letter.txt"
    bad.write_text("Dear colleague")
    with pytest.raises(InvalidInstance, match=r"letter\.txt"):
        contexts_for([bad])


def test_folders_are_searched_and_what_cannot_be_sent_is_reported_by_name(tmp_path: Path) -> None:
    good = [write_instance(tmp_path / "b" / "1.dcm", 1), write_instance(tmp_path / "b" / "c" / "2", 2)]
    write_instance(tmp_path / "b" / ".hidden.dcm")
    (tmp_path / "b" / "DICOMDIR").write_bytes(b"a directory")
    (tmp_path / "b" / "notes.txt").write_text("nothing")
    whole = write_instance(tmp_path / "b" / "z.dcm", 3)
    whole.write_bytes(whole.read_bytes()[:-10])
    found, broken = find_files([tmp_path / "b", tmp_path / "missing.dcm"])
    assert sorted(file.path for file in found) == sorted(good)
    assert [Path(str(error).split(": ")[0]).name for error in broken] == ["notes.txt", "z.dcm", "missing.dcm"]
    assert "truncated" in str(broken[1])


def test_a_hidden_file_that_is_named_is_taken(tmp_path: Path) -> None:
    found, broken = find_files([write_instance(tmp_path / ".hidden.dcm")])
    assert (len(found), broken) == (1, [])


# For C-GET.


def test_a_retrieval_proposes_the_models_and_storage_in_the_role_of_scp() -> None:
    contexts = contexts_to_retrieve()
    services, storage = contexts[:7], contexts[7:]
    assert services[0] == ProposedContext(VERIFICATION)
    assert {STUDY_ROOT_FIND, STUDY_ROOT_GET} <= {context.abstract_syntax for context in services}
    assert not any(context.scp_role for context in services)
    assert all(context.scp_role and context.scu_role for context in storage)
    items, roles = propose(contexts)
    assert len(items) == 128  # all the room there is
    assert {role.sop_class_uid for role in roles} == {context.abstract_syntax for context in storage}


def test_a_retrieval_proposes_every_class_uncompressed_and_no_pair_twice() -> None:
    storage = contexts_to_retrieve()[7:]
    uncompressed = [context.abstract_syntax for context in storage if len(context.transfer_syntaxes) > 1]
    assert {context.abstract_syntax for context in storage} == set(uncompressed)
    assert {CT, MR, "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.9.1.1"} <= set(uncompressed)
    assert all(context.transfer_syntaxes[1:] in ((), (IMPLICIT_VR_LITTLE_ENDIAN,)) for context in storage)
    assert len(set(storage)) == len(storage)


def test_the_fewer_classes_are_to_come_the_more_transfer_syntaxes_are_proposed() -> None:
    def proposed(*sop_classes: str) -> int:
        return sum(context.abstract_syntax == CT for context in contexts_to_retrieve(sop_classes, models=["study"]))

    assert proposed(CT) == proposed(CT, MR) == 13
    assert 2 < proposed(CT, *(f"1.2.3.{number}" for number in range(30))) < 13
    assert proposed(CT, *(f"1.2.3.{number}" for number in range(124))) == 1


def test_more_classes_than_contexts_are_too_many_to_retrieve() -> None:
    named = [f"1.2.3.{number}" for number in range(126)]
    assert len(contexts_to_retrieve(named[:125], models=["study"])) == 128
    with pytest.raises(LocalProtocolError, match="in several"):
        contexts_to_retrieve(named, models=["study"])


def test_the_models_of_a_retrieval_are_named() -> None:
    contexts = contexts_to_retrieve([CT], models=["composite", STUDY_ROOT_GET, "no-bulk-data"])
    assert [context.abstract_syntax for context in contexts[:5]] == [
        VERIFICATION,
        COMPOSITE_INSTANCE_ROOT_GET,
        STUDY_ROOT_GET,
        STUDY_ROOT_FIND,
        COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
    ]
    with pytest.raises(LocalProtocolError, match="no information model"):
        contexts_to_retrieve([CT], models=["studies"])
