"""Plain Python as kinds of work: the `handler` decorator, and the set that a worker loads."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import msgspec

from hostler.contracts.offer import Offer
from hostler.contracts.queue import KindSpec, RetryPolicy
from hostler.contracts.timeouts import HANDLER_TIMEOUTS, Timeouts
from hostler.kernel.errors import SettingsError
from hostler.kernel.fields import known_fields
from hostler.worker.call import Call
from hostler.worker.shapes import Shape

Run = Literal["auto", "loop", "thread", "process"]
Mode = Literal["loop", "thread", "process"]

P = TypeVar("P")
R = TypeVar("R")

_MARK = "__hostler_handler__"


@dataclass(frozen=True, kw_only=True)
class Handler:
    """One function that runs one kind."""

    spec: KindSpec
    function: Callable[[Call[Any]], Any]
    mode: Mode
    payload: Shape[Any]
    result: Shape[Any]
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def address(self) -> tuple[str, str]:
        """Return module and qualified name: how a child process finds the function."""
        return self.function.__module__, self.function.__qualname__


class Decorate(Protocol, Generic[P, R]):
    """What `handler(...)` returns: it marks a function and gives it back unchanged."""

    @overload
    def __call__(
        self, function: Callable[[Call[P]], Coroutine[Any, Any, R]], /
    ) -> Callable[[Call[P]], Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[[Call[P]], R], /) -> Callable[[Call[P]], R]: ...

    def __call__(self, function: Callable[[Call[P]], Any], /) -> Callable[[Call[P]], Any]:
        """Mark `function`."""
        ...


class HandlerWords(TypedDict, total=False):
    """The keyword arguments of `handler` besides the types, for type checkers."""

    queue: str
    about: str
    retry: RetryPolicy
    timeouts: Timeouts
    run: Run
    labels: dict[str, str]


class HandlerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, judged and complete."""

    queue: str = "default"
    about: str = ""
    retry: RetryPolicy = RetryPolicy()
    timeouts: Timeouts = Timeouts()
    run: Run = "auto"
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])


@overload
def handler(kind: str, *, payload: type[P], result: type[R], **options: Unpack[HandlerWords]) -> Decorate[P, R]: ...


@overload
def handler(
    kind: str, *, payload: type[P], result: None = None, **options: Unpack[HandlerWords]
) -> Decorate[P, Any]: ...


@overload
def handler(
    kind: str, *, payload: None = None, result: type[R], **options: Unpack[HandlerWords]
) -> Decorate[Any, R]: ...


@overload
def handler(
    kind: str, *, payload: None = None, result: None = None, **options: Unpack[HandlerWords]
) -> Decorate[Any, Any]: ...


def handler(
    kind: str, *, payload: type[Any] | None = None, result: type[Any] | None = None, **options: Unpack[HandlerWords]
) -> Decorate[Any, Any]:
    """Make a function the handler of `kind`; the function itself stays as it is and can be called in tests.

    `payload` and `result` are msgspec types, dataclasses or pydantic models; `payload` is what the function's
    own `Call[T]` says unless given, and any JSON when neither does. Their JSON Schema goes into the kind's row,
    a payload that does not fit is refused at submit. Options: `queue`, `about`, `retry` (`RetryPolicy`),
    `timeouts` (`Timeouts`, seconds), `labels` that jobs may need, and `run`:

    - `loop`: a coroutine function on the worker's loop (the default for coroutine functions)
    - `thread`: a plain function in a thread (the default for plain functions); it can be asked to stop, not made to
    - `process`: a child process of its own, for CPU work; killed with its group on cancel, timeout or lost lease.
      The function must be importable by module and name.

    `SettingsError` for an unknown option, a wrong name, or a `run` that does not fit the function.
    """
    try:
        chosen = msgspec.convert(options, HandlerOptions)
    except msgspec.ValidationError as error:
        words = f"handler {kind!r}: {error}{known_fields(error, HandlerOptions)}"
        raise SettingsError(words, field=kind) from error
    _declared(kind, chosen, payload, result)  # what is wrong is found where it was written

    def decorate(function: Callable[[Call[Any]], Any]) -> Callable[[Call[Any]], Any]:
        spec, payload_shape, result_shape = _declared(kind, chosen, payload or _annotated(function), result)
        mark = Handler(
            spec=spec,
            function=function,
            mode=_mode(kind, chosen.run, function),
            payload=payload_shape,
            result=result_shape,
            labels=MappingProxyType(dict(chosen.labels)),
        )
        setattr(function, _MARK, mark)
        return function

    return cast("Decorate[Any, Any]", decorate)


def _declared(
    kind: str, chosen: HandlerOptions, payload: type[Any] | None, result: type[Any] | None
) -> tuple[KindSpec, Shape[Any], Shape[Any]]:
    """Return the kind's row and the two shapes; `SettingsError` when one of them cannot be used."""
    try:
        shapes = Shape(payload), Shape(result)
        spec = KindSpec(
            name=kind,
            queue=chosen.queue,
            about=chosen.about,
            payload=shapes[0].schema(),
            result=shapes[1].schema(),
            retry=chosen.retry,
            timeouts=_merged(chosen.timeouts),
            declared_by="handler",
        )
        msgspec.convert(msgspec.to_builtins(spec), KindSpec)
    except (msgspec.ValidationError, TypeError) as error:
        raise SettingsError(f"handler {kind!r}: {error}", field=kind) from error
    return spec, *shapes


