"""A naming policy as data, and its violations: strings only.

`violations` checks a list of `Named`, which both a walk of a model (`nameplate.graph.tree`) and a reader of a file
(`nameplate.formats`) produce.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from nameplate import text_table
from nameplate.arguments import CheckedFields
from nameplate.errors import NameplateError
from nameplate.naming import names
from nameplate.naming.suggestions import NEUTRAL, Constraints, candidates


class PolicyMode(enum.StrEnum):
    """What happens to a model that violates the policy."""

    # Lower case, since OmegaConf reads and writes member names: these are the words of the command line.

    strict = "strict"  # refused, with every violation
    repair = "repair"  # renamed deterministically
    report = "report"  # reported and accepted
    off = "off"  # not checked


class Demand(enum.StrEnum):
    """Which rules apply to a kind of layer."""

    all = "all"  # every rule
    grammar = "grammar"  # the grammar and uniqueness only


MODEL_NAME = "the model's own name"  # begins the messages about it
REMEDY = "Or take these names: nameplate.enforce(model, 'repair') gives a model that has them."

_Word = TypeVar("_Word", PolicyMode, Demand)


@dataclass(frozen=True)
class Policy(CheckedFields):
    """The rules for the names of a model. Grammar and uniqueness always apply; the fields say what else does."""

    mode: PolicyMode = PolicyMode.strict  # what to do about names that break the rules
    automatic: bool = False  # whether a layer may keep a name that Keras made up
    fold_case: bool = True  # whether names that differ only in case count as the same
    max_length: int = names.LIMIT  # bytes of a layer's own name
    patterns: dict[str, str] = field(default_factory=dict)  # class or base class: what the own name must match
    required: list[str] = field(default_factory=list)  # qualified names that must exist
    forbidden: list[str] = field(default_factory=list)  # regular expressions for own or qualified names
    prefixes: dict[str, str] = field(default_factory=dict)  # depth ("0" is the top) or container: prefix of own names
    weightless: Demand = Demand.all  # for layers without any variable
    operators: Demand = Demand.grammar  # for `a + b`, slices and keras.ops, which cannot be named in Keras
    outputs: list[str] = field(default_factory=list)  # output names that the objective uses

    def __post_init__(self) -> None:
        """Refuse values of other types, and convert words to enum members: `Policy(mode="repair")`."""
        if isinstance(self.mode, str):
            object.__setattr__(self, "mode", _member(PolicyMode, self.mode, "mode"))
        super().__post_init__()

    def problems(self) -> list[str]:
        """Return each setting that cannot be used as `key: what is wrong, what was received, what to do`."""
        problems = []
        if not 1 <= self.max_length <= names.LIMIT:
            problems.append(f"naming.max_length: {self.max_length} is not between 1 and {names.LIMIT}")
        expressions = [(f"naming.patterns.{key}", value) for key, value in self.patterns.items()]
        expressions += [(f"naming.forbidden.{index}", value) for index, value in enumerate(self.forbidden)]
        for key, expression in expressions:
            try:
                re.compile(expression)
            except (re.error, TypeError) as error:
                problems.append(f"{key}: {expression!r} is not a regular expression: {error}")
        for key, prefix in self.prefixes.items():
            reason = names.fault(prefix + "x")
            if reason:
                problems.append(f"naming.prefixes.{key}: no name can begin with {prefix!r}: {reason}")
        return problems


@dataclass(frozen=True)
class Violation:
    """One rule that one layer violates."""

    name: str  # the qualified name
    rule: str  # grammar, automatic, duplicate, case, pattern, required, forbidden, prefix, output or carried
    message: str  # what is wrong, in a few words
    suggestion: str  # an own name that would pass without conflict; empty where there is none

    def __str__(self) -> str:
        return "  ".join(filter(None, [self.name, self.message, _advice(self)]))


class NamingError(NameplateError):
    """Names that break the contract; `violations` lists them where a policy was checked."""

    def __init__(self, message: str, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message)
        self.violations = list(violations)


class NameKind(enum.StrEnum):
    """What a name in the tree belongs to."""

    LAYER = "layer"
    INPUT = "input"
    OPERATOR = "operator"  # `a + b`, a slice, a function of keras.ops
    PART = "part"  # a layer that a Keras layer created for itself or wraps


@dataclass(frozen=True)
class Named:
    """One name of a model's tree as a policy sees it; a list of them is in the order of the walk."""

    name: str  # qualified
    own: str
    classes: tuple[str, ...]  # its class, then the base classes
    kind: NameKind = NameKind.LAYER
    weightless: bool = False
    parent: int = -1  # index of the container in the list; -1 is the model itself
    origin: str = ""  # its place, as container/index
    is_text: bool = True  # False where the name is not a string
    given: bool = False  # whether the caller gave this name, though Keras could have made it up


