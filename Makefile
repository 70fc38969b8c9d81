# One target a stage; this is the only shell. `make help` lists the targets, README.md says more.
# Variables are taken from the command line alone, so that a NAME or SET of the environment changes nothing.
VARIABLES := CONFIG OVERRIDE SET SRC NAME SIZE COUNT RUN NPROC LIMIT_STEPS DRY_RUN REBUILD RESCAN ARGS PYTHON
VARIABLES += SOURCE CHECK CONTACT LIMIT MAKES YEARS PROVIDER OPEN PORT HOST BRAND N TRUNCATION PRETRAINED
VARIABLES += BENCH ENGINE OUT CHECKPOINT VERSION KIND LABEL ORDINARY CONCEPT INTENSITY STYLE FUTURISM SEEDS RANGE
$(foreach v,$(VARIABLES),$(if $(filter command,$(origin $(v))),,$(eval $(v) :=)))

# What recipes read as "$$NAME": no quoting of spaces or braces is needed.
export CONFIG := $(or $(CONFIG),configs/demo.yaml)
export SET SOURCE CONTACT LIMIT MAKES YEARS PROVIDER PORT HOST BRAND N TRUNCATION
export BENCH ENGINE OUT CHECKPOINT RUN VERSION SRC NAME SIZE COUNT NPROC LIMIT_STEPS KIND LABEL ORDINARY CONCEPT INTENSITY STYLE FUTURISM SEEDS RANGE

STAMP := .venv/.installed-requirements
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
ifneq ($(PYTHON),)
  PY := $(PYTHON)
  READY := given-python
else
  PY := .venv/bin/python
  READY := $(STAMP)
  # An environment whose interpreter is gone or of another version is as good as none.
  ifneq ($(wildcard .venv),)
    $(shell .venv/bin/python -c '$(FITS)' 2>/dev/null || rm -f $(STAMP))
  endif
endif

PLAN := --config "$$CONFIG" $(foreach o,$(OVERRIDE),--set '$(o)') $(if $(DRY_RUN),--dry-run)
MADE := $(if $(REBUILD),--rebuild) $(if $(RESCAN),--rescan)
FROM := $(if $(SRC),--src "$$SRC")
READY_MADE := $(if $(PRETRAINED),--pretrained)
STEPS := $(if $(LIMIT_STEPS),--limit-steps "$$LIMIT_STEPS")
CLASS := $(if $(LABEL),--label "$$LABEL")
PHOTOS := $(FROM) $(if $(KIND),--kind "$$KIND") $(CLASS)
PARENTS := $(if $(ORDINARY),--ordinary "$$ORDINARY") $(if $(CONCEPT),--concept "$$CONCEPT") $(if $(SEEDS),--seeds "$$SEEDS")
DIALS := $(if $(INTENSITY),--intensity "$$INTENSITY") $(if $(STYLE),--style "$$STYLE") $(if $(FUTURISM),--futurism "$$FUTURISM")
DIALS += $(CLASS) $(if $(RANGE),--range "$$RANGE")
AS := $(if $(SIZE),--size "$$SIZE") $(MADE) $(if $(DRY_RUN),--dry-run)
WHERE := $(FROM) $(if $(NAME),--set "$$NAME") $(if $(CONTACT),--contact "$$CONTACT") $(if $(LIMIT),--limit "$$LIMIT")
WHICH := $(if $(MAKES),--makes "$$MAKES") $(if $(YEARS),--years "$$YEARS") $(if $(SIZE),--size "$$SIZE") $(if $(PROVIDER),--provider "$$PROVIDER")
OF := $(if $(VERSION),--version "$$VERSION")
AT := $(if $(CHECKPOINT),--checkpoint "$$CHECKPOINT")
TERMS = $(if $(ENGINE),--engine "$$ENGINE") $(OF) $(SETS)
SETS := $(foreach o,$(OVERRIDE),--set '$(o)')
# Several processes: torchrun's launcher, behind ours which keeps the exit code.
LAUNCH := $(if $(filter-out 1,$(NPROC)),-m harness.launch "$$NPROC",-m harness)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint doctor scrape dataset clinic reader train finetune encoder invert measure blend gallery bench studiogan
.PHONY: ablate evaluate sample configs export import benchmark studio draw given-python

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  CONFIG=configs/x.yaml  OVERRIDE='a.b=c d.e=f'  NPROC=processes  LIMIT_STEPS=n  DRY_RUN=1 (print the plan, touch nothing)"
	@echo "  PYTHON=/path/to/python (use this interpreter, install nothing)  REBUILD=1 (dataset: decide and pack anew; RESCAN=1: read every file again)  ARGS=more options"

setup: $(READY) ## make .venv and install what requirements.txt pins (the other targets do it by themselves)
	@$(PY) -c 'import sys; print(sys.executable)'

