"""The process that loads torch and all that stands on it, and may break: it tells line by line how far it came."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_cifar.commands.doctor.findings import Fact, Finding, Told
from lightning_cifar.commands.doctor.packages import installed, reinstall

_START = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from lightning_cifar.commands.doctor.library_checks import main
main()
"""
_LONGEST = 300  # seconds; a first import from a slow disk takes a minute


def libraries(roots: Sequence[Path], *, longest: float = _LONGEST) -> Iterator[Told]:
    """What that process tells, and if it broke off, at what."""
    words = [sys.executable, "-c", _START, json.dumps(sys.path), *map(str, roots)]
    try:
        done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=longest, check=False)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, code = error.stdout or b"", None
    stage = "Python"
    for line in output.decode(errors="replace").splitlines():
        try:
            kind, *content = json.loads(line)
        except ValueError:  # cut off where the process ended
            continue
        if kind == "stage":
            stage = content[0]
        else:
            yield Fact(*content) if kind == "fact" else Finding(*content)
    if code != 0:
        yield broke_off(stage, code, longest)


def broke_off(stage: str, code: int | None, longest: float) -> Finding:
    """Of a process that ended at a stage: by a signal (negative), an exit code, or not at all (None)."""
    if code is None:
        how = f"did not end within {longest:g} seconds"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with the code {code}"
    fix = reinstall(installed("torch")) if installed("torch") else "python -m pip install torch torchvision"
    return Finding("libraries", "fix", f"the process that looked at {stage} {how}", "training would end so, too", fix)
