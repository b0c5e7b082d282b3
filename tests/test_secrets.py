"""Keys and the environment stay out of everything that a run writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KEY = "c0ffee" * 6 + "feed"  # as long as a real one
CANARY = "canary-Zq7f0Xw2"
SCRIPT = """\
export TOKEN_OF_MINE
python3 main_continual.py --dataset digits --method simclr --encoder resnet9 --encoder_width 0.25 --size 8 \\
    --data_dir "$DATA_DIR" --num_tasks 1 --split_strategy data --max_epochs 1 --batch_size 512 --knn_k 3 \\
    --proj_hidden_dim 8 --output_dim 4 --wandb --offline
"""


@pytest.mark.slow
def test_no_byte_of_an_experiment_holds_a_secret(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(SCRIPT)
    environment = {
        **os.environ,
        "WANDB_API_KEY": KEY,
        "TOKEN_OF_MINE": CANARY,
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "DATA_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "job_launcher.py"), "--script", "run.sh"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"experiment.json", "results.json", "final.ckpt", "metrics.csv", "run.sh"} <= names
    runs = {path.parent.parent.parent.name for path in files if path.suffix == ".wandb"}
    assert len(runs) == 2 and "task0" in runs  # and that of the experiment
    texts = {str(path): path.read_bytes() for path in files}
    texts |= {"stdout": ended.stdout.encode(), "stderr": ended.stderr.encode()}
    texts |= {"names": "\n".join(map(str, files)).encode()}  # WandB's have ids in them
    for secret in (KEY, CANARY):
        assert [name for name, text in texts.items() if secret.encode() in text] == []
    copies = [path for path in files if path.name == "run.sh" and path.parent != tmp_path]
    assert [path.read_text() for path in copies] == [SCRIPT]  # $DATA_DIR is as it was
