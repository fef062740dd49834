"""User identities on the command line: DCMTK's options, and secrets from files and variables (PS3.7 §D.3.3.7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from aiodicom.cli import echo, find, get, move, store
from aiodicom.server import Server
from aiodicom.terms import Peer
from aiodicom.upper_layer.items import UserIdentity
from tests.canaries import PASSCODE, TOKEN
from tests.cli.running import once, run, serving, write_files
from tests.peers.process import Finished


@pytest.fixture(autouse=True)
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and a variable with secrets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", PASSCODE)
    monkeypatch.setenv("NOTHING", "")
    for name, content in {
        "passcode": PASSCODE.encode(),
        "passcode-and-newline": f"{PASSCODE}\r\n".encode(),
        "binary": b"\n\xff\0 \n",
        "token": f"  {TOKEN}\n".encode(),
        "large": b"x" * 65_536,
    }.items():
        (tmp_path / name).write_bytes(content)


ADA = UserIdentity.of_user("ada", PASSCODE)


@pytest.mark.parametrize(
    ("words", "identity"),
    [
        ("", None),
        ("-usr ada", UserIdentity.of_user("ada")),
        ("--user ada", UserIdentity.of_user("ada")),
        (f"-usr ada -pwd {PASSCODE}", ADA),
        (f"--user ada --password {PASSCODE}", ADA),
        ("-usr ada -epw", UserIdentity.of_user("ada", "")),
        ("-usr ada --empty-password -rsp", UserIdentity.of_user("ada", "", confirm=True)),
        ("-usr ada --password-file passcode", ADA),
        ("-usr ada --password-file passcode-and-newline", ADA),
        ("-usr ada --password-file binary", UserIdentity.of_user("ada", b"\n\xff\0 ")),
        ("-usr ada --password-env SECRET", ADA),
        ("-kt binary", UserIdentity.of_kerberos(b"\n\xff\0 \n")),
        ("--kerberos binary --pos-response", UserIdentity.of_kerberos(b"\n\xff\0 \n", confirm=True)),
        ("--saml binary", UserIdentity.of_saml(b"\n\xff\0 \n")),
        ("--jwt token", UserIdentity.of_jwt(TOKEN)),
        ("--jwt-env SECRET -rsp", UserIdentity.of_jwt(PASSCODE, confirm=True)),
    ],
)
def test_every_command_takes_them(words: str, identity: UserIdentity | None) -> None:
    for parse, more in (
        (echo.parse, []),
        (store.parse, ["passcode"]),
        (find.parse, ["-k", "PatientID=1"]),
        (get.parse, ["-k", "PatientID=1"]),
        (move.parse, ["--to", "WS", "-k", "PatientID=1"]),
    ):
        options = parse(["AE@localhost:104", *words.split(), *more])
        assert options.identity == identity
        assert PASSCODE not in repr(options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-pwd secret", "a passcode belongs to a user: say who by --user NAME"),
        ("-epw", "a passcode belongs to a user"),
        ("--jwt token --password-file passcode", "a passcode belongs to a user"),
        ("-rsp", "-rsp, --pos-response belongs to a user identity"),
        ("-usr ada --jwt token", "argument --jwt: not allowed with argument -usr/--user"),
        ("-usr ada -epw -pwd secret", "not allowed with argument"),
        ("-usr ada --password-file none", "none: No such file or directory"),
        ("--jwt large", "large: is no identity: it has 65,536 bytes, and 65,535 can be said"),
        ("--jwt-env NONE", "there is no variable NONE in the environment, or nothing in it"),
        ("-usr ada --password-env NOTHING", "there is no variable NOTHING in the environment, or nothing in it"),
    ],
)
def test_what_does_not_fit(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        echo.parse(["AE@localhost:104", *words.split()])
    assert raised.value.code == 1
    errors = capsys.readouterr().err
    assert re.search(f"error: .*{re.escape(message)}", errors), errors
    assert "secret" not in errors


def guard(server: Server) -> None:
    """Let in who has the passcode."""

    @server.on_user_identity(allow_plain_passcode=True)
    async def verify(identity: UserIdentity, _peer: Peer) -> bool:
        return identity.has_passcode(PASSCODE)


@once
async def test_who_has_the_passcode_is_let_in(tmp_path: Path) -> None:
    async def keep(_operation: object) -> None:
        pass

    async with serving(keep) as server:
        guard(server)
        where = f"SCP@127.0.0.1:{server.port}"
        files = write_files(tmp_path / "files", 2)

        async def said(command: str, *words: str | Path) -> Finished:
            return await run(command, where, *words, "--allow-plain-passcode", "-d")

        right = ("-usr", "ada", "--password-env", "SECRET", "-rsp")
        good: Sequence[Finished] = [await said("echo", *right), await said("store", *right, *files)]
        wrong = await said("echo", "-usr", "ada", "-epw")
        none = await said("echo")
        plain = await run("echo", where, *right)
    assert [each.exit_code for each in good] == [0, 0], good
    assert (wrong.exit_code, none.exit_code) == (61, 61)
    assert plain.exit_code == 1
    assert plain.errors.startswith("error: the passcode would go over the network as it is")
    for each in (*good, wrong, none, plain):
        assert PASSCODE not in each.output + each.errors


@once
async def test_a_peer_that_does_not_look_is_told_of() -> None:
    async with serving() as server:
        done = await run("echo", f"SCP@127.0.0.1:{server.port}", "-usr", "ada", "-rsp")
        silent = await run("echo", f"SCP@127.0.0.1:{server.port}", "-usr", "ada")
    assert (done.exit_code, silent.exit_code, silent.errors) == (0, 0, "")
    assert "did not confirm our user identity: it may not have looked at it" in done.errors
