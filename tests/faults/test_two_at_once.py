"""Two runs start at the same time in one folder: one runs, the other reports an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = """fit --model LeNet --data SyntheticDataModule --data.num_train 64 --data.num_val 32 --trainer.max_epochs 1
--trainer.enable_progress_bar false --trainer.accelerator cpu --run_dir""".split()  # noqa: SIM905


def test_one_wins(server: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    answer = server.run(folder, [*WORDS, str(folder)], [*WORDS, str(folder)])
    assert sorted(answer["codes"]) == [0, 1], answer["said"]  # with tracebacks, an error gives the exit code 1
    said = answer["said"][answer["codes"].index(1)].strip().splitlines()[-1]
    assert "exists" in said.lower()
    assert str(folder) in said
    assert (folder / "result.json").is_file()

    (folder / "result.json").unlink()
    resume = ["fit", "--resume", str(folder)]
    answer = server.run(folder, resume, resume)
    assert 0 in answer["codes"], answer["said"]
    if 1 in answer["codes"]:  # unless the first was over before the second began
        last = answer["said"][answer["codes"].index(1)].strip().splitlines()[-1]
        assert "another run is using" in last or "ended" in last
    assert (folder / "result.json").is_file()
