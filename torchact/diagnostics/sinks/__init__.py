"""Where readings go: one file a destination, and several destinations at once."""

from typing import TYPE_CHECKING, Any

from torchact.diagnostics.sinks.base import Sink, Sinks
from torchact.diagnostics.sinks.jsonlines import JSONLinesSink
from torchact.diagnostics.sinks.memory import MemorySink

if TYPE_CHECKING:
    from torchact.diagnostics.sinks.tensorboard import TensorBoardSink

__all__ = ["JSONLinesSink", "MemorySink", "Sink", "Sinks", "TensorBoardSink"]


def __getattr__(name: str) -> Any:
    """Import the TensorBoard sink when it is asked for: tensorboard is slow to import, and not always wanted."""
    if name == "TensorBoardSink":
        from torchact.diagnostics.sinks.tensorboard import TensorBoardSink

        return TensorBoardSink
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
