# SPDX-License-Identifier: GPL-2.0-or-later
"""What a format-patch file says in words: its changelog, and the notes below the ``---``. Pure."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass

_TRAILER = re.compile(r"^(?:[A-Z][A-Za-z]*(?:-[A-Za-z]+)*-by|Link|Closes|Fixes|Cc): \S", re.ASCII)
_UNDERLINE = re.compile(r"^\s*([-=~])\1{2,}\s*$")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
# A sentence of a changelog may well begin with the name of a function.
_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!cf\.)(?<!etc\.)\s+")


@dataclass(frozen=True, slots=True)
class PatchText:
    """One patch. ``changelog`` is the body without trailers; ``notes`` go with no commit."""

    name: str
    changelog: str
    notes: str
    data: bytes  # the whole file


def read(name: str, data: bytes) -> PatchText:
    """Take a format-patch file apart. Text that cannot be decoded is replaced, never refused."""
    body = _body(data)
    head = re.split(r"^diff --git ", body, maxsplit=1, flags=re.MULTILINE)[0]
    changelog, _, notes = head.partition("\n---\n")
    kept = [line for line in changelog.splitlines() if not _TRAILER.match(line)]
    return PatchText(name, "\n".join(kept).strip(), notes, data)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line; a blank line and a bullet end one too."""
    found: list[str] = []
    for part in _parts(text):
        found += _SENTENCE.split(" ".join(part.split()))
    return [sentence for sentence in found if sentence]


def _parts(text: str) -> list[str]:
    parts = [""]
    for line in text.splitlines():
        if _UNDERLINE.match(line) or not line.strip() or _BULLET.match(line):
            parts.append("")
        if _UNDERLINE.match(line):
            continue
        parts[-1] += f"{_BULLET.sub('', line)}\n"
    return parts


def _body(data: bytes) -> str:
    message = email.message_from_bytes(data, policy=email.policy.default)
    payload = message.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else data
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")