def _annotated(function: Callable[[Call[Any]], Any]) -> type[Any] | None:
    """Return T of a first parameter `Call[T]`, None when it does not say or cannot be read."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # names that exist for type checkers only
        return None
    first = next(iter(inspect.signature(function).parameters), "")
    hint = hints.get(first)
    wanted = get_args(hint)[0] if get_origin(hint) is Call else None
    return None if wanted is Any or isinstance(wanted, TypeVar) else wanted


def handler_of(function: object) -> Handler | None:
    """Return what `handler` said about this function, or None when it is no handler."""
    mark = getattr(function, _MARK, None)
    return mark if isinstance(mark, Handler) else None


def _mode(kind: str, run: Run, function: Callable[[Call[Any]], Any]) -> Mode:
    coroutine = inspect.iscoroutinefunction(function)
    if run == "auto":
        return "loop" if coroutine else "thread"
    if run == "loop" and not coroutine:
        raise SettingsError(f"handler {kind!r}: run='loop' needs a coroutine function, this would block the loop")
    if run == "thread" and coroutine:
        raise SettingsError(f"handler {kind!r}: run='thread' needs a plain function, not a coroutine function")
    if run == "process" and "<locals>" in function.__qualname__:
        raise SettingsError(f"handler {kind!r}: run='process' needs a function at module level, to import it by name")
    return run


def _merged(own: Timeouts) -> Timeouts:
    """Return the handler's timeouts with the defaults in the gaps; idle is as long as the run unless set."""
    run = own.run if own.run is not None else HANDLER_TIMEOUTS.run
    return msgspec.structs.replace(own, run=run, idle=own.idle if own.idle is not None else run)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A module that could not be used, and why."""

    module: str
    reason: str
    stack: str = ""


class HandlerSet:
    """The handlers of one worker, by kind."""

    def __init__(self, handlers: Sequence[Handler] = (), *, broken: Sequence[Broken] = ()) -> None:
        self._by_kind = {each.spec.name: each for each in handlers}
        self.broken = tuple(broken)

    def __len__(self) -> int:
        return len(self._by_kind)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_kind.values())

    def get(self, kind: str) -> Handler | None:
        """Return the handler of a kind."""
        return self._by_kind.get(kind)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the rows that these handlers declare."""
        return tuple(each.spec for each in self)

    def offers(self, labels: Mapping[str, str]) -> tuple[Offer, ...]:
        """Return what these handlers can do: one offer per set of labels and isolation; `labels` are the worker's."""
        groups: dict[tuple[tuple[tuple[str, str], ...], bool], list[str]] = {}
        for each in self:
            key = (tuple(sorted({**labels, **each.labels}.items())), each.mode == "process")
            groups.setdefault(key, []).append(each.spec.name)
        return tuple(
            Offer(
                kinds=tuple(sorted(kinds)),
                labels=dict(own),
                isolation=("none", "process") if apart else ("none",),
            )
            for (own, apart), kinds in groups.items()
        )

    @classmethod
    def of(cls, *functions: Callable[..., Any]) -> "HandlerSet":
        """Return a set of these decorated functions; `SettingsError` for one that `handler` never saw."""
        found: list[Handler] = []
        for function in functions:
            mark = handler_of(function)
            if mark is None:
                raise SettingsError(f"{function.__qualname__} is no handler: decorate it with @hostler.handler(...)")
            found.append(mark)
        return cls(found)

    @classmethod
    def load(cls, modules: Sequence[str], *, strict: bool = False) -> "HandlerSet":
        """Import modules and collect their handlers; one that cannot be used is listed in `broken` with its reason.

        `SettingsError` when modules were named and no handler is left, for a kind with two handlers, or, with
        `strict`, for any broken module.
        """
        found: dict[str, Handler] = {}
        broken: list[Broken] = []
        for name in modules:
            try:
                module = importlib.import_module(name)
            except Exception as error:  # noqa: BLE001 - any exception of a foreign module is that module's defect
                words = f"{type(error).__name__}: {error}"
                broken.append(Broken(module=name, reason=words, stack=traceback.format_exc(limit=-5)))
                continue
            marks = _marks_in(module)
            if not marks:
                broken.append(Broken(module=name, reason="it has no function decorated with @hostler.handler"))
            for mark in marks:
                other = found.setdefault(mark.spec.name, mark)
                if other.function is not mark.function:
                    both = f"{'.'.join(other.address)} and {'.'.join(mark.address)}"
                    raise SettingsError(f"kind {mark.spec.name!r} has two handlers: {both}")
        if broken and (strict or not found):
            listed = "; ".join(f"{each.module}: {each.reason}" for each in broken)
            raise SettingsError(f"handlers cannot be used: {listed}", problems=[each.reason for each in broken])
        return cls(tuple(found.values()), broken=broken)


def _marks_in(module: ModuleType) -> list[Handler]:
    marks = (handler_of(value) for value in vars(module).values())
    return [mark for mark in marks if mark is not None]
