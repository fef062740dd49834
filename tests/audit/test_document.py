"""The page about logs and audit: it is up to date, and what it shows works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from aiodicom.logs import FIELDS
from aiodicom.nodes import read_audit
from tests.certificates import Certificates

PAGE = Path(__file__).parent.parent.parent / "examples" / "audit.md"


def test_every_field_is_in_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "".join(f"| `{name}` | {words} |\n" for name, words in FIELDS.items()) in text


def test_the_configuration_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "aiodicom.toml"
    file.write_text(text)
    certificates = Certificates(tmp_path)
    certificates.issue("pacs")
    certificates.authority().rename(tmp_path / "authority.pem")
    audit = read_audit(file)
    assert audit.keys() == tomllib.loads(text)["audit"].keys()
    audit["tls"].client_context()


def test_the_programs_compile() -> None:
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        compile(program, str(PAGE), "exec")
