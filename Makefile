# make demo        set up, compile the shipped intent model for stm32f746, run it on an emulated Cortex-M7
# make test        set up, run every test that this machine can run (ARGS="-k planner" passes options to pytest)
# make lint        ruff and mypy
# make benchmark   print the measurements of benchmarks/ (ARGS="enc32 --target qemu-m4" passes names and options)
# make clean       remove what was built; make distclean removes .venv too

PYTHON_VENV = .venv/bin/python
TVMTINY = $(PYTHON_VENV) -m tvmtiny
EXAMPLE = examples/intent
DEMO_TARGET = stm32f746
DEMO_DIR = build/intent
ARGS =

.PHONY: help setup demo test lint format benchmark clean distclean
.NOTPARALLEL:

help:
	@sed -n 's/^# make /make /p' Makefile

setup:
	@scripts/setup.sh test

demo:
	@scripts/setup.sh demo
	$(TVMTINY) compile $(EXAMPLE)/model.onnx --target $(DEMO_TARGET) \
	    --calibration $(EXAMPLE)/calibration.npz --labels $(EXAMPLE)/labels.txt \
	    --tokenizer $(EXAMPLE)/tokenizer.json -o $(DEMO_DIR)
	$(TVMTINY) run $(DEMO_DIR) --on qemu --input $(EXAMPLE)/sample.npz \
	    --texts $(EXAMPLE)/sample_utterances.txt
	$(TVMTINY) run $(DEMO_DIR) --on qemu --text "play some jazz"

# TVMTINY_REQUIRE_TOOLS: a missing cross compiler or emulator is a failure here, not a reason to skip tests.
test: setup
	TVMTINY_REQUIRE_TOOLS=1 $(PYTHON_VENV) -m pytest -n auto $(ARGS)

lint: setup
	$(PYTHON_VENV) -m ruff check .
	$(PYTHON_VENV) -m ruff format --check .
	$(PYTHON_VENV) -m mypy

format: setup
	$(PYTHON_VENV) -m ruff check --fix .
	$(PYTHON_VENV) -m ruff format .

benchmark: setup
	$(TVMTINY) bench $(ARGS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
