PYTHON ?= python3
# The CPU build where the index has one; on a GPU machine: make run TORCH=torch
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
GSM8K ?= ../shared/data/gsm8k/train.jsonl
PORT ?= 8000
ADAPTER ?= data/l1_maxlen
REAL_OUTPUT := outputs/real-$(shell date +%Y%m%d-%H%M%S)

.PHONY: install run exact cold real gpu serve test test-slow goldens docs style quality bounds release-check clean

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
		--hindsight false --max_steps 100 --output_dir outputs/l1_exact-cold-$(SEED)

real: install  ## five steps on real GSM8K rows, with a system prompt and a template setting, a checkpoint and a resume
	@if [ ! -f $(GSM8K) ]; then echo "real data is absent: no $(GSM8K); nothing was run"; exit 0; fi; set -e; \
	real() { $(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml recipes/l1_maxlen.py \
		--questions $(GSM8K) --eval_questions $(dir $(GSM8K))test.jsonl --num_questions 512 --num_eval_questions 8 \
		--eval_budgets 16 64 --system_prompt "Solve the problem step by step." \
		--chat_template_kwargs '{"enable_thinking": false}' --hindsight_settings \
		'{"num_samples": 128, "max_updates": 2, "probe_every": 2, "cooldown_updates": 0, "only_correct": false}' \
		--per_device_train_batch_size 16 --save_steps 3 --logging_steps 1 --output_dir $(REAL_OUTPUT) "$$@"; }; \
	real --max_steps 3 --evaluate false; \
	real --max_steps 5 --resume_from_checkpoint true; \
	ls $(REAL_OUTPUT)/adapter_model.safetensors; \
	grep -E '"(system_prompt|enable_thinking)"' $(REAL_OUTPUT)/run.json

# No install: a machine without a network has its packages already. Without MODEL it is rehearsed on the CPU.
gpu:  ## what only a GPU can show, in 8 minutes: make gpu MODEL=FOLDER, with GSM8K's train.jsonl; see tests/gpu.py
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.gpu --output outputs/gpu-$(shell date +%Y%m%d-%H%M%S) \
		$(if $(MODEL),--model $(MODEL) --questions $(dir $(GSM8K)),--rehearse)

serve: install  ## an OpenAI-compatible API over the embedded adapter, until Ctrl-C: make serve PORT=8001 ADAPTER=FOLDER
	$(BIN)/python -m pip install --quiet --editable '.[serve]'
	$(BIN)/rlred serve $(ADAPTER) --port $(PORT)

# Two at a time, one thread each: on models this small that is faster than one at a time with two threads.
test: install  ## everything but the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

goldens: install  ## record the golden runs anew (tests/test_goldens.py); `git diff tests/goldens` shows what changed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_goldens.py --record-goldens

docs: install  ## this documentation as a site in site/, built without a warning
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Each set is resolved by uv, installed in an environment of its own, imported, and goes through tests that stand on it.
BOUNDS := outputs/bounds
# Which build of torch: BACKEND="--torch-backend cpu" where download.pytorch.org can be reached; else that of the index.
BACKEND ?=
BOUNDED_TESTS ?= tests/test_trl_contract.py tests/test_doctor.py tests/test_budgets.py tests/test_questions.py \
	tests/test_rewards.py tests/test_sft.py tests/test_wrapper.py

bounds: install  ## the oldest and the newest packages that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	@mkdir -p $(BOUNDS); set -e; for which in lowest-direct highest; do \
		$(BIN)/uv pip compile --quiet --resolution $$which $(BACKEND) --extra dev pyproject.toml \
			--python-version 3.11 --output-file $(BOUNDS)/$$which.txt; \
		$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(BOUNDS)/$$which; \
		$(BIN)/uv pip install --quiet $(BACKEND) --python $(BOUNDS)/$$which/bin/python \
			--requirement $(BOUNDS)/$$which.txt; \
		$(BIN)/uv pip install --quiet --no-deps --python $(BOUNDS)/$$which/bin/python --editable .; \
		echo "$$which:"; $(BOUNDS)/$$which/bin/rlred doctor; \
		OMP_NUM_THREADS=1 $(BOUNDS)/$$which/bin/python -m pytest -q -m "not slow" $(BOUNDED_TESTS); \
	done

# What would be published: built, described, installed where nothing else is, and the locked packages without known
# holes: those of this platform and Python. Without --strict pip-audit passes a package of which its index tells nothing.
RELEASE := outputs/release

release-check: install  ## wheel and sdist built, checked and installed in an empty environment; an audit of uv.lock
	$(BIN)/python -m pip install --quiet build twine uv pip-audit
	rm -rf $(RELEASE); mkdir -p $(RELEASE)
	$(BIN)/python -m build --outdir $(RELEASE)/dist .
	$(BIN)/twine check --strict $(RELEASE)/dist/*
	$(BIN)/python -m venv $(RELEASE)/empty
	$(RELEASE)/empty/bin/python -m pip install --quiet $(TORCH) $(RELEASE)/dist/*.whl
	cd $(RELEASE) && empty/bin/rlred --version && empty/bin/rlred train | grep -q l1_exact && empty/bin/rlred doctor
	$(BIN)/uv lock --check --quiet
	$(BIN)/uv export --quiet --frozen --all-extras --no-emit-project --output-file $(RELEASE)/locked.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(RELEASE)/locked.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
