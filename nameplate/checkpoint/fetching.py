"""Fetching a run from a store: what a machine that has not seen it needs to resume, or to read.

A checkpoint without a manifest does not exist; one that differs from its manifest is reported and skipped. What a store
names is data: it never leads out of the run's directory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from nameplate.checkpoint import durable, layout, manifest
from nameplate.checkpoint.errors import DamagedError, NothingGoodError, StoreError, explained
from nameplate.checkpoint.plain_data import LARGEST_TEXT
from nameplate.checkpoint.pointers import leads_to, point
from nameplate.checkpoint.remote import Remote, is_relative_name
from nameplate.checkpoint.replication import FOLDER, POINTERS, ends_stage, lacking
from nameplate.checkpoint.verification import verify

_READ = {"metrics.jsonl", "config.yaml"}  # of a run that is only read

Say = Callable[[str], None]


def pull(remote: Remote, run: Path, *, every: int | None, say: Say) -> set[str]:
    """Bring a run's directory up to what the store has, and return the checkpoints there that are damaged.

    A directory that is as new as the store stays as it is. Otherwise the newest good checkpoint is fetched and
    verified, with those that retention still counts, the logs and the pointers. Checkpoints that are kept for ever, at
    multiples of `every` steps and at the ends of stages, stay in the store unless one is the best.

    Raises:
        NothingGoodError: the store has checkpoints, and none is good.
        RemoteError: the store refuses or is away.
    """
    directory = run / FOLDER
    sizes = remote.sizes()
    own = [_step(path.name) for path in layout.checkpoints(directory)]
    whole, partial = _steps(sizes)
    damaged: dict[str, str] = {}
    newest = max(own, default=-1)
    for name in sorted(partial, key=_step):
        if _step(name) > max([newest, *map(_step, whole)]):
            say(f"{remote.url}: {name} has no {layout.MANIFEST}, since its upload did not end; it is skipped")
    fetched = None
    for name in reversed(whole):
        if _step(name) <= newest:
            break
        if fetched is None or not _stays(remote, name, every):
            if (fault := _fetched(remote, directory, name, sizes)) is None:
                fetched = fetched or name
            else:
                damaged[name] = fault
                say(f"{remote.url}: {name} is damaged and skipped; the one before it is used: {fault}")
    if damaged and fetched is None and not own:
        listed = "\n".join(f"  {name}: {fault}" for name, fault in damaged.items())
        raise NothingGoodError(f"None of the checkpoints in {remote.url} is good:\n{listed}")
    if fetched is not None:
        _fetch_best(remote, directory, sizes, say)
        for name in (name for name in sizes if not name.startswith((f"{FOLDER}/", "."))):
            _fetch_file(remote, name, run / name, within=run)
        point(directory, "latest", directory / fetched)
    return set(damaged)


def read_copy(remote: Remote, run: Path, *, wanted: str | None, say: Say) -> None:
    """Make `run` a copy of the store's checkpoints for reading: all, or only the `wanted` one (a pointer or a name).

    Raises:
        StoreError: there are none; or the store refuses or is away.
    """
    directory = run / FOLDER
    sizes = remote.sizes()
    whole, _ = _steps(sizes)
    if not whole:
        runs = sorted({name.partition("/")[0] for name in sizes if name.split("/")[1:2] == [FOLDER]})
        advice = f"It holds the runs {', '.join(runs[:12])}; name one of them." if runs else "Is the name right?"
        raise StoreError(f"There are no checkpoints in {remote.url}. {advice}")
    durable.make_directories(directory)
    for path in layout.checkpoints(directory):
        if path.name not in whole or _is_other(remote, path):
            durable.remove_tree(path)
    for name in POINTERS:
        data = remote.read(f"{FOLDER}/{name}", most=256)
        (directory / name).unlink(missing_ok=True)
        if data is not None:
            durable.replace_file(directory / name, data)
    chosen = leads_to(directory, wanted) if wanted in POINTERS else None
    names = [chosen.name if chosen else wanted] if wanted else whole
    if not set(names) <= set(whole):
        names = whole
    for name in reversed(names):
        if not (directory / name).exists() and (fault := _fetched(remote, directory, name, sizes)) is not None:
            say(f"{remote.url}: {name} is damaged and skipped: {fault}")
    for name in POINTERS:  # an error only where its checkpoint was not fetched on purpose
        target = leads_to(directory, name)
        if target is None or not target.exists():
            (directory / name).unlink(missing_ok=True)
    for name in _READ & sizes.keys():
        _fetch_file(remote, name, run / name, within=run)


def _is_other(remote: Remote, path: Path) -> bool:
    data = remote.read(f"{FOLDER}/{path.name}/{layout.MANIFEST}", most=LARGEST_TEXT)
    return data != (path / layout.MANIFEST).read_bytes()


def _steps(sizes: dict[str, int]) -> tuple[list[str], set[str]]:
    """Return the checkpoints in a store that have a manifest, by step, and those that have none."""
    parts = [path.split("/") for path in sizes]
    every = {at[1] for at in parts if len(at) == 3 and at[0] == FOLDER and layout.step_of(at[1]) is not None}
    whole = {name for name in every if f"{FOLDER}/{name}/{layout.MANIFEST}" in sizes}
    return sorted(whole, key=_step), every - whole


def _step(name: str) -> int:
    """Return the step of a checkpoint's name."""
    return layout.step_of(name) or 0