demo: $(READY) ## [PRETRAINED=1] the whole way from nothing to a page of futuristic designs: minutes on a CPU, goes on where it stopped
	@exec $(PY) -m blend demo $(PLAN) $(READY_MADE) $(ARGS)

test: lint ## lint, then all tests, on up to 4 cores (those that need a GPU, photos or StudioGAN skip where these are absent)
	@OMP_NUM_THREADS=1 exec $(PY) -m pytest -q -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(READY) ## ruff and pyright
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check -q .
	@exec $(PY) -m pyright --pythonpath "$$($(PY) -c 'import sys; print(sys.executable)')"

doctor: $(READY) ## what is installed, what is missing, what the hardware can do
	@exec $(PY) -m harness.doctor

scrape: $(READY) ## SOURCE=kaggle|car_connection|concept|archive|folder [CONTACT= NAME= SRC= LIMIT= MAKES= YEARS= SIZE= PROVIDER= CHECK=1] pictures into data/raw/
	@exec $(PY) -m scrapers "$$SOURCE" $(WHERE) $(WHICH) $(if $(CHECK),--check) $(if $(DRY_RUN),--dry-run) $(ARGS)

dataset: $(READY) ## SET=brands50|car_connection|concept|cifar10|procedural|folder [SRC= NAME= SIZE= COUNT=] | CONFIG= both sets of an experiment
ifeq ($(SET),)
	@exec $(PY) -m datasets build --stage all $(PLAN) $(FROM) $(MADE) $(ARGS)
else ifeq ($(SET),procedural)
	@exec $(PY) -m datasets procedural $(AS) $(if $(COUNT),--count "$$COUNT") $(ARGS)
else ifeq ($(SET),folder)
	@exec $(PY) -m datasets folder "$$SRC" $(if $(NAME),--name "$$NAME") $(AS) $(SETS) $(ARGS)
else
	@exec $(PY) -m datasets set "$$SET" $(FROM) $(AS) $(SETS) $(ARGS)
endif

clinic: $(READY) ## SET= [SIZE= OPEN=1 PORT=] | CONFIG= look at what cleaning did, decide otherwise with keys, rebuild
	@exec $(PY) -m datasets clinic $(if $(SET),"$$SET" $(if $(SIZE),--size "$$SIZE"),--config "$$CONFIG" $(SETS)) $(if $(OPEN),--open) $(if $(PORT),--port "$$PORT") $(ARGS)

reader: $(READY) ## train the small network that reads a car's factors from a picture
	@exec $(PY) -m datasets reader $(ARGS)

train: $(READY) ## CONFIG= [SRC= PRETRAINED=1 start from the ready-made model] train; makes the set first where it is missing, goes on where it was interrupted
	@$(PY) -m datasets build --stage train $(PLAN) $(FROM)
	@exec $(PY) $(LAUNCH) train $(PLAN) $(STEPS) $(READY_MADE) $(ARGS)

finetune: $(READY) ## CONFIG= [SRC= PRETRAINED=1] FreezeD: fine-tune the run of `train` on the second set
	@$(PY) -m datasets build --stage finetune $(PLAN) $(FROM)
	@exec $(PY) $(LAUNCH) finetune $(PLAN) $(STEPS) $(READY_MADE) $(ARGS)

encoder: $(READY) ## CONFIG= train the network that reads a picture back into a latent
	@exec $(PY) -m blend encoder $(PLAN) $(STEPS) $(ARGS)

invert: $(READY) ## CONFIG= [SRC= folder or picture, KIND=ordinary|concept] find the latents of pictures; held-out ones without SRC
	@exec $(PY) -m blend invert $(PLAN) $(PHOTOS) $(ARGS)

measure: $(READY) ## CONFIG= held-out pairs from ordinary to futuristic in steps, and how futurism follows
	@exec $(PY) -m blend measure $(PLAN) $(ARGS)

blend: $(READY) ## CONFIG= [ORDINARY= CONCEPT= folders or pictures | SEEDS=0-31] [INTENSITY= STYLE= | FUTURISM= | RANGE=0:1:11] [NAME=] designs
	@exec $(PY) -m blend blend $(PLAN) $(PARENTS) $(DIALS) $(if $(NAME),--name "$$NAME") $(ARGS)

gallery: $(READY) ## CONFIG= write the page: runs/<name>/report.html
	@exec $(PY) -m blend gallery $(PLAN) $(ARGS)

studio: $(READY) ## [RUN= OPEN=1 PORT= HOST=] the page: drop two pictures, move a slider; opens the demo's run, before that the ready-made model
	@exec $(PY) -m blend studio $(if $(RUN),--run "$$RUN") $(if $(OPEN),--open) $(if $(PORT),--port "$$PORT") $(if $(HOST),--host "$$HOST") $(ARGS)

