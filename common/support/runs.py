"""Run folders: where a command writes, and what it records about itself."""

import hashlib
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from common.gpt2 import GPT2
from common.support import distributed, files
from common.support.console import is_main, say
from common.support.files import InputError
from common.support.options import FolderOptions, Parser, flag, is_resuming, read_run

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("fp32", "bf16")
MAY_DIFFER = {"resume", "out", "device", "recompute", "timeout"}  # options that may change between a run and its resumption


def check_run(args: FolderOptions) -> None:
    """Refuse an output folder before any work is done: one that is in use, or one that cannot be resumed.

    A folder that holds nothing, or no more than a run that was killed before it could write run.json, is as good as new.

    Raises:
        InputError: if --out holds anything and --resume is not given, --resume does not fit what is there, or another
            process is at work there.
    """
    if args.out is None:
        if args.resume:
            raise InputError("--resume needs --out, the folder of the interrupted run.")
        return
    if args.out.is_dir() and is_main():
        files.claim(args.out)
    if not args.resume:
        refuse_content(args.out)
        return
    if not args.out.is_dir() or (not is_resuming(args) and _content(args.out)):
        raise InputError(f"--resume: {args.out} holds no run (no run.json).")
    if is_resuming(args):
        recorded = read_run(args.out)["options"]
        for name, value in plain_options(args).items():
            if name not in MAY_DIFFER and recorded.get(name) != value:
                raise InputError(f"--resume: the run in {args.out} has {flag(name)} {recorded.get(name)}, not {value}; "
                                 f"leave {flag(name)} out, or start a new run.")


def refuse_content(folder: Path) -> None:
    """Raise an InputError if there is anything in this place but temporary files of a killed process."""
    if folder.exists() and (not folder.is_dir() or _content(folder)):
        raise InputError(f"--out {folder} already holds something; choose a new folder, or go on with that run by --resume.")


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not files.is_temporary(path)]


def recorded_precision(args: FolderOptions, precision: str) -> str:
    """`precision`; or when resuming, what it was decided to be the first time, perhaps on another machine."""
    if not is_resuming(args) or args.out is None:
        return precision
    recorded = read_run(args.out)["facts"].get("precision")
    if recorded not in PRECISIONS:
        raise InputError(f"{args.out / 'run.json'} says precision = {recorded!r}; it must be {' or '.join(PRECISIONS)}: put it "
                         "back as it was, or start a new run.")
    return recorded


def plain_options(args: object) -> dict[str, Any]:
    """The options as JSON can hold them."""
    return json.loads(json.dumps(vars(args), default=str))  # a path becomes a text


def open_run(chapter: str, args: FolderOptions, facts: dict[str, object]) -> Path:
    """Make the run folder and write `run.json`: options, versions, commit, and `facts` (hashes, counts, ...).

    When resuming, the facts must be those of the first time, and other code or versions are told.
    """
    facts = json.loads(json.dumps(facts))  # as they are when they are read again: a number that is a key becomes a text
    folder = Path(distributed.from_main(str(_make_folder(chapter, args.out)) if is_main() else ""))
    resuming = is_resuming(args)
    if is_main():
        files.claim(folder)
        if not resuming:
            refuse_content(folder)  # once more: another run may have begun here since `check_run`
        for path in filter(files.is_temporary, folder.rglob(".*.unfinished")):
            path.unlink()
    if resuming:
        recorded = read_run(folder)
        for name, value in facts.items():
            if (then := recorded["facts"].get(name)) != value:
                raise InputError(f"--resume: {name} has changed since this run began ({then} then, {value} now); put back what "
                                 "it was, or start a new run.")
        before = {"git_commit": recorded.get("git_commit")} | recorded.get("versions", {})
        now = {"git_commit": git_commit()} | versions()
        if other := [f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]]:
            say(f"Warning: this run began with other code ({'; '.join(other)}). It may not end as it would have.")
    elif is_main():
        files.write_json(folder / "run.json", {
            "command": " ".join(["python", *sys.argv]), "options": plain_options(args), "facts": facts,
            "git_commit": git_commit(), "machine": f"{platform.system()} {platform.machine()}, "
                                                    f"{torch.get_num_threads()} threads", "versions": versions()})
    distributed.barrier()  # no process puts anything into the folder before it is this run's
    Parser.folder = folder  # if it is interrupted from here on, there is something to go on with
    say(f"Run folder: {folder}")
    return folder


def _make_folder(chapter: str, out: Path | None) -> Path:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out
    above, number = Path("runs") / chapter, 1
    above.mkdir(parents=True, exist_ok=True)
    while True:
        folder = above / f"{number:03d}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def versions() -> dict[str, str]:
    """The versions of what this code needs."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "tiktoken", "numpy", "safetensors", "huggingface_hub")}


def git_commit() -> str | None:
    """The commit of this code, with "+" if files have changed since; None outside a git checkout."""
    try:
        commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def model_hash(model: GPT2) -> str:
    """SHA-256 over the names and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def data_hash(content: object) -> str:
    """SHA-256 of the content as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
