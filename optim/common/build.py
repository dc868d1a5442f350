"""A node of the config -> the value that its method makes. `method: magnitude` in `conf/prune` names a registered one.

A config is input: it can name what is registered for its group, and nothing else. The values in it take their types
from the factory's signature before anything is hashed, so that 2 and 2.0 are one temperature.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from optim.common.errors import UnknownKey, UserError

METHOD = "method"  # the key that names it
# Where the methods of a group are registered: imported when the group is asked for, since most are slow to import.
HOMES = {
    "model": ("optim.encoder.assets", "optim.encoder.onnx_weights", "optim.encoder.parts", "optim.encoder.tiny"),
    "data": ("optim.data.glue", "optim.data.hf", "optim.data.reviews", "optim.data.table"),
    "slim": ("optim.cut.structure",),
    "vocab": ("optim.cut.vocabulary",),
    "prune": ("optim.train.prune",),
    "distill": ("optim.train.distill", "optim.train.follow"),
    "quant": ("optim.export.quantize",),
    "fit": ("optim.train.recipe",),
    "bench": ("optim.measure.latency",),
    "track": ("optim.track.sender",),
    "sweep": (
        "optim.sweep.verbs",
        "optim.sweep.baselines",
        "optim.sweep.cache",
        "optim.sweep.points",
        "optim.sweep.publish",
        "optim.sweep.sensitivity",
    ),
}
TOP = "train"  # the setting that is the config of train.py itself: its keys stand alone on a command line
_registered: dict[str, dict[str, Method]] = {}
Factory = typing.TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """A factory under the name by which configs, ids and keys know it."""

    name: str
    version: int  # raised when what it makes changes: results and stages of another version are not taken for it
    factory: Callable[..., Any]


@dataclass(frozen=True)
class Bound:
    """A method and its arguments, of the types that its signature asks for."""

    method: Method
    arguments: dict[str, Any]
    spec: dict[str, Any] = field(repr=False)  # name, version and arguments as JSON: what ids and keys are made of

    def make(self) -> Any:
        """The value. Raises UserError for an argument that the factory refuses."""
        return self.method.factory(**self.arguments)


def method(group: str, name: str, *, version: int = 1) -> Callable[[Factory], Factory]:
    """A decorator that registers a factory, a function or class whose parameters are keyword-only, in a group."""

    def register(factory: Factory) -> Factory:
        others = _registered.setdefault(group, {})
        if name in others and others[name].factory.__qualname__ != factory.__qualname__:
            raise ValueError(f"{group} has two methods named {name}")
        others[name] = Method(name, version, factory)
        return factory

    return register


def methods(group: str) -> dict[str, Method]:
    """Name -> method of everything registered for a group."""
    for home in HOMES.get(group, ()):
        import_module(home)
    return _registered.get(group, {})


def own_methods() -> dict[str, list[str]]:
    """What another process needs to know the methods of a user's own package: its modules, and where they are found."""
    modules = {one.factory.__module__ for others in _registered.values() for one in others.values()}
    own = sorted(name for name in modules if name.split(".")[0] not in ("optim", "__main__"))
    return {"modules": own, "path": [place for place in sys.path if place] if own else []}


def register_again(own: Mapping[str, Sequence[str]]) -> None:
    """Registers in this process what `own_methods` told of in another."""
    sys.path += [place for place in own["path"] if place not in sys.path]
    for name in own["modules"]:
        import_module(name)


def build(node: Any, group: str) -> Any:
    """The value of the config `node` of `group`. Raises UserError like `bind`, and for a value that is refused."""
    return bind(node, group).make()


def bind(node: Any, group: str) -> Bound:
    """The method that `node` names, with its arguments. Raises UserError for a name or key that is not registered."""
    values = _plain(node, group)
    named, known = values.pop(METHOD, None), methods(group)
    if named not in known:
        raise UserError(f"{group}.{METHOD} must be one of {', '.join(sorted(known))}, got {named!r}.")
    chosen = known[named]
    arguments = _arguments(chosen.factory, values, group)
    return Bound(chosen, arguments, {METHOD: chosen.name, "version": chosen.version, **as_json(arguments)})