draw: $(READY) ## SRC=design.json [OUT=] a design that the studio exported, drawn again bit for bit
	@exec $(PY) -m blend draw "$$SRC" $(if $(OUT),--out "$$OUT") $(ARGS)

evaluate: $(READY) ## RUN= [CHECKPOINT=best] FID or FD, KID, F_8, precision and recall of a run, beside real pictures
	@exec $(PY) -m harness evaluate "$$RUN" $(AT) $(SETS) $(ARGS)

sample: $(READY) ## RUN= [BRAND=name|number|random|all|audi:0.6,porsche:0.4 N=36 TRUNCATION=0.7 OUT=folder CHECKPOINT=best] cars, as a grid or one by one
	@exec $(PY) -m harness sample "$$RUN" $(if $(BRAND),--brand "$$BRAND") $(if $(N),--count "$$N") $(if $(OUT),--out "$$OUT") $(if $(TRUNCATION),--truncation "$$TRUNCATION") $(AT) $(ARGS)

configs: $(READY) ## CONFIG= [VERSION=0.4.0] write what StudioGAN would be given: runs/<name>/studiogan.json
	@exec $(PY) -m harness configs --config "$$CONFIG" $(SETS) $(if $(VERSION),--set studiogan.version="$$VERSION") $(ARGS)

export: $(READY) ## RUN= OUT= [VERSION=0.4.0 CHECKPOINT=best] a run's weights as StudioGAN's own files
	@exec $(PY) -m harness export "$$RUN" $(if $(OUT),--out "$$OUT") $(OF) $(AT) $(ARGS)

import: $(READY) ## SRC= NAME= StudioGAN's weights (a folder, or a generator's .pth) as a run of ours
	@exec $(PY) -m harness import "$$SRC" $(if $(NAME),--name "$$NAME") $(SETS) $(ARGS)

benchmark: $(READY) ## BENCH=CIFAR10/SNGAN [ENGINE=native|studiogan|both SRC= LIMIT_STEPS= VERSION=] StudioGAN's published figures beside ours
	@$(if $(DRY_RUN),exit 0;) plan=$$($(PY) -m harness benchmark "$$BENCH" --plan $(TERMS)) \
	&& $(PY) -m datasets build --stage train --config "$$plan" $(FROM) $(MADE) >/dev/null
	@exec $(PY) -m harness benchmark "$$BENCH" $(TERMS) $(STEPS) $(if $(DRY_RUN),--dry-run) $(ARGS)

bench: $(READY) ## speed: each switch on and off, one thread, CPU time
	@exec $(PY) -m harness bench $(ARGS)

ablate: $(READY) ## CONFIG= each stabiliser off in turn, two seeds: a table of KID, diversity and, with classes, brand accuracy
	@$(PY) -m datasets build --stage train $(PLAN) $(FROM)
	@$(if $(DRY_RUN),exit 0;) exec $(PY) -m harness.benchmarks.ablation --config "$$CONFIG" $(SETS) $(ARGS)

studiogan: $(READY) ## [VERSION=0.4.0] clone StudioGAN (0.2.0) into third_party/ with an environment of its own
	@exec $(PY) -m harness studiogan $(if $(VERSION),--version "$$VERSION") $(ARGS)

given-python:
	@$(PY) -c '' 2>/dev/null || { echo "PYTHON: found $(PYTHON), which does not run; allowed a Python 3.11 or 3.12 that has the dependencies" >&2; exit 2; }

# The stamp is a copy of the requirements that were installed. It goes before anything is changed and comes back at the
# very end; .venv/.unfinished tells an interrupted installation (thrown away) from an environment that was made by hand.
$(STAMP): requirements.txt
	@if cmp -s requirements.txt $(STAMP); then touch $(STAMP); exit 0; fi; \
	if [ -e .venv/.unfinished ] || ! .venv/bin/python -c '$(FITS)' 2>/dev/null; then rm -rf .venv; fi; \
	if [ ! -e .venv ]; then \
	    for base in python3.12 python3.11 python3 python none; do \
	        $$base -c '$(FITS)' 2>/dev/null && break; \
	    done; \
	    [ $$base != none ] || { echo "python: found no Python 3.11 or 3.12 with venv; install one, or name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 2; }; \
	    echo "setup: making .venv with $$($$base --version)" >&2; \
	fi; \
	mkdir -p .venv; rm -f $(STAMP); touch .venv/.unfinished; \
	[ -x .venv/bin/python ] || $$base -m venv .venv || exit 2; \
	echo "setup: installing requirements.txt into .venv (once; minutes)" >&2; \
	.venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt >&2 || exit 2; \
	cp requirements.txt $(STAMP); rm -f .venv/.unfinished
