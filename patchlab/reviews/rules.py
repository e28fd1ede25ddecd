# SPDX-License-Identifier: GPL-2.0-or-later
"""Static rules: what can be said of a revision from its patches and the source. Pure.

A ledger names a rule, or ``name:argument``. A rule says only what its sentence says: that a
changelog argues a point is no proof that it argues well, so what was found is shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from patchlab.errors import LabError
from patchlab.review import Ruling
from patchlab.reviews.patchtext import PatchText, sentences

_SHOWN = 20  # messages; the rest are counted
_WIDEST = 400  # characters of one message


class CannotTell(LabError):
    """A tool of a rule did not run: the rule is undecided, and ``hint`` is the remedy."""

    exit_code = 69


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a revision as a whole did to one file; "" where there is none."""

    path: str
    before: str
    after: str


class Tools(Protocol):
    """The kernel's own scripts. Both raise CannotTell."""

    def checkpatch(self, patch: bytes) -> str:
        """What ``checkpatch.pl --strict --terse --show-types`` prints of one patch."""
        ...

    def kernel_doc(self, path: str) -> tuple[str, str]:
        """What ``kernel-doc -none`` prints of a file, before and after the revision."""
        ...


@dataclass(frozen=True, slots=True)
class Material:
    patches: tuple[PatchText, ...]
    changes: tuple[FileChange, ...]
    tools: Tools


@dataclass(frozen=True, slots=True)
class Decision:
    ruling: Ruling
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    sentence: str
    decide: Callable[[Material, str], Decision]
    argument: str = ""  # what the argument is; "" takes none


def decide(text: str, material: Material) -> Decision:
    """What the rule ``name`` or ``name:argument`` says. KeyError for a name not in RULES."""
    name, _, argument = text.partition(":")
    try:
        return RULES[name].decide(material, argument)
    except CannotTell as error:
        return Decision(Ruling.UNDECIDED, str(error), error.hint)


def _judge(faults: Sequence[str], held: str) -> Decision:
    if not faults:
        return Decision(Ruling.HOLDS, held)
    shown = [fault if len(fault) <= _WIDEST else f"{fault[:_WIDEST]}…" for fault in faults[:_SHOWN]]
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    return Decision(Ruling.BROKEN, "\n".join([*shown, *more]))


# ---------------------------------------------------------------- checkpatch

_MESSAGE = re.compile(r"^(?P<where>.*?): (?P<said>(?:ERROR|WARNING|CHECK):(?P<type>\w+): .*)$")
# In the notes of a patch: a type of message, and why it stands.
_EXCUSE = re.compile(r"^\s*checkpatch: (?P<type>[A-Z0-9_]+): (?P<reason>\S.*)$", re.MULTILINE)


def _checkpatch(material: Material, _: str) -> Decision:
    faults: list[str] = []
    stated: list[str] = []
    for patch in material.patches:
        reasons = {match["type"]: match["reason"] for match in _EXCUSE.finditer(patch.notes)}
        said = material.tools.checkpatch(patch.data).splitlines()
        messages = [match for line in said if (match := _MESSAGE.match(line))]
        for message in messages:
            if message["type"] not in reasons:
                where = message["where"].removeprefix("-:")
                faults.append(f"{patch.name}: {where}: {message['said']}")
        seen = {message["type"] for message in messages}
        stated += [
            f"{patch.name}: {kind}{'' if kind in seen else ' (did not come up)'}: {reason}"
            for kind, reason in reasons.items()
        ]
    held = f"{_count(len(material.patches), 'patch', 'patches')}, no message without a reason"
    return _judge(faults, "\n".join([held, *stated]))


# ---------------------------------------------------------------- kernel-doc

_WARNING = re.compile(r"^(?P<file>[^:]+):\d+: (?:warning|error): (?P<text>.*)$")
# As scripts/kernel-doc takes them: a member or DOC in a comment of its own, or name - text.
_KERNEL_DOC = re.compile(
    r"(?:@[\w.]+(?:\.\.\.)?\s*:|DOC:|(?:struct|union|enum|typedef)\s+\w+|\w+(?:\(\))?\s+-\s|\w+\(\))"
)
_FOUND_BELOW = "isn't a kernel-doc comment"  # by _pretenders, which sees those in a struct too


def _kernel_doc(material: Material, _: str) -> Decision:
    faults: list[str] = []
    sources = [change for change in material.changes if change.path.endswith((".c", ".h"))]
    for change in sources:
        if change.after:
            before, after = material.tools.kernel_doc(change.path)
            new = _warnings(after) - _warnings(before)
            faults += [f"{change.path}: {text}" for text in new.elements()]
        pretenders = Counter(_pretenders(change.after)) - Counter(_pretenders(change.before))
        faults += [
            f'{change.path}: begins like kernel-doc and is not: "{text}"'
            for text in pretenders.elements()
        ]
    return _judge(faults, f"no new warning in {_count(len(sources), 'file', 'files')}")


def _warnings(said: str) -> Counter[str]:
    found = (match["text"] for line in said.splitlines() if (match := _WARNING.match(line)))
    return Counter(text for text in found if _FOUND_BELOW not in text)


def _pretenders(text: str) -> Iterator[str]:
    for comment in _split(text)[1]:
        if not re.match(r"/\*\*[^*/]", comment):
            continue
        body = comment[3:].removesuffix("*/")
        lines = (re.sub(r"^\s*\*?\s?", "", line).strip() for line in body.splitlines())
        first = next((line for line in lines if line), "")
        if not _KERNEL_DOC.match(first):
            yield f"/** {first}"


