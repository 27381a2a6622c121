# The developer's interface: demo, test, check, bench. Each makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATION_EXTRAS := cpu,openvino,demo
TEST_EXTRAS := $(STATION_EXTRAS),modbus,opcua,gpio,dev,lab

.PHONY: demo test check bench clean

demo: $(VENV)/station.stamp  ## the whole product on this machine, without torch
	$(BIN)/lineguard demo

test: $(VENV)/test.stamp check  ## the whole suite, and the checks
	$(BIN)/python -m pytest

check: $(VENV)/test.stamp  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/station.stamp  ## how fast the station is on this machine
	$(BIN)/lineguard bench

clean:
	rm -rf $(VENV) runs

$(VENV)/station.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(STATION_EXTRAS)]'
	touch $@

# The constraints keep torch to the processor: the newest one brings gigabytes of CUDA.
$(VENV)/test.stamp: $(VENV)/station.stamp configs/lab/constraints-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c configs/lab/constraints-cpu.txt -e '.[$(TEST_EXTRAS)]'
	touch $@