def newest_step(remote: Remote) -> int:
    """Return the step of the newest checkpoint in a store; -1 if there is none."""
    return max(map(_step, _steps(remote.sizes())[0]), default=-1)


def _stays(remote: Remote, name: str, every: int | None) -> bool:
    """Say whether a checkpoint is kept for ever in the store, and so need not be here."""
    return bool(every and _step(name) % every == 0) or ends_stage(remote, name)


def _fetch_best(remote: Remote, directory: Path, sizes: dict[str, int], say: Say) -> None:
    data = remote.read(f"{FOLDER}/best", most=256)
    if data is None:
        return
    durable.replace_file(directory / "best", data)
    target = leads_to(directory, "best")  # None for anything but the name of a checkpoint, with its hash
    if target is not None and not target.exists():
        fault = _fetched(remote, directory, target.name, sizes)
        if fault is not None:
            say(f"{remote.url}: {target.name}, the best, is damaged and skipped: {fault}")
    if target is None or not target.exists():
        (directory / "best").unlink()


def _fetched(remote: Remote, directory: Path, name: str, sizes: dict[str, int]) -> str | None:
    """Fetch a checkpoint, verify every byte, and give it its name by one rename; or return what is wrong with it."""
    durable.make_directories(directory)
    draft = durable.beside(directory / name, layout.SAVING)
    draft.mkdir()
    try:
        data = remote.read(f"{FOLDER}/{name}/{layout.MANIFEST}", most=LARGEST_TEXT)
        content = manifest.decode(data or b"")
        if content.step != layout.step_of(name):
            return f"its manifest is for step {content.step}"
        if wanting := lacking(name, content, sizes):
            return wanting
        for file in content.files:  # names that a checkpoint may have, and no others
            remote.download(f"{FOLDER}/{name}/{file}", draft / file)
        durable.write_file(draft / layout.MANIFEST, data or b"")
        if damages := verify(draft):
            return "; ".join(map(str, damages[:3]))
        with explained("Saving", directory / name):
            durable.put_in_place(draft, directory / name)
    except DamagedError as error:
        return str(error)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return None


def _fetch_file(remote: Remote, name: str, path: Path, *, within: Path) -> None:
    """Fetch a log; the name stays inside the run's directory, also where a link there leads elsewhere."""
    if not is_relative_name(name) or any(part.startswith(".") for part in name.split("/")):
        return
    with explained("Writing", path):
        if not path.parent.resolve().is_relative_to(within.resolve()):
            return
        if not path.is_dir():
            durable.make_directories(path.parent)
            with durable.replacement(path) as draft:
                remote.download(name, draft)
