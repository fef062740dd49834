"""Runs cases: the quick ones one after the other, the slow ones side by side, with another peer beside all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from aiodicom.conformance import messages
from aiodicom.conformance.case import Case, Differs, NotApplicable, Result, Verdict
from aiodicom.conformance.needs import missing
from aiodicom.conformance.peer import association
from aiodicom.conformance.probe import SUCCESS, Probe
from aiodicom.conformance.target import Counts, Target
from aiodicom.errors import RemoteProtocolError
from aiodicom.terms import announced_length
from aiodicom.upper_layer.items import ContextResult
from aiodicom.upper_layer.pdu import AAssociateAC

_PAUSE: Final = 0.01  # seconds between two looks at what is left
_LOOKS: Final = 10  # that must see the same
_MIB: Final = 1 << 20


class Unusable(Exception):
    """There is no acceptor that the suite could ask anything; the message says why."""


async def run(
    target: Target, cases: Sequence[Case], *, tell: Callable[[Result], None] = lambda _: None
) -> list[Result]:
    """Run cases against an acceptor.

    Args:
        target: the acceptor.
        cases: which, in which order; those that are slow run together at the end, and those after which it is gone last.
        tell: called with each result as soon as it is known.

    Returns:
        What each came to.

    Raises:
        Unusable: it cannot be reached, or accepts no association.
    """
    patience = target.patience if target.patience_beside is None else target.patience_beside
    beside = await survey(replace(target, patience=patience))
    target = replace(beside, patience=target.patience)
    results: list[Result] = []
    try:
        async with Probe(beside) as probe:
            await _warm_up(beside)
            before = await _settled(target.counts) if target.counts else {}
            for group in _groups(cases):
                done, before = await _run_group(target, group, probe, before)
                results += done
                for result in done:
                    tell(result)
    except (Differs, OSError, TimeoutError) as error:
        raise Unusable(f"it accepts no association any more: {error}") from error
    return results


async def survey(target: Target) -> Target:
    """Find out what an acceptor takes.

    Raises:
        Unusable: it cannot be reached, or accepts no association.
    """
    try:
        async with association(target) as peer:
            answer = AAssociateAC.decode(memoryview(peer.answer)[6:])
    except (Differs, OSError, TimeoutError, RemoteProtocolError) as error:
        raise Unusable(f"{target.host}:{target.port} accepts no association: {error or 'no answer'}") from error
    accepted = frozenset(
        context.context_id for context in answer.presentation_contexts if context.result == ContextResult.ACCEPTANCE
    )
    return replace(target, accepted=accepted, maximum_length=announced_length(answer.user_information))


def _groups(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """Yield the cases that run together; what is to be measured runs by itself."""
    together = [case for case in cases if case.is_slow and case.memory is None]
    alone = [case for case in cases if case not in together]
    yield from ([case] for case in alone if not case.is_last)
    if together:
        yield together
    yield from ([case] for case in alone if case.is_last)


async def _warm_up(target: Target) -> None:
    """Let it open what it keeps open once it has been asked."""
    if target.counts is None:
        return
    instance = messages.new_instance()
    async with association(target) as peer:
        if messages.STORE in target.accepted:
            await peer.say(messages.store(1, instance.uid, instance.data_set()))
            await peer.message()
        if messages.FIND in target.accepted:
            await peer.say(messages.find(2, messages.identifier((0x0020, 0x000D, messages.text(instance.study)))))
            await peer.final()
        await peer.say(messages.RELEASE_RQ)
        await peer.heard()


async def _settled(counts: Callable[[], Counts]) -> Counts:
    """Return what an acceptor holds, once it has let go of what has just ended."""
    seen, looks = counts(), 0
    while looks < _LOOKS:
        await asyncio.sleep(_PAUSE)
        now = counts()
        looks = looks + 1 if now == seen else 0
        seen = now
    return seen


async def _run_group(target: Target, group: list[Case], probe: Probe, before: Counts) -> tuple[list[Result], Counts]:
    """Return what each case of a group came to, and what the acceptor holds after them: a leak is told of once."""
    applicable = [case for case in group if not missing(target, case.needs)]
    results = {
        case.id: Result(case, Verdict.NOT_APPLICABLE, got=missing(target, case.needs))
        for case in group
        if case not in applicable
    }
    if applicable:
        async with probe.watching(is_last=any(case.is_last for case in applicable)):
            done = await asyncio.gather(*(_run_case(target, case) for case in applicable))
        for result in done:
            results[result.case.id] = replace(_beside(result, probe), probe=probe.worst)
        if not group[0].is_last:
            left, before = await _left(target, before)
            for result in done if left else ():
                results[result.case.id] = _worse(results[result.case.id], "nothing left behind", left)
    return [results[case.id] for case in group], before


async def _run_case(target: Target, case: Case) -> Result:
    memory = target.memory() if target.memory and case.memory is not None else None
    try:
        await case.run(target)
        if memory is not None and target.memory and case.memory is not None:
            grown = target.memory() - memory
            if grown > case.memory:
                raise Differs(f"at most {case.memory / _MIB:g} MiB of memory", f"{grown / _MIB:.1f} MiB")
    except Differs as difference:
        return Result(case, Verdict.DIFFERS, difference.expected, difference.got)
    except NotApplicable as why:
        return Result(case, Verdict.NOT_APPLICABLE, got=str(why))
    except TimeoutError:
        return Result(case, Verdict.DIFFERS, "an answer", f"none in {target.patience:g} s")
    except OSError as error:
        return Result(case, Verdict.DIFFERS, "a connection", f"{type(error).__name__}: {error}")
    return Result(case, Verdict.PASS)


def _beside(result: Result, probe: Probe) -> Result:
    return _worse(result, f"{SUCCESS} for another peer", probe.failure) if probe.failure else result


def _worse(result: Result, expected: str, got: str) -> Result:
    """Return a result that was good so far as one that is not."""
    if result.verdict is Verdict.DIFFERS:
        return result
    return replace(result, verdict=Verdict.DIFFERS, expected=expected, got=got)


async def _left(target: Target, before: Counts) -> tuple[str, Counts]:
    """Return what an acceptor holds beyond what it held before and does not let go of, in words; and what it holds now."""
    if target.counts is None:
        return "", before
    loop = asyncio.get_running_loop()
    deadline = loop.time() + target.patience
    while True:
        now = target.counts()
        left = {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}
        if not left:
            return "", before
        if loop.time() > deadline:
            return ", ".join(f"{count} {name}" for name, count in left.items()), now
        await asyncio.sleep(_PAUSE)
