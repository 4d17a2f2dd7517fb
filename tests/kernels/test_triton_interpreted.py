"""The kernels' arithmetic without a GPU: the cases of `interpreted.py` in Triton's interpreter.

Triton decides when a kernel is defined whether it will be interpreted, so the cases need a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", minversion="3.3", reason="the kernels need Triton 3.3")


def test_the_kernels_pass_their_cases_in_the_interpreter() -> None:
    cases = Path(__file__).with_name("interpreted.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", str(cases)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}", pytrace=False)
