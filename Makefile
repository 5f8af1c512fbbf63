PYTHON ?= python3
# The CPU build where the index has one; on a GPU machine: make run TORCH=torch
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0

.PHONY: install run exact cold real test test-slow style quality clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

run: install  ## train, measure and save an adapter that keeps to "maximum N tokens"
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml recipes/l1_maxlen.py --seed $(SEED)

exact: install  ## the same for "exactly N tokens"
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml recipes/l1_exact.py --seed $(SEED)

cold: install  ## l1_exact without the hindsight start: what GRPO alone makes of a base that is deaf to budgets
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml recipes/l1_exact.py --seed $(SEED) \
		--hindsight false --max_steps 200 --output_dir outputs/l1_exact-cold-$(SEED)

real: install  ## five steps on real GSM8K rows, interrupted by a checkpoint and resumed
	$(BIN)/python recipes/real_rows.py

test: install  ## everything but the slow tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
