# Every target makes the environment it needs (.venv, by tools/setup) and is quick the
# second time. `make help` lists them.

BIN := .venv/bin
BROKER ?= sqlite
SEEDS ?= 100000
# Files of tests run side by side: many wait for servers and for other processes. One more than
# processors of a small machine, each keeping the servers its files share. What fails in the crowd is
# run once more, one after the other, and that decides: some tests are about seconds.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | \
		awk -F'\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'

.PHONY: demo
demo: ## see real jobs done while workers are killed under them
	@tools/setup run
	@$(BIN)/goose demo

.PHONY: test
test: check ## set up, check, and run all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS) || \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS)

.PHONY: check
check: setup ## lint, format, types, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

.PHONY: fix
fix: setup ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: bench
bench: ## measure beside other libraries (BROKER=sqlite|redis|rabbitmq|postgres, ARGS="--only latency")
	@tools/setup bench
	$(BIN)/python benchmarks/$(if $(filter redis postgres rabbitmq,$(BROKER)),$(BROKER)_run,run).py $(ARGS)

.PHONY: chaos
chaos: setup ## real processes killed, stopped, crashed (BROKER=sqlite|redis|sentinel|rabbitmq|postgres|transactions|completions|flows)
	$(BIN)/python -m tests.chaos.run $(BROKER) $(ARGS)

.PHONY: cluster
cluster: setup ## the conformance suite on a cluster of three RabbitMQ nodes
	$(BIN)/python -m pytest tests/brokers/rabbitmq/cluster_faults.py tests/brokers/rabbitmq/cluster_conformance.py $(ARGS)

.PHONY: features
features: setup ## the tests of features on every broker with every store, crashing everywhere
	PLACES=rabbitmq+sqlite,rabbitmq+redis,rabbitmq+postgres CRASHES=all RATE_SECONDS=60 \
		$(BIN)/python -m pytest tests/features $(ARGS)

.PHONY: simulate
simulate: setup ## the engine under a virtual clock with faults (SEEDS=100000, ARGS="--features")
	$(BIN)/python -m goose.testing.simulate --seeds $(SEEDS) $(ARGS)

.PHONY: cron
cron: setup ## 8 workers for 30 days; 50 expressions around every turn of every clock (ARGS="1 4": a quarter)
	CRON_DAYS=30 $(BIN)/python -m pytest -q -n 0 tests/features/test_crons.py -k eight_workers
	$(BIN)/python -m tests.features.cron_reference $(ARGS)

.PHONY: cost
cost: setup ## CPU per job of each middleware and of metrics, and a Redis drain with both
	$(BIN)/python benchmarks/observe.py $(ARGS)
	$(BIN)/python benchmarks/observe_drain.py

.PHONY: statsd
statsd: setup ## every measure in every dialect to the real StatsD server (needs Node.js)
	$(BIN)/python tests/metrics/real_statsd.py

.PHONY: setup
setup: ## only create .venv and install everything into it
	@tools/setup test

.PHONY: clean
clean: ## remove the environment, caches and built files
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
