# Every target prepares the environment first: that is quick when nothing is missing.
SHELL := bash
RUN := source ./setup_commands.sh &&

.PHONY: setup format lint types test long torture docs quickstart study

setup:
	@$(RUN) python --version

format:
	$(RUN) ruff format . && ruff check --fix .

lint:
	$(RUN) ruff check . && ruff format --check .

types:
	$(RUN) mypy

test:
	$(RUN) python -m pytest

long:
	$(RUN) python -m pytest -m long

torture:
	$(RUN) python tests/torture.py && python tests/fuzz/run.py --command_lines 2000 --files 200

docs:
	$(RUN) python -m pip install --quiet --requirement docs/requirements.txt && python docs/flags.py && mkdocs build --strict

quickstart:
	$(RUN) python job_launcher.py --script bash_files/quickstart_digits.sh

# With DATA_DIR, a folder with train/<class>/ and val/<class>/; stopped and started again, it goes on.
study:
	$(RUN) python bash_files/study_cifar10_cpu/study.py
