"""Exit codes: the table, what is printed of it, and how errors become one."""

from __future__ import annotations

import ssl

import pytest

from aiodicom.cli import COMMANDS, main
from aiodicom.cli.exits import MEANINGS, ExitCode, combined, exit_code_of
from aiodicom.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    DicomNetworkError,
    DimseError,
    InvalidInstance,
    LocalProtocolError,
    NoAcceptedContext,
    OperationTimeout,
    RemoteProtocolError,
)


def test_each_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(ExitCode)
    numbers = [0, 1, 20, 21, 22, 23, 40, 45, 60, 61, 66, 68, 69, 70, 75, 130]
    assert [code.value for code in ExitCode] == numbers


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_explains_them(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*command, "--help"])
    assert raised.value.code == 0
    printed = capsys.readouterr().out
    for code, meaning in MEANINGS.items():
        assert f"{code.value:>5}  {meaning}\n" in printed
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperationTimeout("response", 1), 60),
        (ConnectionFailed("refused"), 60),
        (AssociationRejected(), 61),
        (NoAcceptedContext("1.2", None), 66),
        (InvalidInstance("x"), 22),
        (LocalProtocolError("x"), 1),
        (RemoteProtocolError("x"), 70),
        (AssociationAborted(2), 70),
        (AssociationReleased("x"), 70),
        (DimseError(0xA700), 69),
    ],
)
def test_errors(error: DicomNetworkError, code: int) -> None:
    assert exit_code_of(error) == code


def test_a_failure_of_tls() -> None:
    error = ConnectionFailed("no TLS connection")
    error.__cause__ = ssl.SSLError(1, "handshake failure")
    assert exit_code_of(error) == ExitCode.ABORTED


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 22, 22], 22),
        ([0, 68], 68),
        ([68, 66], 66),
        ([66, 22], 69),
        ([69, 68, 0], 69),
    ],
)
def test_several_at_once(codes: list[int], code: int) -> None:
    assert combined(map(ExitCode, codes)) == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sture"], "argument COMMAND: invalid choice: 'sture'"),
        (["-v", "echo"], "unrecognized arguments: -v"),
        (["--", "echo"], "the command comes first"),
        (["echo"], "the following arguments are required: PEER"),
        (["echo", "host"], "'host' names no port"),
        (["echo", "A@h:1", "more"], "unexpected: more"),
        (["echo", "A@h:1", "--repeat", "0"], "'0' is no number from 1"),
        (["echo", "A@h:1", "--rep", "3"], "unrecognized arguments: --rep"),
        (["echo", "A@h:1", "-aet", "back\\slash"], "is no AE title"),
        (["echo", "A@h:1", "-to", "never"], "'never' is no time in seconds"),
        (["echo", "A@h:1", "-to", "inf"], "'inf' is no time in seconds"),
        (["echo", "A@h:1", "-v", "-q"], "not allowed with argument"),
        (["store", "A@h:1"], "name the files or folders to send"),
        (["find", "A@h:1", "query.dcm", "more"], "unexpected: more"),
        (["find", "A@h:1", "-W", "--output", "uids"], "what is on a worklist has no unique key"),
        (["find", "A@h:1", "--limit", "0"], "'0' is no number from 1"),
        (["get", "A@h:1"], "name what to retrieve: -k StudyInstanceUID=…"),
        (["get", "A@h:1", "-W"], "unrecognized arguments: -W"),
        (["get", "A@h:1", "-k", "StudyInstanceUID=1", "--name", "../{PatientID}"], "must be a relative path"),
        (["serve", "--port", "65536"], "'65536' is no number from 0 to 65535"),
    ],
)
def test_wrong_usage_is_1(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == ExitCode.USAGE
    printed = capsys.readouterr().err
    assert printed.startswith("usage: aiodicom")
    assert f"\nerror: {message}" in printed or message in printed.splitlines()[-1]


def test_no_command_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    assert "aiodicom COMMAND --help says more" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("aiodicom 0.")
