"""Reading files that may come from anyone: what they hold is looked at before Keras or NumPy act on it.

`load_model` reads a .keras file, `load_arrays` an .npz file; both raise `Refused`, whose message is the line to print.
A model file may name nothing but what `allowed.txt` lists, and what the caller adds.
"""

from lossviz.files.arrays import load_arrays
from lossviz.files.limits import GIB, Limits, Refused
from lossviz.files.model import load_model

__all__ = ["GIB", "Limits", "Refused", "load_arrays", "load_model"]
