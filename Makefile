# The developer's interface: demo, test, check, bench. Each makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATION_EXTRAS := cpu,openvino,demo,web
TEST_EXTRAS := $(STATION_EXTRAS),litert,signing,monitor,modbus,opcua,gpio,postgres,parquet,dev,lab
KILLS := 200

.PHONY: demo test check fuzz check-deploy bench chaos clean

demo: $(VENV)/station.stamp  ## the whole product on this machine, without torch
	$(BIN)/lineguard demo

test: $(VENV)/test.stamp check  ## the whole suite, the checks, and a short drill of kills
	$(BIN)/python -m pytest
	$(BIN)/lineguard chaos --kills 40

check: $(VENV)/test.stamp  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/test.stamp  ## whatever bytes come in: five doors, 20 s each
	$(BIN)/python -m pytest -m fuzz tests/test_fuzz.py

chaos: $(VENV)/station.stamp  ## every fault on purpose, the long way; the last two only as root
	$(BIN)/lineguard chaos --kills $(KILLS)
	$(BIN)/lineguard chaos --network
	[ "$$(id -u)" -ne 0 ] || $(BIN)/lineguard chaos --full-disk
	[ "$$(id -u)" -ne 0 ] || $(BIN)/lineguard chaos --power-cuts $(KILLS)

check-deploy: $(VENV)/deploy.stamp  ## scripts, container recipes and fleet files
	PATH="$(CURDIR)/$(BIN):$$PATH" deploy/check/lint.sh

bench: $(VENV)/station.stamp  ## how fast the station is on this machine, and the page of it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/lineguard bench --write docs/performance.md

clean:
	rm -rf $(VENV) runs

$(VENV)/station.stamp: pyproject.toml deploy/station/slim.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[$(STATION_EXTRAS)]'
	$(BIN)/python deploy/station/opencv.py
	$(BIN)/python deploy/station/slim.py
	touch $@

$(VENV)/deploy.stamp: $(VENV)/station.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[deploy]'
	touch $@

# The constraints keep torch to the processor: the newest one brings gigabytes of CUDA.
$(VENV)/test.stamp: $(VENV)/station.stamp configs/lab/constraints-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c configs/lab/constraints-cpu.txt -e '.[$(TEST_EXTRAS)]'
	touch $@