def named_policy(policy: Policy | str) -> Policy:
    """Return the policy with the given mode, or the given policy itself after checking it.

    Raises:
        NameplateError: for an unknown mode, and with every setting that cannot be used.
    """
    if not isinstance(policy, Policy):
        return Policy(mode=_member(PolicyMode, policy, "policy"))
    problems = policy.problems()
    if problems:
        raise NameplateError(
            "\n".join(["this naming policy cannot be used:", *(f"  {problem}" for problem in problems)])
        )
    return policy


def _member(kind: type[_Word], word: object, what: str) -> _Word:
    words = [member.value for member in kind]
    if word not in words:
        hint = names.did_you_mean(str(word), words)
        raise NameplateError(f"no naming {what} {word!r}; there are {', '.join(words)}.{hint}")
    return kind(word)


def violations(policy: Policy, tree: Sequence[Named], *, outputs: Sequence[str] = ()) -> list[Violation]:
    """Return every violation by every layer, in the order of the tree, each with a suggested name.

    Args:
        policy: the rules; its mode is ignored.
        tree: the layers, containers before their contents.
        outputs: the names of the model's outputs.
    """
    faulty = broken(policy, tree)
    better = suggestions(policy, tree, list(faulty))
    present = [
        Violation(tree[index].name, rule, message, better[index])
        for index, reasons in faulty.items()
        for rule, message in reasons
    ]
    return present + _missing(policy, tree, outputs)


def model_name_violations(name: object, *, made_up_for: str = "") -> list[Violation]:
    """Return the violations by a model's own name, which is not in the tree.

    `made_up_for` is the model's class if an automatic name is one, and it is not known to be the caller's.
    """
    if reason := names.fault(name):
        return [Violation(str(name), "grammar", f"{MODEL_NAME}: {reason}", names.sanitized(name) or "model")]
    if names.is_automatic(name, made_up_for):
        better = names.model_name(made_up_for)
        message = f"{MODEL_NAME}: made up by Keras; pass name={better!r}"
        return [Violation(str(name), "automatic", message, better)]
    return []


def broken(policy: Policy, tree: Sequence[Named]) -> dict[int, list[tuple[str, str]]]:
    """Return `{index: [(rule, message), ...]}` for the layers whose names break a rule, in the order of the tree."""
    faults = {index: _faults(policy, item, item.own, tree) for index, item in enumerate(tree)}
    for index, reason in _clashes(policy, tree):
        faults[index].append(reason)
    return {index: reasons for index, reasons in faults.items() if reasons}


def suggestions(policy: Policy, tree: Sequence[Named], indices: Sequence[int]) -> dict[int, str]:
    """Return an own name for each of these layers that passes the policy, or an empty string where there is none.

    The suggestions depend on the tree alone, and conflict neither with siblings nor with each other.
    """
    taken: dict[int, set[str]] = defaultdict(set)
    ordinals: dict[int, int] = {}
    counts: Counter[tuple[int, str]] = Counter()
    for index, item in enumerate(tree):
        taken[item.parent].add(_key(policy, item.own))
        counts[item.parent, item.classes[0]] += 1
        ordinals[index] = counts[item.parent, item.classes[0]]
    answers: dict[int, str] = {}
    for index in indices:
        item = tree[index]
        siblings = taken[item.parent]
        free = (
            name
            for name in _candidates(policy, item, ordinals[index], tree, tries=len(siblings) + 50)
            if _key(policy, name) not in siblings and not _faults(policy, item, name, tree)
        )
        answers[index] = next(free, "")
        siblings.add(_key(policy, answers[index]))
    return answers


def text(found: Sequence[Violation], *, model: str, policy: Policy, remedy: str = REMEDY) -> str:
    """Return violations as a table of name, fault and suggestion, with the remedy below if all have a suggestion."""
    layers = len({violation.name for violation in found})
    subject = "1 name" if layers == 1 else f"{layers} names"
    head = f"{subject} of {model!r} break{'s' * (layers == 1)} the policy {policy.mode.value!r}:"
    rows = [(violation.name, violation.message, _advice(violation)) for violation in found]
    lines = [f"  {line}" for line in text_table.fitted(rows, gap=3)]
    repairable = all(violation.suggestion for violation in found)
    tail = [remedy] if repairable else []
    return "\n".join([head, *lines, *tail])


def _advice(violation: Violation) -> str:
    if not violation.suggestion:
        return ""
    container = "" if violation.message.startswith(MODEL_NAME) else names.split(violation.name)[0]
    return f"e.g. {names.join(container, violation.suggestion)}"


