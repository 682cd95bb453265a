"""RAC itself as a contender, through its own run: the trace file in, a checkpoint out."""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.peers import contender
from rac.files import read_json
from rac.recipe import make_recipe
from rac.run import Run


def prune(options, total: contender.Stopwatch, out: Path) -> tuple[dict, int]:
    """Calibrate and solve; returns `rac.json` and the memory that the loaded model took."""
    tokens = sum(map(len, contender.read_ids(options.ids)))
    recipe = make_recipe(
        {
            "model": str(options.model),
            "calibration": "off-policy",
            "traces": str(options.traces),
            "tokens": tokens,
            "pattern": options.pattern,
            "propagate": options.propagate,
            "collector": options.collector,
            "device": "cpu",
            "dtype": "float32",
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, out, quiet=True, snapshot_seconds=3600.0)
    run.start()
    loaded = contender.memory_bytes("VmRSS")
    with total.running():
        run.calibrate_and_solve()
    record = read_json(run.model_folder / "rac.json")
    if record["tokens"] != tokens:
        raise RuntimeError(f"calibrated on {record['tokens']} tokens, the others on {tokens}")
    total.seconds -= run.stages.seconds["write checkpoint"]
    return record, loaded


def main() -> None:
    """Run as a contender; the seconds are those of the whole run but loading and checkpoint."""
    options = contender.parse_options(__doc__.splitlines()[0])
    total, solver = contender.Stopwatch(), contender.Stopwatch()
    folder = options.out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    record, loaded = prune(options, total, folder)
    solver.seconds = sum(layer["seconds"] for layer in record["layers"])
    peak = record["peak_memory_bytes"]  # before the checkpoint was written
    contender.write_result(options.out, total, solver, loaded, ["torch", "transformers"], peak)
    names = [f"{layer['name']}.weight" for layer in record["layers"]]
    with safe_open(folder / "model" / "model.safetensors", "pt") as tensors:
        weights = {name: tensors.get_tensor(name).to(torch.bfloat16) for name in names}
    save_file(weights, options.out / "weights.safetensors")


if __name__ == "__main__":
    main()
