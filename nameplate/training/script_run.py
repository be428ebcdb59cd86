"""A run in a script: a directory with named checkpoints and logs around `fit`, from which the same script resumes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import keras

from nameplate import checkpoint as store
from nameplate.checkpoint import remote
from nameplate.engine.coordinator import WorkerLostError
from nameplate.engine.host_collectives import agreed_stop, is_chief, several_workers
from nameplate.engine.signals import StopRequest
from nameplate.errors import NameplateError, ScriptStoppedError, StoppedError
from nameplate.formats.policy_file import AnyPolicy, policy_of
from nameplate.graph.name_contract import check
from nameplate.io.save import unsavable
from nameplate.naming import policy as policies
from nameplate.naming.policy import NamingError, PolicyMode
from nameplate.section import ConfigError
from nameplate.training.checkpoint_manager import Checkpoints
from nameplate.training.config import CheckpointConfig, EarlyStoppingConfig, LogConfig
from nameplate.training.config_diff import ConfigDiff
from nameplate.training.console import Screen, plain_table, tool
from nameplate.training.layer_table import COLUMNS, classes_by_variable, layer_rows
from nameplate.training.loop import Loop
from nameplate.training.monitor import known_values, monitored
from nameplate.training.observers import JsonLines, Observer, Profile
from nameplate.training.progress import Progress, Texts, about, model_json
from nameplate.training.progress_display import ShowProgress, shows_bar
from nameplate.training.remote_run import local_run
from nameplate.training.run_directory import RunDirectory, marked, open_run_directory
from nameplate.training.script_settings import agreement, as_text, has_own_epochs, note_left
from nameplate.training.shared_run import RESTART, aborted, same_start
from nameplate.training.state import TrainState, train_state
from nameplate.training.tensorboard import TensorBoard
from nameplate.training.trackers import Trackers

_REPAIR = "model = nameplate.enforce(model, 'repair'), before compile, gives a model that has these names."


@dataclass(frozen=True)
class RunOptions:
    """What the caller of `fit` chose about its run."""

    path: Path
    naming: AnyPolicy = "strict"
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    resume: bool = True
    resume_changed: Sequence[str] = ()
    verbose: bool | int | str = 0  # 0 shows no progress; what is wrong is shown all the same

    def require_valid(self) -> None:
        """Raise `ConfigError` with every option that cannot be used."""
        problems = [*self.checkpoint.problems(), *self.log.problems()]
        if fault := remote.problem(self.path):
            problems.append(f"run: {fault}")
        if self.log.dream.layers:
            problems.append("log.dream: a configured run dreams, python -m trainer; in a script call nameplate.dream")
        if self.checkpoint.export_keras:
            problems.append(
                "checkpoint.export_keras: a configured run exports, python -m trainer; in a script call "
                "nameplate.save(nameplate.load(RUN), 'best.keras')"
            )
        if problems:
            raise ConfigError(problems, of="the run")


class ScriptRun:
    """A run's directory while a script trains in it: locked, and marked for a scheduler if a signal ends it.

    Of several workers only the chief locks and writes; all of them read.
    """

    def __init__(self, options: RunOptions) -> None:
        """Take the options; `with` enters the directory."""
        options.require_valid()
        self.options, self.writes = options, not several_workers() or is_chief()
        self.screen = Screen(quiet=not self.writes)
        self.stop = StopRequest()
        self.optimizers: Sequence[keras.Optimizer] = ()  # those that train
        self._stack = ExitStack()

    def __enter__(self) -> ScriptRun:
        path, options = self.options.path, self.options
        with ExitStack() as stack:
            if self.writes:
                home = stack.enter_context(
                    open_run_directory(
                        path.parent,
                        path.name,
                        resume=options.resume,
                        checkpoint=options.checkpoint,
                        say=self.screen.say,
                    )
                )
                stack.enter_context(marked(home, command=again()))
            else:
                home = RunDirectory(local_run(path.parent, path.name, options.checkpoint.remote_cache))
            stack.enter_context(self.stop)
            self.home = home
            self._stack = stack.pop_all()
        for line in home.moved:
            self.screen.say(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for optimizer in self.optimizers:
            note_left(optimizer)
        try:
            self._stack.__exit__(kind, error, trace)
        finally:
            if isinstance(error, Exception) and several_workers() and aborted(error):
                Screen().fail(f"another worker is gone, and this one stops too. {RESTART}")
                raise SystemExit(int(WorkerLostError.exit_code)) from None
            if isinstance(error, StoppedError) and not in_notebook():
                self.screen.fail(str(error))
                raise ScriptStoppedError(error) from None

    def around(
        self,
        loop: Loop,
        settings: Mapping[str, Any],
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        validated: bool,
        data: Sequence[str] = (),
    ) -> Loop:
        """Return a loop of a prepared model that saves, logs and stops as this run does, restored to where it stands.

        Args:
            loop: as `fit` runs it without a run.
            settings: what decides the numbers; compared with those of the checkpoint.
            callbacks: those whose state is saved and restored.
            validated: whether there is validation data.
            data: lines about the data, shown before training.

        Raises:
            NamingError: the names break the policy.
            ConfigError: a value is to be monitored that is not measured.
            NameplateError: the checkpoint is of another model, of other settings, or none is good.
        """
        model = loop.model
        self.optimizers = [model.optimizer]
        self.require_names(model)
        for line in unsavable(model):
            self.screen.say(f"checkpoints hold the weights by name, but not the model: {line}")
        known = known_values(model, validated=validated)
        monitor, _ = monitored(self.options.checkpoint, EarlyStoppingConfig(), known)
        texts = Texts(model_json(model), as_text(settings), classes_by_variable(model), about({}))
        checkpoints = self.checkpoints(train_state(model), texts, settings, callbacks, monitor)
        progress = self.restored(checkpoints, settings, loop.plan.total_steps)  # refuses before anything is shown
        for line in data if self.options.verbose else ():
            self.screen.say(line)
        return replace(
            loop,
            observers=self.observers(model.name, layer_rows(model), settings),
            checkpoints=checkpoints,
            progress=progress,
            stop=agreed_stop(self.stop),
            averaged=bool(getattr(model.optimizer, "use_ema", False)),
            say=self.screen.say,
        )

    def has_own_epochs(self) -> bool:
        """Say whether the run was begun by a version in which each epoch had `steps_per_epoch` of its own order."""
        paths = store.checkpoints(self.home.checkpoints)
        try:
            return bool(paths) and has_own_epochs((paths[-1] / "config.yaml").read_text("utf-8"))
        except (OSError, UnicodeDecodeError):  # a damaged checkpoint, which the resume reports
            return False

    def report(self, progress: Progress, checkpoints: Checkpoints | None, ended: Sequence[str] = ()) -> None:
        """Print what came of the run, why it `ended` before its last epoch, and what can be done with it."""
        if not self.options.verbose or checkpoints is None:
            return
        for line in ended:
            self.screen.say(line)
        path = self.home.shown
        best = "" if progress.best is None else f", best {checkpoints.monitor} {progress.best:.4f}"
        self.screen.say(f"done: {progress.step} step{'s' if progress.step != 1 else ''} in {path}{best}")
        if self.options.log.tensorboard:
            self.screen.say(f"  look         {tool('tensorboard')} --logdir {shlex.quote(str(self.home.tensorboard))}")
        self.screen.say(f"  checkpoints  {tool('ckpt')} ls {shlex.quote(path)}")

    def require_names(self, model: keras.Model) -> None:
        """Raise `NamingError` if the model's names break the run's policy; under `report` print it."""
        policy = policy_of(self.options.naming)
        violations = check(model, policy)
        if not violations:
            return
        text = policies.text(violations, model=model.name, policy=policy, remedy=_REPAIR)
        if policy.mode is not PolicyMode.report:
            raise NamingError(text, violations)
        self.screen.say(text)

    def checkpoints(
        self,
        state: TrainState,
        texts: Texts,
        settings: Mapping[str, Any],
        callbacks: Sequence[keras.callbacks.Callback],
        monitor: str,
    ) -> Checkpoints:
        """Return the run's checkpoints of a state; what differs from `settings` in the last one is refused."""
        agree = agreement(settings, texts.model, meant=self.options.resume_changed, say=self.screen.say)

        def agree_with(checkpoint: store.Checkpoint, where: str) -> ConfigDiff:
            return agree(checkpoint.config, checkpoint.model, where)

        return Checkpoints(
            self.home.checkpoints,
            self.options.checkpoint,
            state=state,
            texts=texts,
            monitor=monitor,
            callbacks=callbacks,
            say=self.screen.say,
            agree=agree_with,
            writes=self.writes,
        )

    def restored(self, checkpoints: Checkpoints, settings: Mapping[str, Any], total_steps: int) -> Progress:
        """Restore the last good checkpoint and return where the run stands; record the settings that continue it."""
        progress = checkpoints.restore()
        same_start(progress.step, self.home.checkpoints)
        if self.writes:
            self.home.config.write_text(as_text(settings), "utf-8")
        if progress.step and self.options.verbose:
            self.screen.say(f"resuming from {checkpoints.last} of {total_steps} steps")
        return progress

    def observers(self, name: str, rows: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> list[Observer]:
        """Return what shows and records the run; nothing in a worker that does not write."""
        if not self.writes:
            return []
        log = self.options.log
        observers: list[Observer] = []
        if self.options.verbose:
            observers.append(ShowProgress(self.screen, bar=shows_bar(self.options.verbose)))
        if log.layer_table and self.options.verbose:
            self.screen.table(f"layers of {name}", COLUMNS, rows)
        observers.append(JsonLines(self.home.metrics, say=self.screen.say))
        if log.profile_steps:
            directory = self.home.tensorboard / "train"
            observers.append(Profile(directory, after=log.profile_after, steps=log.profile_steps, say=self.screen.say))
        if log.trackers:
            given = as_text(settings)
            trackers = Trackers(self.home, log.trackers, given, columns=COLUMNS, layers=rows, say=self.screen.say)
            observers.append(trackers)
        if log.tensorboard:
            texts = {"config": as_text(settings), "layers": plain_table(name, COLUMNS, rows)}
            observers.append(TensorBoard(self.home.tensorboard, texts=texts, histograms_every=log.histograms_every))
        return observers


def again() -> str:
    """Return the command that starts this program again; in a notebook, what to do instead."""
    if in_notebook():
        return "run the same cells again"
    command = sys.orig_argv[1:]
    if not command or command[0] == "-c" or sys.argv[0] in ("", "-"):
        return "run the same program again"
    return " ".join([tool("python"), shlex.join(command)])


def in_notebook() -> bool:
    """Say whether this is an interactive session, whose process a signal should not end."""
    shell: Callable[[], Any] | None = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return hasattr(sys, "ps1") or (shell is not None and shell() is not None)


def run_options(run: Any, *, verbose: bool | int | str, **chosen: Any) -> RunOptions | None:
    """Return the options of a run from arguments of `fit`, in which None means the default; None without a run.

    Raises:
        NameplateError: with every argument of a wrong type.
    """
    given = {key: value for key, value in chosen.items() if value is not None}
    kinds = {"checkpoint": CheckpointConfig, "log": LogConfig}
    problems = [
        f"{key}={given[key]!r:.80}: a nameplate.{kind.__name__.removesuffix('Config')}(...)"
        for key, kind in kinds.items()
        if key in given and not isinstance(given[key], kind)
    ]
    if run is not None and not (isinstance(run, str | os.PathLike) and Path(run).name):
        problems.append(f"run={run!r:.80}: the path of a directory, e.g. 'runs/mine'")
    if isinstance(given.get("resume_changed"), str):
        problems.append(f"resume_changed={given['resume_changed']!r}: a list, e.g. ['optimizer']")
    if problems:
        raise NameplateError("\n".join(problems))
    policy_of(given.get("naming", "strict"))
    if run is None:
        return None
    return RunOptions(Path(run), verbose=verbose, **given)
