"""Loading pickles that hold only plain data: numbers, text, containers and numpy arrays.

A pickle can name any function to be called while it is read. Here only the names that arrays are made of are looked up;
any other name is an error before anything runs.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

# Not all of builtins and numpy: `builtins.eval` and `numpy.load` are as dangerous as `os.system`.
_CLASSES = {"builtins": ("set", "frozenset", "complex", "bytearray", "slice", "range")}
_NUMPY = {
    "": ("ndarray", "dtype"),
    # numpy 2 renamed core to _core: either side reads what the other wrote.
    ".core.multiarray": ("_reconstruct", "scalar"),
    "._core.multiarray": ("_reconstruct", "scalar"),
    ".core.numeric": ("_frombuffer",),
    "._core.numeric": ("_frombuffer",),
}
_ALLOWED = {("builtins", name) for name in _CLASSES["builtins"]}
_ALLOWED |= {(f"numpy{module}", name) for module, names in _NUMPY.items() for name in names}
_ALLOWED.add(("_codecs", "encode"))  # bytes, in pickles of protocol 2 and older
_PYTHON_2 = {"__builtin__": "builtins"}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = _PYTHON_2.get(module, module)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        core = "numpy.core." if np.__version__.startswith("1.") else "numpy._core."
        return super().find_class(module.replace("numpy._core.", "numpy.core.").replace("numpy.core.", core), name)


def load(path: str | Path, encoding: str = "ASCII") -> Any:
    """Content of a pickle file of builtins and numpy arrays.

    Args:
        path: of the file.
        encoding: of text that Python 2 wrote; its numpy arrays are read with `latin1`.

    Returns:
        The content.

    Raises:
        ValueError: the file is missing, damaged, or names anything but plain data; nothing of it has run then.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding=encoding).load()
    except FileNotFoundError:
        raise ValueError(f"there is no {path}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{path} cannot be read as plain data ({error}). Only numpy arrays, numbers, text and containers are "
            "allowed, because a pickle of anything else can run code."
        ) from error
