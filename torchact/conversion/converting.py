"""``convert(model)``: every module is looked at first, then all changes are made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from torch import nn

from torchact.conversion import functional_calls, held_functions
from torchact.conversion.change import LeftAlone
from torchact.conversion.counterparts import to_counterpart
from torchact.conversion.functions import FunctionalActivation
from torchact.conversion.mapping import checked, leave_fused_path, to_mapped
from torchact.conversion.report import Conversion, Left, Replaced, class_name


def convert(
    model: nn.Module,
    mapping: Mapping[type[nn.Module] | str, type[nn.Module] | Callable[[], nn.Module] | str] | None = None,
) -> Conversion:
    """Replace the activations in ``model`` by torchact's, in place, or one kind of activation by another.

    Without a mapping, all activations of torch.nn become torchact's, and so do those of Hugging Face transformers and
    of timm; outputs and gradients stay equal, to the rounding of their dtype. A module of a user's subclass, or of
    another package's class, remains one, and is then an instance of torchact's class as well. Where an attribute holds
    a function of torch, as ``activation`` of ``nn.TransformerEncoderLayer`` does, torchact's function takes its place.
    Left alone, and reported, are

    - activations that torchact does not have (the ``HardMish`` of timm);
    - subclasses that override ``forward`` without calling the original, instances that carry one, and TorchScript;
    - calls (``F.relu(x)``, ``x.sigmoid()``, ``ACT2FN[name](x)``) in the modules' methods, in the functions of the same
      package that these call and in functions that an attribute holds, of functions and of modules outside the model;
    - modules outside the model that a dict, list or tuple in an attribute holds;
    - fused kernels (``nn.LSTM``, ``nn.MultiheadAttention``, ``nn.TransformerEncoderLayer`` in eval mode).

    With a mapping, the kinds it names are swapped and nothing else; the report then speaks of these kinds only. A
    module that becomes another activation takes its parameters and buffers from a new module of that: convert before
    ``model.to(device)`` and before building the optimizer where that kind has any.

    The objects stay the same ones, with their hooks, train or eval mode and state-dict keys; shared modules stay
    shared. ``isinstance(module, nn.ReLU)`` holds as before, but ``type(module) is nn.ReLU`` no longer does, so fuse
    and quantise a model before converting it. ``torch.compile``, ``torch.export`` and ``torch.jit.trace`` take the
    result, ``torch.jit.script`` does not. Converting twice changes nothing more.

    Args:
        model: any module, also a single activation.
        mapping: from a kind to the kind that takes its place. A key is a module class, or an activation's name; its
            subclasses match too unless they override ``forward``, and so do transformers' and timm's classes of the
            same activation; the most specific key wins. A name matches its own activation only: ``nn.ReLU6``, which is
            a subclass of ``nn.Hardtanh``, is no ``"hardtanh"``. A value is a module class, an activation's name, or a
            function without arguments that returns a new module. Classes and names take over ``inplace``, ``dim`` and
            ``gate`` from the module that they replace, and all parameters and buffers where both are of the same
            activation and one kind is a subclass of the other; a function's module is taken as it is.

    Raises:
        TypeError: ``model`` is not a module, ``mapping`` not a mapping, or a key or value not one of the above.
        ValueError: a name in ``mapping`` is unknown. Nothing was changed when an error is raised.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.RNN(8, 4))
        >>> print(convert(model))
        Replaced
          1  torch.nn.ReLU  -> torchact.ReLU
        Left alone
          2  torch.nn.RNN  computes Tanh in a fused kernel
        Replaced 1 activation; left 1 alone.
        >>> model = nn.TransformerEncoderLayer(4, 2, activation=nn.functional.gelu)
        >>> print(convert(model))
        Replaced
          (model)  activation = gelu  -> torchact.functional.gelu
        Left alone
          (model)    torch.nn.TransformerEncoderLayer  computes GELU in a fused kernel in eval mode
          self_attn  torch.nn.MultiheadAttention       computes Softmax in a fused kernel
        Replaced 1 activation; left 2 alone.
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.SiLU())
        >>> print(convert(model, {nn.Sigmoid: "tanh", nn.SiLU: lambda: nn.LeakyReLU(0.2)}))
        Replaced
          1  torch.nn.Sigmoid  -> torchact.Tanh
          3  torch.nn.SiLU     -> torch.nn.LeakyReLU
        Replaced 2 activations; left 0 alone.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {model!r} of type {type(model).__name__}")
    swaps = None if mapping is None else checked(mapping)
    paths = _paths(model)
    replaced, left, changes = [], [], []
    for module, places in paths.items():
        decided = []
        try:
            change = to_counterpart(module) if swaps is None else to_mapped(module, swaps)
            decided += [] if change is None else [change]
        except LeftAlone as reason:
            left.append(Left(places, class_name(type(module)), str(reason)))
        if swaps is None:
            decided += held_functions.to_counterparts(module)
        replaced += [Replaced(places, change.before, change.after) for change in decided]
        changes += decided
    left += [
        Left(places, call.what, call.reason)
        for places, call in _functional_activations(paths, replaced=swaps is None)
        if (not call.own if swaps is None else call.kind is None or swaps.concern(call.kind))
    ]
    for change in changes:
        change.apply()
    for module in paths:
        if isinstance(module, nn.TransformerEncoderLayer):
            leave_fused_path(module)
    return Conversion(tuple(replaced), tuple(left))


def functional_activations(model: nn.Module) -> list[tuple[tuple[str, ...], FunctionalActivation]]:
    """Return the activations that a model computes without a module for them, each with the places that do."""
    return list(_functional_activations(_paths(model), replaced=False))


def _paths(model: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """Return each module once, with all its paths."""
    paths: dict[nn.Module, tuple[str, ...]] = defaultdict(tuple)
    for path, module in model.named_modules(remove_duplicate=False):
        paths[module] += (path,)
    return paths


def _functional_activations(
    paths: Mapping[nn.Module, tuple[str, ...]], replaced: bool
) -> Iterator[tuple[tuple[str, ...], FunctionalActivation]]:
    """Yield the activations that are no modules with their places: a module's own, then those of all of its class.

    Args:
        paths: the modules of the model with their places.
        replaced: leave out the functions that have been decided to be replaced.
    """
    by_class: dict[type[nn.Module], list[nn.Module]] = defaultdict(list)
    for module, places in paths.items():
        by_class[type(module)].append(module)
        for call in (
            *held_functions.held_by(module, replaced),
            *held_functions.modules_held_by(module, paths),
            *functional_calls.called_by_held(module, paths),
            *functional_calls.fused_in(module),
        ):
            yield places, call
    for modules in by_class.values():
        places = tuple(path for module in modules for path in paths[module])
        for call in functional_calls.called_by(modules[0], paths):
            yield places, call
