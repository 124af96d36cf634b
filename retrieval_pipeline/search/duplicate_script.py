"""A plan about duplicates as a shell script: a person reads it, changes it, and runs it or not.

The script is for any POSIX shell. Before each step it reads both files and compares their SHA-256
with what they had when the plan was made; a step about a file that has changed is left out.
"""

import hashlib
import os
import shlex
from pathlib import Path

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.search.duplicate_plan import Action, DuplicatePlan, PlannedFile
from retrieval_pipeline.storage.content_id import content_id_of_file

# What a step does with $1, the file that stays, $2, the file that goes, and $3, where it goes to.
ACTIONS: dict[Action, str] = {
    "trash": """\
if command -v gio >/dev/null; then act() { gio trash -- "$2"; }
elif command -v trash-put >/dev/null; then act() { trash-put -- "$2"; }
elif command -v trash >/dev/null; then act() { trash "$2"; }
else echo "no program for the trash here: install trash-cli, which has trash-put" >&2; exit 1
fi
""",
    "hardlink": """\
act() {
    link=$2.retrieval-link
    ln -- "$1" "$link" || return 1
    mv -f -- "$link" "$2" || { rm -f -- "$link"; return 1; }
}
""",
    "move": """\
act() {
    if [ -e "$3" ] || [ -L "$3" ]; then return 1; fi
    mkdir -p -- "${3%/*}" && mv -- "$2" "$3"
}
""",
}

CHECKED_STEP = """\
if command -v sha256sum >/dev/null; then sum() { sha256sum <"$1" | cut -c 1-64; }
else sum() { shasum -a 256 <"$1" | cut -c 1-64; }
fi
did=0 left=0
holds() { [ -f "$1" ] && [ ! -L "$1" ] && [ "$(sum "$1")" = "$2" ]; }
leave() { left=$((left + 1)); echo "step $1 left out: $2" >&2; }
step() {
    if ! holds "$2" "$3"; then leave "$1" "the file to keep is gone or has changed"
    elif ! holds "$4" "$5"; then leave "$1" "the file is gone or has changed"
    elif act "$2" "$4" "$6"; then did=$((did + 1))
    else leave "$1" "it failed, see above, or its new name is taken"
    fi
}
"""


def duplicate_script(plan: DuplicatePlan, target: Path | None = None) -> bytes:
    """Return a shell script that does what the plan proposes; every file of it is read.

    Args:
        plan: What to do.
        target: The directory that "move" moves files into, by source and path.

    Raises:
        StoreError: A file is no longer what was indexed, or cannot be read.
    """
    lines = [
        "#!/bin/sh",
        f"# {plan.files} steps, {plan.bytes} bytes; kept first: {_printable(plan)}",
        "# Made by `retrieval duplicates`. Read it, take out what should not be done, then run it.",
        "# A step is left out if one of its two files has changed since this was written.",
        "LC_ALL=C; export LC_ALL",
        ACTIONS[plan.action] + CHECKED_STEP,
    ]
    number = 0
    for group in plan.groups:
        if not group.remove:
            continue
        kept = _word(group.keep.path), _sha256(group.keep)
        for file in group.remove:
            number += 1
            what = "same bytes" if file.content_id == group.keep.content_id else "looks the same"
            to = target / file.source / to_path(file.relative) if target is not None else ""
            words = (*kept, _word(file.path), _sha256(file), _word(to))
            lines += [f"# {what}, {file.size} bytes", " ".join((f"step {number}", *words))]
    lines += ['echo "done: $did, left out: $left"', '[ "$left" -eq 0 ]', ""]
    return os.fsencode("\n".join(lines))


def _word(path: Path | str) -> str:
    """Return a name as one word of a shell, in which whoever reads the script sees every byte.

    What does not print could turn the line around or hide a part of it, so `printf` writes it from
    octal numbers. It cannot write line ends at the end of a name, which `$(...)` drops.
    """
    name = str(path)
    body = name.rstrip("\n")
    if body.isprintable():
        return shlex.quote(name)
    octal = "".join(map(_octal, body))
    return f"\"$(printf '{octal}')\"" + (shlex.quote(name[len(body) :]) if name != body else "")


def _octal(char: str) -> str:
    """Return what `printf` in single quotes writes as this character."""
    if char.isprintable() and char not in "%\\'":
        return char
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(char))


def _printable(plan: DuplicatePlan) -> str:
    return ", ".join(rule if rule.isprintable() else "path=..." for rule in plan.rules)


def _sha256(file: PlannedFile) -> str:
    """Return the SHA-256 of a file, which must hold what was indexed.

    Raises:
        StoreError: It does not, or cannot be read.
    """
    try:
        with file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        content = content_id_of_file(file.path, follow_symlinks=False)
    except OSError as error:
        raise StoreError(f"{file.path}: {error.strerror}") from None
    if content != file.content_id:
        raise StoreError(
            f"{file.path} is no longer what was indexed: run `retrieval index --rehash`, then plan "
            "again"
        )
    return digest
