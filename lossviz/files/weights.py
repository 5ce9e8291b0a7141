"""The weights of a model, an HDF5 file: links, sizes and storage are looked at before a number is read."""

from __future__ import annotations

import io
import math
from typing import Any

from lossviz.files.limits import Limits, Refused, in_words

#: Deflate, shuffle and the checksum, which HDF5 itself holds; any other filter may be code from a folder of plug-ins.
_FILTERS = (1, 2, 3)
#: Deflate makes data at most 1032 times smaller; what claims more than that has not been written.
_RATIO, _SMALL = 1100, 2**20


def check(content: bytes, limits: Limits) -> None:
    """Raise `Refused` unless the file holds plain groups and arrays of numbers alone, all of them inside it."""
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            _Walk(h5py, limits).group(file, "")
    except Refused:
        raise
    except MemoryError as error:
        raise Refused("there is not enough memory for its weights") from error
    except Exception as error:  # h5py raises many kinds on a corrupt file
        raise Refused(f"its weights are not a whole HDF5 file ({error})") from error


class _Walk:
    def __init__(self, h5py: Any, limits: Limits):
        self.h5py, self.limits = h5py, limits
        self.seen: set[int] = set()
        self.total = 0

    def group(self, group: Any, place: str) -> None:
        for name in group:
            where = f"{place}/{name}"
            link = group.get(name, getlink=True)  # never followed
            if not isinstance(link, self.h5py.HardLink):
                raise Refused(f"its weights hold a {type(link).__name__} at {where!r}; links are not followed")
            self.thing(group[name], where)

    def thing(self, thing: Any, where: str) -> None:
        address = self.h5py.h5o.get_info(thing.id).addr
        if address in self.seen:
            raise Refused(f"its weights hold {where!r} under two names")
        self.seen.add(address)
        if len(self.seen) > self.limits.members:
            raise Refused(f"its weights hold more than {self.limits.members} groups and arrays")
        if isinstance(thing, self.h5py.Group):
            self.group(thing, where)
        elif isinstance(thing, self.h5py.Dataset):
            self.array(thing, where)
        else:
            raise Refused(f"its weights hold a {type(thing).__name__} at {where!r}")

    def array(self, array: Any, where: str) -> None:
        if array.external or array.is_virtual:
            raise Refused(f"its weights keep {where!r} in another file")
        plain = array.dtype.kind in "biufc" or (array.dtype.kind == "V" and array.dtype.itemsize == 2)  # V: bfloat16
        if not plain or array.dtype.names:
            raise Refused(f"its weights hold {where!r} of dtype {array.dtype}, which is no array of numbers")
        properties = array.id.get_create_plist()
        filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
        if unknown := [number for number in filters if number not in _FILTERS]:
            raise Refused(f"its weights pack {where!r} with filter {unknown[0]} of HDF5, which is not opened")
        declared, stored = math.prod(array.shape or ()) * array.dtype.itemsize, array.id.get_storage_size()
        self.total += declared
        if declared > max(_RATIO * stored, _SMALL) or self.total > self.limits.total:
            raise Refused(
                f"its weights declare {in_words(declared)} at {where!r} and store {in_words(stored)} (limit of all: "
                f"{in_words(self.limits.total)}; --max-gb raises it)"
            )
