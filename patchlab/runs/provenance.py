# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run stands on, gathered before its first boot and printed in every report."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import patchlab
from patchlab import host, proc
from patchlab.errors import LabError
from patchlab.guests import kvm
from patchlab.model import Lab, Root
from patchlab.record import Clock, Provenance


def gather(
    lab: Lab, root: Root, proof: kvm.Proof, clock: Clock, command: tuple[str, ...]
) -> Provenance:
    kept = ("python3", "openssh-server", "xfsprogs", "libc6")
    return Provenance(
        lab_version=patchlab.__version__,
        lab_commit=_commit(Path(__file__).parent),
        command=command,
        host=host.facts(),
        qemu=kvm.qemu_version(),
        kvm=str(proof),
        clock=clock,
        root={"suite": root.suite, "key": root.key}
        | {name: root.packages[name] for name in kept if name in root.packages},
        machine={
            "memory": f"{lab.machine.memory >> 20} MiB",
            "check boot": f"{lab.machine.cpus} vCPUs, {lab.machine.check_cpu}",
            "bench boot": f"1 vCPU, {lab.machine.bench_cpu}",
            **{
                f"/dev/pmem{n}": f"{d.size >> 20} MiB, {d.filesystem} {' '.join(d.mkfs)}, "
                f"mounted {','.join(d.mount)}"
                for n, d in enumerate(lab.machine.pmem)
            },
            **({"disk": f"{lab.machine.disk >> 20} MiB"} if lab.machine.disk else {}),
        },
        virtme=f"virtme-ng {metadata.version('virtme-ng')}",
    )


def _commit(folder: Path) -> str:
    """The lab's own commit, with a word when the work tree differs from it."""
    try:
        said = proc.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            deadline=30,
        )
    except LabError:
        return "unknown: not a git checkout"
    return said.output.strip()