def _faults(policy: Policy, item: Named, own: str, tree: Sequence[Named]) -> list[tuple[str, str]]:
    """Return (rule, message) for each rule that a name breaks by itself, without its siblings."""
    reason = names.fault(own if item.is_text or own != item.own else None, limit=policy.max_length)
    faults = [("grammar", reason)] if reason else []
    if not own or (not item.is_text and own == item.own):  # there is no name to check against the other rules
        return faults
    faults += [("forbidden", f"matches the forbidden {pattern!r}") for pattern in _forbidden(policy, item, own)]
    if not _held_to_all(policy, item):
        return faults
    written = item.given and own == item.own
    if not policy.automatic and not written and names.is_automatic(own, item.classes[0]):
        faults.append(("automatic", "made up by Keras"))
    pattern = _pattern(policy, item)
    if pattern and not re.fullmatch(pattern, own):
        faults.append(("pattern", f"a {item.classes[0]} must match {pattern!r}"))
    prefix = _prefix(policy, item, tree)
    if not own.startswith(prefix):
        faults.append(("prefix", f"must begin with {prefix!r}"))
    return faults


def _held_to_all(policy: Policy, item: Named) -> bool:
    if item.kind is NameKind.OPERATOR:
        return policy.operators is Demand.all
    if item.kind is NameKind.PART:  # Keras names it by its place
        return False
    return not item.weightless or item.kind is NameKind.INPUT or policy.weightless is Demand.all


def _forbidden(policy: Policy, item: Named, own: str) -> Iterator[str]:
    container, _ = names.split(item.name)
    for expression in policy.forbidden:
        if re.fullmatch(expression, own) or re.fullmatch(expression, names.join(container, own)):
            yield expression


def _pattern(policy: Policy, item: Named) -> str | None:
    return next((policy.patterns[name] for name in item.classes if name in policy.patterns), None)


def _prefix(policy: Policy, item: Named, tree: Sequence[Named]) -> str:
    """Return what the own name must begin with; a rule for the container overrides one for its depth."""
    if not policy.prefixes:
        return ""
    container = tree[item.parent].name if item.parent >= 0 else ""
    if container and container in policy.prefixes:
        return policy.prefixes[container]
    depth = container.count(names.SEPARATOR) + 1 if container else 0
    return policy.prefixes.get(str(depth), "")


def _key(policy: Policy, own: str) -> str:
    """Return a key that is equal for names that count as the same."""
    return own.casefold() if policy.fold_case else own


def _clashes(policy: Policy, tree: Sequence[Named]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield every repeated use of a name among siblings, with both places."""
    first: dict[tuple[int, str], int] = {}
    for index, item in enumerate(tree):
        earlier = first.setdefault((item.parent, _key(policy, item.own)), index)
        if earlier == index:
            continue
        where = f"first at {tree[earlier].origin}, again at {item.origin}"
        if tree[earlier].own == item.own:
            yield index, ("duplicate", f"used twice: {where}")
        else:
            yield index, ("case", f"the same as {tree[earlier].own!r} but for case: {where}")


def _missing(policy: Policy, tree: Sequence[Named], outputs: Sequence[str]) -> list[Violation]:
    present = [item.name for item in tree]
    known = set(present)
    missing = [
        Violation(name, "required", f"required, and no layer has it.{names.did_you_mean(name, present)}", "")
        for name in policy.required
        if name not in known
    ]
    return missing + [
        Violation(name, "output", f"the objective uses it; the outputs are {', '.join(outputs) or 'unnamed'}", "")
        for name in policy.outputs
        if name not in outputs
    ]


def _candidates(policy: Policy, item: Named, ordinal: int, tree: Sequence[Named], *, tries: int) -> Iterator[str]:
    """Yield names for a layer: its own name repaired, its class's word with a number, then neutral ones."""
    word = "input" if item.kind is NameKind.INPUT else names.snake(item.classes[0]) or "layer"
    repaired = names.sanitized(item.own)
    automatic = names.is_automatic(repaired, item.classes[0]) and not (item.given and repaired == item.own)
    unusable = not repaired or automatic or names.fault(repaired) is not None
    bases = [] if unusable else [repaired]
    held = _held_to_all(policy, item)
    constraints = Constraints(
        prefix=_prefix(policy, item, tree) if held else "",
        pattern=_pattern(policy, item) if held else None,
        limit=policy.max_length,
        ordinal=ordinal,
        tries=tries,
    )
    return candidates([*bases, word, *NEUTRAL], [word, *NEUTRAL], constraints)
