# make demo | make test | make test-slow | make test-long | make test-milvus | make test-addons | make typecheck | make coverage |
# make docs | make bench | make bench-gpu | make venv.
# Each builds the environment it needs, once.

PYTHON ?= python3
PYTHON_ADDONS ?= $(shell for p in python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
PY ?= .venv/bin/python
EET ?= $(PY) -m eet_tf
RUN ?= runs/demo
PHOTOS ?= runs/synthetic_photos
# most tests spend their time in Python, on one core; files stay whole, so that what one of them sets up is shared, and
# keep the order of tests/conftest.py
TWO_AT_ONCE ?= --numprocesses=2 --dist=loadfile --no-loadscope-reorder

.PHONY: bench bench-gpu coverage demo docs test test-addons test-long test-milvus test-slow typecheck venv venv-addons venv-docs
.DELETE_ON_ERROR:

venv: .venv/complete
venv-addons: .venv-addons/complete
venv-docs: .venv-docs/complete

.venv/complete: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.10 to 3.13 is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "This Python cannot make environments. On Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[beam,hub,milvus,milvus-server,parquet,remote,serving,test]'
	@touch $@

.venv-addons/complete: setup.py constraints-addons.txt
	@test -n "$(PYTHON_ADDONS)" || \
		{ echo "tensorflow-addons needs Python 3.10 or 3.11: make PYTHON_ADDONS=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON_ADDONS) -m venv --clear .venv-addons
	.venv-addons/bin/python -m pip install --quiet --constraint constraints-addons.txt --editable '.[addons,serving,test]'
	@touch $@

# the site is made from the source as text, so this environment has no TensorFlow
.venv-docs/complete: constraints-docs.txt
	@$(PYTHON) -c 'import sys; sys.exit(not sys.version_info >= (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement constraints-docs.txt
	@touch $@

# the whole way on drawn product photos: learn, export, index, search, report
demo: venv
	$(EET) train --strategy=mirrored --dataset=synthetic --data=$(PHOTOS) --model_dir=$(RUN) $(DEMO_FLAGS)
	$(EET) export --model=$(RUN)
	$(EET) index build --saved_model=$(RUN)/serving --data=$(PHOTOS) --split=test
	$(EET) search $(PHOTOS)/$$(awk -F, '$$4 == "test" { print $$1; exit }' $(PHOTOS)/catalog.csv) \
		--index_dir=$(RUN)/index --k=5
	$(EET) report --model_dir=$(RUN) --index_dir=$(RUN)/index

# all tests but those of test-slow, test-long and test-milvus, which would make it too long to be run before each commit
test: typecheck
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m pytest $(TWO_AT_ONCE) -m 'not slow and not compiled and not long and not milvus_server'

# what XLA makes of every loss in every setting and of a training step, replicas, catalogues, the commands one by one
test-slow: venv
	.venv/bin/python -m pytest $(TWO_AT_ONCE) -m '(slow or compiled) and not long'

# the numbers that XLA makes of every loss at five sizes, on one replica and two; every loss trained on two replicas and in
# bfloat16; the memory of large batches; the search graph; trainings by commands, benchmarks and examples, several workers,
# the wheel, and the README's on real photos: before a release, and after a change of what they try
test-long: venv
	.venv/bin/python -m pytest $(TWO_AT_ONCE) -m long

# the index harness and what only a cluster does, against a real Milvus that the tests start, kill and freeze; skipped with
# the reason where none can be started
test-milvus: venv
	.venv/bin/python -m pytest $(TWO_AT_ONCE) -m milvus_server tests/index

typecheck: venv
	.venv/bin/python -m mypy

# the tests, and which lines and branches of eet_tf/ they run; fails below the share that pyproject.toml asks for
coverage: venv
	.venv/bin/python -m pytest --cov --cov-report=term-missing:skip-covered $(TWO_AT_ONCE)

# the documentation as a site in site/; a broken link or an undocumented argument is an error
docs: venv-docs
	.venv-docs/bin/python -m mkdocs build --strict

# the tests in the second supported set of versions, trainings with tensorflow-addons among them, and what either set reads
# of the other, where .venv is there too; what needs newer packages is skipped, and says so
test-addons: venv-addons
	.venv-addons/bin/python -m pytest $(TWO_AT_ONCE) -m '(not slow or both) and not long and not milvus_server and not once'

# what test-addons leaves out and depends on the versions
test-addons-long: venv-addons
	.venv-addons/bin/python -m pytest $(TWO_AT_ONCE) -m '(long or slow and not both) and not once' \
		tests/embedder tests/losses tests/serving tests/training

# what losses, steps and photos cost here: three tables, in a quarter of an hour; nothing else should run on the machine
bench: venv
	$(PY) benchmarks/loss.py --output_dir=runs/loss
	$(PY) benchmarks/step.py --output_dir=runs/step
	$(PY) benchmarks/pipeline.py --output_dir=runs/pipeline

# what losses, steps, a training, serving and evaluation cost on the first GPU, in at most 6 minutes; the same command goes
# on with what is missing
bench-gpu: venv
	$(PY) benchmarks/gpu.py --output_dir=runs/gpu
