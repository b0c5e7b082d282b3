"""One run of WandB: what it is called, how it is opened, and that its failures stop nothing else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaizen.args import Args, UsageError, shorten
from kaizen.files import atomic_write_text
from kaizen.plan import active_terms
from kaizen.states import note

if TYPE_CHECKING:
    from wandb import Run

LONGEST = 100  # characters of what people name, in the names that they see
PATIENCE = "1800"  # seconds that the end of a run waits for uploads, unless WANDB_FINISH_TIMEOUT says something else


@dataclass(frozen=True)
class Job:
    """What WandB is told of a run when it is opened.

    Attributes:
        args: for --name, --project, --entity and --offline.
        folder: where WandB writes, and where the random part of the run's id is kept.
        group: the experiment's name, or that of an evaluation.
        kind: the job type: task<k>, experiment or evaluation.
        tags: to filter by.
        config: what WandB shows as the configuration.
        goes_on: is there one such run in the folder, which later processes go on with.
    """

    args: Args
    folder: Path
    group: str
    kind: str
    tags: list[str]
    config: dict[str, Any]
    goes_on: bool = True


def open_run(job: Job) -> Run:
    """Open the run, or go on with it. Where the server is away it is kept offline, for `wandb sync`."""
    _be_patient()
    import wandb

    about: dict[str, Any] = {
        "group": job.group[:LONGEST],
        "job_type": job.kind,
        "name": f"{job.args.name[:LONGEST]}-{job.kind}",
        "tags": job.tags,
        "config": job.config,
        "dir": str(job.folder),
    }
    if not in_sweep():  # which says itself what run this is, and where
        about |= {"project": job.args.project, "entity": job.args.entity}
        about["id"] = f"{lasting_token(job.folder, job.group)}-{job.kind}" if job.goes_on else None
    offline = is_offline(job.args)
    if job.goes_on and not offline:  # offline, nobody knows of an earlier part
        about["resume"] = "allow"
    try:
        return wandb.init(**about, mode="offline" if job.args.offline else None)
    except Exception as error:
        if offline:
            raise
        note(job.folder, f"warning: --wandb: {_line(error)}; this run is kept offline in {job.folder / 'wandb'}")
        wandb.teardown()  # which still holds the run's id
        return wandb.init(**{**about, "resume": None}, mode="offline")


def attempt(action: Callable[[], None]) -> bool:
    """Do something with WandB. Returns False where that failed, after a warning: training needs no WandB."""
    try:
        action()
    except Exception as error:
        print(f"warning: --wandb: {_line(error)}; going on without WandB, the experiment's folder has all", flush=True)
        return False
    return True


def lasting_token(folder: Path, group: str) -> str:
    """What the ids of a folder's runs begin with: random, the same in later processes, another one in a copy."""
    path = folder / "wandb" / "id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, secrets.token_hex(8))
    return sha256(f"{group} {path.read_text()}".encode()).hexdigest()[:12]


def tags_of(args: Args) -> list[str]:
    """Method, encoder, data set and arm: what the teacher teaches, and whether past images are replayed."""
    terms = active_terms(args, 1)
    taught = ("distill_features" in terms, "distill_classifier" in terms)
    arms = {(True, True): "kaizen", (True, False): "cassle", (False, True): "classifier-distill"}
    arm = arms.get(taught, "no-distill")
    tags = [args.method, args.encoder, args.dataset, arm, *(["replay"] if args.replay else [])]
    return [tag for tag in dict.fromkeys(tags) if tag]


def is_offline(args: Args) -> bool:
    """By --offline, or by WandB's own variable."""
    return args.offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")


def in_sweep() -> bool:
    """Has a sweep of WandB started this process; the sweep has one run for it, whatever is asked for."""
    return "WANDB_SWEEP_ID" in os.environ


def check_wandb(args: Args) -> None:
    """Raises UsageError where WandB is asked for online without a key."""
    if not args.wandb or is_offline(args):
        return
    _be_patient()
    import wandb

    try:
        known = wandb.login(prompt=False, verify=False)
    except TypeError:  # an older WandB, which cannot be asked without a prompt
        known = wandb.api.api_key is not None
    if not known:
        raise UsageError(
            "--wandb: no WandB key on this machine; run `wandb login`, set WANDB_API_KEY, or add --offline"
        )


def _be_patient() -> None:
    """Bound the wait at the end of a run, before WandB reads its variables: a server may be away without end."""
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", PATIENCE)


def _line(error: Exception) -> str:
    return shorten(" ".join(f"{type(error).__name__}: {error}".split()), 200)