# ---------------------------------------------------------------- the code

_RESERVE = re.compile(r"\b(?:fuse_get_req_nofail\w*|mempool_\w+|\w*reserved?_req\w*)\b")


def _no_private_reserve(material: Material, _: str) -> Decision:
    faults = [
        f"{change.path}: {line.strip()}"
        for change in material.changes
        for line in _added(_code(change.before), _code(change.after))
        if _RESERVE.search(line)
    ]
    return _judge(faults, "no added line has a mempool or a reserved request")


def _added(before: str, after: str) -> list[str]:
    """Lines that there are more of than before: what was only moved is not among them."""
    return list((Counter(after.splitlines()) - Counter(before.splitlines())).elements())


def _code(text: str) -> str:
    return _split(text)[0]


_BEGIN = re.compile(r"/\*|//")


def _split(text: str) -> tuple[str, list[str]]:
    """C without its comments, and these. Linear, whatever a patch brings; strings are not known."""
    code: list[str] = []
    comments: list[str] = []
    place = 0
    while begin := _BEGIN.search(text, place):
        end = "*/" if begin[0] == "/*" else "\n"
        stop = text.find(end, begin.end())
        stop = len(text) if stop < 0 else stop + (len(end) if end == "*/" else 0)
        code += [text[place : begin.start()], " "]
        comments.append(text[begin.start() : stop])
        place = stop
    return "".join([*code, text[place:]]), comments


# ---------------------------------------------------------------- the protocol

_OPCODE = re.compile(r"^\s*(?P<name>[A-Z][A-Z0-9_]+)\s*=\s*\d+,?\s*$")
_STRUCT = re.compile(r"struct\s+(?P<name>\w+)\s*\{(?P<body>[^{}]*)\}", re.DOTALL)
_MEMBER = re.compile(r"\b(?P<name>\w+)\s*(?:\[\w*\]\s*)?;")
_UAPI = "include/uapi/"


def _two_way(material: Material, _: str) -> Decision:
    names = [
        match["name"]
        for change in _uapi(material)
        for line in _added(_code(change.before), _code(change.after))
        if (match := _OPCODE.match(line))
    ]
    if not names:
        return Decision(Ruling.UNDECIDED, f"no header in {_UAPI} gets an opcode")
    faults = [f"{name} is a third message" for name in names if "COMMIT" in name]
    return _judge(faults, f"adds {', '.join(names)}")


def _no_fd_in_protocol(material: Material, _: str) -> Decision:
    members = [
        member
        for change in _uapi(material)
        for member in sorted(_members(change.after) - _members(change.before))
    ]
    if not members:
        return Decision(Ruling.UNDECIDED, f"no header in {_UAPI} gets a member of a struct")
    faults = [
        f"struct {struct} has {member}"
        for struct, member in members
        if member == "fd" or member.endswith("_fd")
    ]
    structs = dict.fromkeys(struct for struct, _ in members)
    return _judge(faults, f"no descriptor in {', '.join(structs)}")


def _uapi(material: Material) -> Iterator[FileChange]:
    return (change for change in material.changes if change.path.startswith(_UAPI))


def _members(text: str) -> set[tuple[str, str]]:
    return {
        (struct["name"], member["name"])
        for struct in _STRUCT.finditer(_code(text))
        for member in _MEMBER.finditer(struct["body"])
    }


# ---------------------------------------------------------------- changelogs

_QUOTED = 3  # sentences that name the topic
_POINTS = {
    "locks": re.compile(r"(?<![a-z])lock", re.IGNORECASE),
    "lifetime or risk": re.compile(r"\blife-?time|\brisk", re.IGNORECASE),
}


def _changelog_argues(material: Material, topic: str) -> Decision:
    lacking: list[str] = []
    for patch in material.patches:
        said = sentences(patch.changelog)
        named = [s for s in said if re.search(rf"\b{re.escape(topic)}\b", s, re.IGNORECASE)]
        if not named:
            continue
        found = {what: next(filter(word.search, said), "") for what, word in _POINTS.items()}
        missing = [what for what, sentence in found.items() if not sentence]
        if not missing:
            quoted = dict.fromkeys([*named[:_QUOTED], *found.values()])
            return Decision(Ruling.HOLDS, "\n".join([f"{patch.name}:", *quoted]))
        lacking.append(f'{patch.name}: nothing on {" or on ".join(missing)}; "{named[0]}"')
    return _judge(lacking or [f"no changelog names {topic}"], "")


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


RULES: Mapping[str, Rule] = {
    "checkpatch": Rule(
        "every message of checkpatch.pl --strict has a stated reason in the patch's notes",
        _checkpatch,
    ),
    "kernel-doc": Rule(
        "no new warning of kernel-doc, and no comment that only looks like kernel-doc", _kernel_doc
    ),
    "no-private-reserve": Rule(
        "no mempool and no reserved request of its own is added", _no_private_reserve
    ),
    "changelog-argues": Rule(
        "one changelog names the topic, and speaks of locks and of lifetime or risk",
        _changelog_argues,
        argument="TOPIC",
    ),
    "two-way": Rule("the protocol gets no opcode with COMMIT in its name", _two_way),
    "no-fd-in-protocol": Rule(
        "no struct of the protocol gets a member that is a file descriptor", _no_fd_in_protocol
    ),
}
