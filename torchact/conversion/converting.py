"""``convert(model)``: every module is looked at first, then all changes are made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from torch import nn

from torchact.conversion import functional_calls
from torchact.conversion.change import LeftAlone
from torchact.conversion.counterparts import to_counterpart
from torchact.conversion.mapping import checked, leave_fused_path, to_mapped
from torchact.conversion.report import Conversion, Left, Replaced, class_name


def convert(
    model: nn.Module,
    mapping: Mapping[type[nn.Module] | str, type[nn.Module] | Callable[[], nn.Module] | str] | None = None,
) -> Conversion:
    """Replace torch.nn's activations by torchact's in ``model``, in place, or one kind of activation by another.

    Without a mapping, every module of torch.nn that torchact has a counterpart of becomes that counterpart; outputs and
    gradients stay equal. A module of a user's subclass remains one, and is then an instance of torchact's class as
    well. Left alone, and reported, are

    - activations that torchact does not have (``nn.GELU``);
    - subclasses that override ``forward`` without calling torch's, instances that carry one, and TorchScript;
    - what is no module: functional calls (``F.relu(x)``, ``x.sigmoid()``) in the modules' methods and in the functions
      of the same package that these call, functions held by attributes, and fused kernels (``nn.LSTM``).

    With a mapping, the kinds it names are swapped and nothing else; the report then speaks of these kinds only. A
    swapped module takes its parameters and buffers from a new module of the other kind: convert before
    ``model.to(device)`` and before building the optimizer where that kind has any.

    The objects stay the same ones, with their hooks, train or eval mode and state-dict keys; shared modules stay
    shared. ``isinstance(module, nn.ReLU)`` holds as before, but ``type(module) is nn.ReLU`` no longer does, so fuse
    and quantise a model before converting it. ``torch.compile``, ``torch.export`` and ``torch.jit.trace`` take the
    result, ``torch.jit.script`` does not. Converting twice changes nothing more.

    Args:
        model: any module, also a single activation.
        mapping: from a kind to the kind that takes its place. A key is a module class, which its subclasses match too
            unless they override ``forward``, or an activation's name; the most specific key wins. A value is a module
            class, an activation's name, or a function without arguments that returns a new module. Classes and names
            take over ``inplace`` and ``dim`` from the module that they replace, and all parameters where one kind is a
            subclass of the other; a function's module is taken as it is.

    Raises:
        TypeError: ``model`` is not a module, ``mapping`` not a mapping, or a key or value not one of the above.
        ValueError: a name in ``mapping`` is unknown. Nothing was changed when an error is raised.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 4), nn.GELU(), nn.Sigmoid())
        >>> print(convert(model))
        Replaced
          1  torch.nn.ReLU     -> torchact.ReLU
          4  torch.nn.Sigmoid  -> torchact.Sigmoid
        Left alone
          3  torch.nn.GELU  torchact has no counterpart
        Replaced 2 activations; left 1 alone.
        >>> print(convert(model, {nn.Sigmoid: "tanh", nn.GELU: lambda: nn.LeakyReLU(0.2)}))
        Replaced
          3  torch.nn.GELU     -> torch.nn.LeakyReLU
          4  torchact.Sigmoid  -> torchact.Tanh
        Replaced 2 activations; left 0 alone.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {model!r} of type {type(model).__name__}")
    swaps = None if mapping is None else checked(mapping)
    paths = _paths(model)
    replaced, left, changes = [], [], []
    for module, places in paths.items():
        name = class_name(type(module))
        try:
            change = to_counterpart(module) if swaps is None else to_mapped(module, swaps)
        except LeftAlone as reason:
            left.append(Left(places, name, str(reason)))
            continue
        if change is not None:
            replaced.append(Replaced(places, name, change.after))
            changes.append(change)
    left += [
        Left(places, call.what, call.reason)
        for places, call in _functional_calls(paths)
        if swaps is None or call.kind is None or issubclass(call.kind, tuple(swaps))
    ]
    for change in changes:
        change.apply()
    for module in paths:
        if isinstance(module, nn.TransformerEncoderLayer):
            leave_fused_path(module)
    return Conversion(tuple(replaced), tuple(left))


def _paths(model: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """Return each module once, with all its paths."""
    paths: dict[nn.Module, tuple[str, ...]] = defaultdict(tuple)
    for path, module in model.named_modules(remove_duplicate=False):
        paths[module] += (path,)
    return paths


def _functional_calls(
    paths: Mapping[nn.Module, tuple[str, ...]],
) -> Iterator[tuple[tuple[str, ...], functional_calls.FunctionalActivation]]:
    """Yield the calls with their places: a module's own, then those that all modules of its class make."""
    by_class: dict[type[nn.Module], list[nn.Module]] = defaultdict(list)
    for module, places in paths.items():
        by_class[type(module)].append(module)
        for call in (*functional_calls.held_by(module), *functional_calls.fused_in(module)):
            yield places, call
    for modules in by_class.values():
        places = tuple(path for module in modules for path in paths[module])
        for call in functional_calls.called_by(modules[0]):
            yield places, call
