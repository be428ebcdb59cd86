"""Runs in a store, against a server of S3's protocol: what is sent, what is fetched, who may write."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nameplate import checkpoint as store
from nameplate.checkpoint import lease as leases
from nameplate.checkpoint import location, remote
from nameplate.checkpoint.fetching import pull
from nameplate.checkpoint.lease import Lease, LostLeaseError
from nameplate.checkpoint.remote import AwayError, Remote, RemoteError
from nameplate.checkpoint.replication import Replica
from tests.long import cases
from tests.nameplate.checkpoint.samples import snapshot
from tests.stores import Server, serving

STEP = "step_{:08d}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return f"s3://bucket/{request.node.originalname[-40:]}{abs(hash(request.node.name)) % 1000}/mine"


def quiet(line: str) -> None:
    raise AssertionError(line)


def saved(run: Path, *steps: int, last: int = 3, every: int | None = None, best: int = 0) -> Path:
    """Return a run with checkpoints of these steps, and its logs; `best` is the index of the best."""
    directory = run / "checkpoints"
    for step in steps:
        path = store.save(directory, snapshot(step))
        store.point(directory, "latest", path)
        store.point(directory, "best", store.checkpoints(directory)[best])
        store.keep(directory, last=last, every=every)
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
    (run / "tensorboard").mkdir(exist_ok=True)
    (run / "tensorboard" / "events").write_text("events")
    return run


def replica(run: Path, at: Remote, *, every: int | None = None, say: Callable[[str], None] = quiet) -> Replica:
    return Replica(run, at, every=every, say=say, distrusted=set())


def push(run: Path, at: Remote, **given: Any) -> None:
    own = replica(run, at, **given)
    while own.push():
        pass
    assert own.missing() == []


def names(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step_")) for path in store.checkpoints(run / "checkpoints")]


def files(run: Path) -> dict[str, bytes]:
    """Return all files of a run that a store has."""
    paths = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return {str(path): (run / path).read_bytes() for path in paths if not path.name.startswith(".")}


def prefix(url: str) -> str:
    return url.removeprefix("s3://bucket/")


def test_a_machine_that_has_not_seen_the_run_gets_all_of_it(server: Server, url: str, tmp_path: Path) -> None:
    run = saved(tmp_path / "one", 10, 20, 30)
    (run / ".hidden").write_text("stays")
    (run / "elsewhere").symlink_to("/etc/hostname")
    push(run, Remote(url))
    assert pull(Remote(url), tmp_path / "two", every=None, say=quiet) == set()
    (run / "elsewhere").unlink()
    assert files(tmp_path / "two") == files(run) == server.objects(prefix(url))
    assert store.resolve(tmp_path / "two" / "checkpoints", "best") == tmp_path / "two" / "checkpoints" / STEP.format(10)


class Faulty(Remote):
    """A store that goes away at its nth call."""

    def __init__(self, url: str, fails_at: int) -> None:
        self.calls: list[str] = []
        self._fails_at = fails_at
        super().__init__(url)

    def _worded(self, action: str) -> Any:
        self.calls.append(action)
        if len(self.calls) == self._fails_at:
            raise AwayError("gone")
        return super()._worded(action)


@pytest.mark.parametrize("first", cases(range(1, 5), short=[1]))
def test_wherever_an_upload_stops_the_store_holds_whole_checkpoints_and_the_next_pass_completes_it(
    server: Server, url: str, tmp_path: Path, first: int
) -> None:
    run = saved(tmp_path / "run", 10, last=1)
    push(run, Remote(url))
    before = server.objects(prefix(url))
    saved(run, 20, last=1, best=-1)
    for number in range(first, 100, 4):
        for key in server.objects(prefix(url)):
            server.delete(f"{prefix(url)}/{key}")
        for key, data in before.items():
            server.put(f"{prefix(url)}/{key}", data)
        failing = Faulty(url, number + 1)  # its first call opens it
        own = replica(run, failing)
        try:
            own.push()
        except AwayError:
            fetched = tmp_path / f"fetched{number}"
            pull(Remote(url), fetched, every=None, say=lambda line: None)
            assert names(fetched)[-1] in (10, 20)
            for path in store.checkpoints(fetched / "checkpoints"):
                assert store.verify(path) == []
                target = store.resolve(fetched / "checkpoints", "best")
                assert target is not None
            own.push()
            assert server.objects(prefix(url)) == files(run)
        else:
            break
    assert 12 < number < 90
    writes = [call.split()[1] for call in failing.calls if call.startswith("Writing")]
    at = writes.index(f"checkpoints/{STEP.format(20)}/manifest.json")
    assert {name.rpartition("/")[2] for name in writes[:at]} >= {"weights.safetensors", "metrics.jsonl", "model.json"}
    assert writes[at + 1 :] == ["checkpoints/latest", "checkpoints/best"]
    assert failing.calls[-1].startswith("Deleting")


def test_an_upload_that_was_interrupted_does_not_start_again(url: str, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 10)
    failing = Faulty(url, 6)
    own = replica(run, failing)
    with pytest.raises(AwayError):
        own.push()
    own.push()
    sent = [call for call in failing.calls if call.startswith("Writing checkpoints/step")]
    assert len(set(sent)) == len(sent) - 1  # only the one that failed


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("weights.safetensors", "flipped"),
        ("state.safetensors", "shortened"),
        ("model.json", "missing"),
        ("manifest.json", "flipped"),
        ("manifest.json", "missing"),
    ],
)
def test_what_is_damaged_in_the_store_is_skipped_aloud(
    server: Server, url: str, tmp_path: Path, file: str, how: str
) -> None:
    run = saved(tmp_path / "run", 10, 20)
    push(run, Remote(url))
    key = f"{prefix(url)}/checkpoints/{STEP.format(20)}/{file}"
    data = bytearray(server.objects(prefix(url))[key.removeprefix(f"{prefix(url)}/")])
    data[-3] ^= 1
    if how == "missing":
        server.delete(key)
    else:
        server.put(key, bytes(data[:-7] if how == "shortened" else data))
    said: list[str] = []
    damaged = pull(Remote(url), tmp_path / "new", every=None, say=said.append)
    assert names(tmp_path / "new") == [10]
    assert STEP.format(20) in said[0]
    assert "skipped" in said[0]
    assert store.resolve(tmp_path / "new" / "checkpoints", "latest") == tmp_path / "new" / "checkpoints/step_00000010"
    own = Replica(saved(tmp_path / "new", 20), Remote(url), every=None, say=quiet, distrusted=damaged)
    own.push()
    pull(Remote(url), tmp_path / "newest", every=None, say=quiet)  # it was replaced by the good one
    assert names(tmp_path / "newest") == [10, 20]


def test_a_store_in_which_nothing_is_good_is_refused(server: Server, url: str, tmp_path: Path) -> None:
    push(saved(tmp_path / "run", 10), Remote(url))
    server.put(f"{prefix(url)}/checkpoints/{STEP.format(10)}/state.safetensors", b"x")
    with pytest.raises(store.NothingGoodError, match=r"state\.safetensors"):
        pull(Remote(url), tmp_path / "new", every=None, say=lambda line: None)


def test_names_in_the_store_lead_nowhere_else(server: Server, url: str, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 10)
    push(run, Remote(url))
    good = files(run)
    evil = ["../evil", "a/../../evil", "/evil", "//evil", "checkpoints/../../evil", "a\\..\\evil", "a/./evil", "nul\n"]
    evil += [".lock", ".remote.json", "tensorboard/.hidden", f"checkpoints/{STEP.format(10)}/../../../evil"]
    evil += [f"checkpoints/{STEP.format(10)}/extra", "checkpoints/other"]
    for name in evil:
        server.put(f"{prefix(url)}/{name}", b"evil")
    server.put(f"{prefix(url)}/linked/evil", b"evil")
    new = tmp_path / "inside" / "new"
    new.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (new / "linked").symlink_to(tmp_path / "outside")
    pull(Remote(url), new, every=None, say=quiet)
    assert files(new) == good
    assert list((tmp_path / "outside").iterdir()) == []
    assert list((tmp_path / "inside").iterdir()) == [new]
    server.put(f"{prefix(url)}/checkpoints/best", b"../../../evil 00\n")
    pull(Remote(url), tmp_path / "other", every=None, say=quiet)
    assert store.pointers(tmp_path / "other" / "checkpoints").keys() == {"latest"}


def test_the_store_keeps_what_retention_keeps(server: Server, url: str, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 10, 20, 30, last=1, every=20)
    push(run, Remote(url), every=20)
    assert names(run) == [10, 20, 30]  # 10 is the best
    pull(Remote(url), tmp_path / "new", every=20, say=quiet)
    assert names(tmp_path / "new") == [10, 30]  # 20 stays in the store for ever
    saved(tmp_path / "new", 50, 60, 70, last=1, every=20)
    push(tmp_path / "new", Remote(url), every=20)
    there = {name.split("/")[1] for name in server.objects(prefix(url)) if name.count("/") == 2}
    assert there == {STEP.format(step) for step in (10, 20, 60, 70)}


def test_a_checkpoint_that_is_damaged_here_replaces_none(server: Server, url: str, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 10, 20)
    (run / "checkpoints" / STEP.format(20) / "weights.safetensors").write_bytes(b"")
    said: list[str] = []
    own = replica(run, Remote(url), say=said.append)
    while own.push():
        pass
    assert len(said) == 1
    assert "not replicated" in said[0]
    assert own.missing() == []
    assert f"checkpoints/{STEP.format(20)}/manifest.json" not in server.objects(prefix(url))


def test_a_reader_gets_the_run_or_one_checkpoint(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    run = saved(tmp_path / "run", 10, 20)
    push(run, Remote(url))
    with store.open(location.choose(url, "best", quiet)) as checkpoint:  # type: ignore[arg-type]
        assert checkpoint.step == 10
    copy = remote.cache_of(url, kind="read")
    assert names(copy) == [10]
    collapsed = str(Path(url))  # as it is where a program makes a path of it
    assert [path.name for path in location.find(collapsed).paths] == [STEP.format(10), STEP.format(20)]
    assert location.find_one(f"{url}/best").name == STEP.format(10)
    assert location.find_one(f"{url}/checkpoints/{STEP.format(20)}").name == STEP.format(20)
    saved(run, 30, last=1)
    push(run, Remote(url))
    assert location.find_one(url).name == STEP.format(30)
    assert names(copy) == [10, 30]
    with pytest.raises(location.NoCheckpointError, match="no checkpoint of step 20"):
        location.choose(url, 20, quiet)  # type: ignore[arg-type]
    with pytest.raises(store.StoreError, match=f"no checkpoints in {url}x. Is the name right"):
        location.find(f"{url}x")
    with pytest.raises(store.StoreError, match="It holds the runs mine; name one of them"):
        location.find(url.removesuffix("/mine"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s4://bucket/runs", "stores are s3://, gs://, az://"),
        ("s3://bucket/../runs", r"'\.\.' cannot be part"),
        ("s3://", "cannot be part"),
        ("s3://bucket//runs", "cannot be part"),
        ("s3://bucket/a?b", "cannot be part"),
        ("gs://bucket/runs", r"gcsfs is not installed; pip install 'nameplate\[gcs\]'"),
        ("az://container/runs", r"adlfs is not installed; pip install 'nameplate\[azure\]'"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_words(address: str, message: str) -> None:
    problem = remote.problem(address) or ""
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem)


def test_a_store_says_what_is_missing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match="Does the bucket exist"):
        Remote("s3://nowhere/runs/mine").write("x", b"")
    assert remote.problem("s3://bucket/runs") is None
    assert remote.problem("runs") is None


# ---- the lease ---------------------------------------------------------------------------------------------------


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SILENCE", 0.5)


@pytest.mark.usefixtures("_short")
def test_of_two_machines_one_writes(server: Server, url: str) -> None:
    said: list[str] = []
    one, two = (Lease(Remote(url), cache=name) for name in ("one", "two"))
    one.claim(run=None, waiting=quiet)
    renewing = threading.Timer(0.2, one.renew)
    renewing.start()
    with pytest.raises(store.LockedError, match="in use by process"):
        two.claim(run=None, waiting=said.append)
    renewing.join()
    assert "waiting" in said[0]
    one.release()
    two.claim(run=None, waiting=quiet)  # at once
    assert two.run == one.run
    one.renew()
    one.release()  # both do nothing
    two.renew()


@pytest.mark.usefixtures("_short")
def test_a_lease_that_is_not_renewed_is_taken_over(server: Server, url: str) -> None:
    one, two, again = (Lease(Remote(url), cache=name) for name in ("one", "two", "one"))
    one.claim(run=None, waiting=quiet)
    again.claim(run=None, waiting=quiet)  # the same directory, whose lock the dead process had: no wait
    began = time.monotonic()
    two.claim(run=None, waiting=lambda line: None)
    assert time.monotonic() - began >= 0.5
    with pytest.raises(LostLeaseError):
        again.renew()
    again.release()  # releases nothing
    two.renew()


def test_a_lease_that_is_not_ours_is_refused(server: Server, url: str) -> None:
    for content in (b"", b"[]", b'{"run": 1}', b"x" * 5000):
        server.put(f"{prefix(url)}/{leases.NAME}", content)
        with pytest.raises(RemoteError, match="not ours"):
            Lease(Remote(url), cache="one").claim(run=None, waiting=quiet)
