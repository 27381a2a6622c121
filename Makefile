# The developer's interface: demo, test, check, bench. Each makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATION_EXTRAS := cpu,openvino,demo,web
TEST_EXTRAS := $(STATION_EXTRAS),litert,signing,monitor,dev,lab
KILLS := 200

.PHONY: demo test check bench chaos clean

demo: $(VENV)/station.stamp  ## the whole product on this machine, without torch
	$(BIN)/lineguard demo

test: $(VENV)/test.stamp check  ## the whole suite, and the checks
	$(BIN)/python -m pytest

check: $(VENV)/test.stamp  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(VENV)/station.stamp  ## every fault on purpose, the long way; the last two only as root
	$(BIN)/lineguard chaos --kills $(KILLS)
	$(BIN)/lineguard chaos --network
	[ "$$(id -u)" -ne 0 ] || $(BIN)/lineguard chaos --full-disk
	[ "$$(id -u)" -ne 0 ] || $(BIN)/lineguard chaos --power-cuts $(KILLS)

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
