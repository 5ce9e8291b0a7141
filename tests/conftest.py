"""Fixtures that several test files share."""

import os

import pytest


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def mixed(request):
    """Each mixed precision policy in turn; the one before is put back."""
    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("half precision products of a capped oneDNN end in a segmentation fault")
    import keras  # here: most test files do without

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)
