"""The public API in lines, `public_api.txt`: names, signatures, attributes, and what a checkpoint holds.

`python tests/public_api.py` writes that file anew; what then differs in it is what a user will meet.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from torch import nn

import framealign

FILE = Path(__file__).with_suffix(".txt")
MODULES = (framealign, framealign.functional, framealign.diagnostics)


def lines() -> list[str]:
    return sorted(line for module in MODULES for name in module.__all__ for line in _of(module, name))


def _of(module: ModuleType, name: str) -> Iterator[str]:
    path, value = f"{module.__name__}.{name}", getattr(module, name)
    if isinstance(value, ModuleType):
        yield path
        return
    yield path + _signature(value)
    if issubclass(type(value), type) and issubclass(value, nn.Module):
        yield from (f"{path}.{member}" for member in _members(value))
        held = _smallest(value).state_dict()
        yield from (f"{path} in a checkpoint: {key} {tuple(tensor.shape)}" for key, tensor in held.items())


def _members(module: type[nn.Module]) -> Iterator[str]:
    """Attributes with their types, and methods."""
    types = {**module.__init__.__annotations__, **module.__annotations__}
    held = vars(_smallest(module)).keys() - vars(nn.Module()).keys() | module.__annotations__.keys()
    yield from (f"{name}: {_bare(inspect.formatannotation(types[name]))}" for name in held if not name.startswith("_"))
    for name, member in vars(module).items():
        if isinstance(member, property) and not name.startswith("_"):
            yield f"{name}: {member.fget.__annotations__['return'].__name__}"
        elif name == "forward" or (inspect.isfunction(member) and name[0] != "_" and not hasattr(nn.Module, name)):
            yield name + _signature(member)


def _smallest(module: type[nn.Module]) -> nn.Module:
    parameters = inspect.signature(module).parameters.values()
    return module(8) if any(parameter.default is parameter.empty for parameter in parameters) else module()


def _signature(value: object) -> str:
    return _bare(str(inspect.signature(value)))


def _bare(annotation: str) -> str:
    """Without the modules that the types are from."""
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])|~", "", annotation)


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
