"""The budget of the CUDA kernels: what the assembler reports is read right, and more than allowed is noticed."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

CHECK = Path(__file__).parents[1] / "cuda" / "check.py"

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN9dictsplat3gpu12codes_kernelILi128EEEvNS0_10SplatListsENS0_5CodesEPfS3_' for 'sm_80'
ptxas info    : Function properties for _ZN9dictsplat3gpu12codes_kernelILi128EEEvNS0_10SplatListsENS0_5CodesEPfS3_
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 8 bytes cumulative stack size, 480 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN9dictsplat3gpu11lift_kernelENS0_10SplatListsEiPKfPfS4_' for 'sm_120'
ptxas info    : Function properties for _ZN9dictsplat3gpu11lift_kernelENS0_10SplatListsEiPKfPfS4_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 71 registers, used 1 barriers
"""  # noqa: E501 - as ptxas writes it


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_check", CHECK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cuda_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_assemblers_report_is_read(check: ModuleType) -> None:
    (kernel, architecture, usage), second = check.usages(REPORT)
    assert (check._plain(kernel), architecture) == ("codes_kernel<128>", "80")
    assert usage == check.Usage(registers=48, stack=8, spills=28)
    assert (check._plain(second[0]), second[1]) == ("lift_kernel", "120")
    assert second[2] == check.Usage(registers=71, stack=0, spills=0)


def test_what_is_over_budget_is_named(check: ModuleType) -> None:
    def table(**usage: int) -> dict:
        return {"lift_kernel": {"80": {"registers": 60, "stack": 0, "spills": 0} | usage}}

    assert list(check.excesses(table(), table())) == []
    assert list(check.excesses(table(registers=59), table())) == []
    assert list(check.excesses(table(registers=61), table())) == [
        "lift_kernel on sm_80 takes 61 registers, the budget allows 60"
    ]
    # Allowed or not, a spill is one.
    assert list(check.excesses(table(spills=4), table(spills=4))) == ["lift_kernel on sm_80 spills 4 bytes"]
    assert list(check.excesses(table(), {})) == ["lift_kernel on sm_80 is not in the budget"]
    assert list(check.excesses({}, table())) == ["lift_kernel on sm_80 is no longer compiled"]


def test_more_shared_memory_is_noticed(check: ModuleType) -> None:
    class Kernels:
        @staticmethod
        def blocks(nonzeros: int, atoms: int) -> dict[str, tuple[int, int]]:
            return {"codes": (128, 1000 * nonzeros + atoms)}

    taken = check.shared_bytes(Kernels)
    assert taken["64"] == {"codes": {"bytes": 4064}}
    allowed = {atoms: {"codes": {"bytes": 4200}} for atoms in ("64", "128", "256")}
    assert list(check.excesses(taken, allowed, "")) == ["256 on codes takes 4256 bytes, the budget allows 4200"]


def test_the_budget_covers_every_architecture_without_spills(check: ModuleType) -> None:
    budget = json.loads(check.BUDGET.read_text(encoding="utf-8"))["kernels"]
    assert {"codes_kernel<128>", "codes_vjp_kernel<128>", "lift_kernel", "relevancy_kernel<128>"} <= budget.keys()
    for rows in budget.values():
        assert tuple(rows) == check.ARCHITECTURES
        assert all(row["spills"] == 0 and row["stack"] == 0 for row in rows.values())


def test_without_a_compiler_it_says_so(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(check, "nvcc", lambda: None)
    assert check.main([]) == 0
    assert "skipped, because there is no nvcc" in capsys.readouterr().out
    assert check.main(["--what"]) == 2


def test_a_kernel_that_does_not_compile_cleanly_fails(check: ModuleType, tmp_path: Path) -> None:
    compiler = check.nvcc()
    if compiler is None:
        pytest.skip("there is no nvcc on PATH")
    source = tmp_path / "broken.cu"
    source.write_text("__global__ void broken(float* x) { int unused; x[0] = 1; }\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"broken\.cu does not compile cleanly"):
        check.compile_report(source, compiler)