def typed(factory: Callable[..., Any], node: Any, setting: str) -> Any:
    """What `factory`, a dataclass or function, makes of a config node that names no method."""
    return factory(**_arguments(factory, _plain(node, setting), setting))


def as_json(value: Any) -> Any:
    """Arguments as plain dictionaries, lists and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return value


def _plain(node: Any, setting: str) -> dict[str, Any]:
    """The node as a dictionary, with every interpolation resolved."""
    from omegaconf import OmegaConf  # here: a measuring process registers methods too, and reads no config

    value = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
    if not isinstance(value, Mapping):
        raise UserError(f"{setting} must be a group of keys, got {value!r}.")
    return {str(key): entry for key, entry in value.items()}


def _arguments(factory: Callable[..., Any], values: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """The keyword arguments of `factory`, each of its annotated type."""
    parameters = inspect.signature(factory).parameters
    _require_keys(set(parameters), values, setting)
    hints = typing.get_type_hints(factory.__init__ if isinstance(factory, type) else factory)
    return {name: _converted(_key(setting, name), values[name], hints[name]) for name in parameters}


def _key(setting: str, name: str) -> str:
    """A key of `setting` as on a command line."""
    return name if setting == TOP else f"{setting}.{name}"


def _require_keys(allowed: set[str], values: Mapping[str, Any], setting: str) -> None:
    """Raises UserError for keys that are unknown or missing."""
    reserved = sorted(key for key in values if key.startswith("_"))
    if reserved:
        raise UserError(
            f"{setting}.{reserved[0]} is refused: a config names a registered method, {setting}.{METHOD}=NAME."
        )
    unknown = sorted(set(values) - allowed)
    if unknown:
        listed = ", ".join(sorted(allowed)) or "none"
        raise UnknownKey(f"{setting} has no key {unknown[0]!r}; it has {listed}.", f"{setting}.{unknown[0]}")
    if missing := sorted(allowed - set(values)):
        raise UserError(f"{_key(setting, missing[0])} is missing.")


def _converted(setting: str, value: Any, wanted: Any) -> Any:
    """`value` as the type `wanted`. Raises UserError where it is something else."""
    if wanted is Any:
        return value
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return _either(setting, value, options)
    if dataclasses.is_dataclass(wanted):
        return typed(wanted, value, setting)  # type: ignore[arg-type]
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {k: _converted(f"{setting}.{k}", v, options[1]) for k, v in _plain(value, setting).items()}
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return _list(setting, value, options[0])
    return _SCALARS[wanted](setting, value)


def _either(setting: str, value: Any, options: Sequence[Any]) -> Any:
    """The first of the types that takes the value; None only where it is one of them."""
    if value is None and types.NoneType in options:
        return None
    wanted = [option for option in options if option is not types.NoneType]
    for option in wanted[:-1]:
        try:
            return _converted(setting, value, option)
        except UserError:
            continue
    return _converted(setting, value, wanted[-1])


def _list(setting: str, value: Any, entry: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{setting} must be a list, [a, b], got {value!r}.")
    return tuple(_converted(f"{setting}[{i}]", one, entry) for i, one in enumerate(value))


def _whole(setting: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise UserError(f"{setting} must be a whole number, got {value!r}.")
    return int(value)


def _number(setting: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{setting} must be a number, got {value!r}.")
    return float(value)


def _text(setting: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{setting} must be a text, got {value!r}. Quote it if it looks like something else.")
    return str(value)


def _truth(setting: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{setting} must be true or false, got {value!r}.")
    return value


_SCALARS = {int: _whole, float: _number, str: _text, bool: _truth}
