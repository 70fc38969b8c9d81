# One target a stage; this is the only shell. `make help` lists the targets, README.md says more.
# Variables are taken from the command line alone, so that a NAME or SET of the environment changes nothing.
VARIABLES := CONFIG OVERRIDE SET SRC NAME SIZE COUNT RUN NPROC LIMIT_STEPS DRY_RUN REBUILD RESCAN ARGS PYTHON
VARIABLES += SOURCE CHECK CONTACT LIMIT MAKES YEARS PROVIDER OPEN PORT HOST BRAND N TRUNCATION PRETRAINED FORCE
VARIABLES += BENCH ENGINE OUT CHECKPOINT VERSION KIND LABEL ORDINARY CONCEPT INTENSITY STYLE FUTURISM SEEDS RANGE
SWITCHES := DRY_RUN REBUILD RESCAN OPEN PRETRAINED CHECK FORCE
YES := 1 y Y yes Yes YES true True TRUE on On ON
NO := 0 n N no No NO false False FALSE off Off OFF

GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $(v))),$(v)))
UNKNOWN := $(filter-out $(VARIABLES) PIP_% STUDIOGAN_% CARFORGE_% MAKE% GNUMAKEFLAGS MFLAGS SHELL VPATH SUFFIXES CURDIR .%,$(GIVEN))
BASES := python3.12 python3.11 python3 python
NEAREST := import difflib, sys; print(difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1, 0)[0])
nearest = $(shell for base in $(BASES); do $$base -c '$(NEAREST)' '$(subst ','\'',$(1))' $(VARIABLES) 2>/dev/null && break; done)
meant = $(if $(findstring .,$(1)),OVERRIDE='$(1)=...',$(call nearest,$(1)))
$(foreach v,$(firstword $(UNKNOWN)),$(error $(v): found an unknown variable, try $(call meant,$(v)); `make help` lists them))

# Values are taken as they stand: `$$` is a dollar sign, and nothing in them is expanded or run. What is not given is empty.
taken = $(if $(filter command,$(origin $(1))),$$(value $(1)))
$(foreach v,$(sort $(VARIABLES) $(GIVEN)),$(eval override $(v) := $(call taken,$(v))))
switched = $(if $(filter $(YES),$($(1))),1,$(if $(filter-out $(NO),$($(1))),$(error $(1): found $($(1)), allowed 1 or 0)))
$(foreach v,$(SWITCHES),$(eval override $(v) := $(call switched,$(v))))
ifeq ($(CONFIG),)
  $(if $(filter CONFIG,$(GIVEN)),$(error CONFIG: found nothing, allowed a config, try CONFIG=configs/demo.yaml))
  override CONFIG := configs/demo.yaml
endif
ifneq ($(filter ~/%,$(firstword $(PYTHON))),)
  override PYTHON := $(subst ~/,$(HOME)/,$(PYTHON))
endif

# What recipes read as "$$NAME". A Python that does not look into the folder it starts in would not find Carforge.
export $(VARIABLES)
unexport PYTHONSAFEPATH

STAMP := .venv/.installed-requirements
RUNS := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
FITS := import venv, ensurepip; $(RUNS)
ifneq ($(PYTHON),)
  PY := "$$PYTHON"
  READY := given-python
else
  PY := .venv/bin/python
  READY := $(STAMP)
  # An environment whose interpreter is gone or of another version is as good as none.
  ifneq ($(wildcard .venv),)
    $(shell .venv/bin/python -c '$(FITS)' 2>/dev/null || rm -f $(STAMP))
  endif
endif

# Starts what comes after it, with --overrides and --args read as OVERRIDE and ARGS are written.
DO := $(PY) -m harness.make
MORE := $(if $(ARGS),--args "$$ARGS")
SETS := $(if $(OVERRIDE),--overrides "$$OVERRIDE")
PLAN := --config "$$CONFIG" $(SETS) $(if $(DRY_RUN),--dry-run)
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
TERMS := $(if $(ENGINE),--engine "$$ENGINE") $(OF) $(SETS)
# Several processes: torchrun's launcher, behind ours which keeps the exit code.
LAUNCH := $(if $(filter-out 1,$(NPROC)),harness.launch "$$NPROC",harness)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint doctor scrape dataset clinic reader train finetune encoder invert measure blend gallery bench studiogan
.PHONY: ablate evaluate sample configs export import benchmark studio draw given-python

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  CONFIG=configs/x.yaml  OVERRIDE='a.b=c d.e=f'  NPROC=processes  LIMIT_STEPS=n  DRY_RUN=1 (print the plan, touch nothing)"
	@echo "  PYTHON=/path/to/python (use this interpreter, install nothing)  REBUILD=1 (dataset: decide and pack anew; RESCAN=1: read every file again)"
	@echo "  ARGS='--more options'  and RUN SRC OUT NAME SIZE COUNT CHECKPOINT ... as in brackets above"
	@echo
	@echo "  Quote for your shell: SRC='my cars/\$$1' arrives as it stands. OVERRIDE: a value goes on until the next key=, or stands in quotes."
	@echo "  ARGS: words as in a shell, nothing is expanded. DRY_RUN REBUILD RESCAN OPEN PRETRAINED: 1 or 0."

setup: $(READY) ## make .venv and install what requirements.txt pins (the other targets do it by themselves)
	@$(PY) -c 'import sys; print(sys.executable)'

demo: $(READY) ## [PRETRAINED=1] the whole way from nothing to a page of futuristic designs: minutes on a CPU, goes on where it stopped
	@exec $(DO) blend demo $(PLAN) $(READY_MADE) $(MORE)

test: lint ## lint, then all tests, on up to 4 cores (those that need a GPU, photos or StudioGAN skip where these are absent)
	@OMP_NUM_THREADS=1 exec $(DO) pytest -q -n auto --maxprocesses 4 --dist loadfile $(MORE)

lint: $(READY) ## ruff and pyright
	@$(DO) ruff check .
	@$(DO) ruff format --check -q .
	@exec $(DO) pyright --pythonpath "$$($(PY) -c 'import sys; print(sys.executable)')"

doctor: $(READY) ## what is installed, what is missing, what the hardware can do
	@exec $(PY) -m harness.doctor

scrape: $(READY) ## SOURCE=kaggle|car_connection|concept|archive|folder [CONTACT= NAME= SRC= LIMIT= MAKES= YEARS= SIZE= PROVIDER= CHECK=1] pictures into data/raw/
	@exec $(DO) scrapers "$$SOURCE" $(WHERE) $(WHICH) $(if $(CHECK),--check) $(if $(DRY_RUN),--dry-run) $(MORE)

dataset: $(READY) ## SET=brands50|car_connection|concept|cifar10|procedural|folder [SRC= NAME= SIZE= COUNT=] | CONFIG= both sets of an experiment
ifeq ($(SET),)
	@exec $(DO) datasets build --stage all $(PLAN) $(FROM) $(MADE) $(MORE)
else ifeq ($(SET),procedural)
	@exec $(DO) datasets procedural $(AS) $(if $(COUNT),--count "$$COUNT") $(MORE)
else ifeq ($(SET),folder)
	@exec $(DO) datasets folder "$$SRC" $(if $(NAME),--name "$$NAME") $(AS) $(SETS) $(MORE)
else
	@exec $(DO) datasets set "$$SET" $(FROM) $(AS) $(SETS) $(MORE)
endif

clinic: $(READY) ## SET= [SIZE= OPEN=1 PORT=] | CONFIG= look at what cleaning did, decide otherwise with keys, rebuild
	@exec $(DO) datasets clinic $(if $(SET),"$$SET" $(if $(SIZE),--size "$$SIZE"),--config "$$CONFIG" $(SETS)) $(if $(OPEN),--open) $(if $(PORT),--port "$$PORT") $(MORE)

reader: $(READY) ## train the small network that reads a car's factors from a picture
	@exec $(DO) datasets reader $(MORE)

train: $(READY) ## CONFIG= [SRC= PRETRAINED=1 start from the ready-made model] train; makes the set first where it is missing, goes on where it was interrupted
	@$(DO) datasets build --stage train $(PLAN) $(FROM)
	@exec $(DO) $(LAUNCH) train $(PLAN) $(STEPS) $(READY_MADE) $(MORE)

finetune: $(READY) ## CONFIG= [SRC= PRETRAINED=1] FreezeD: fine-tune the run of `train` on the second set
	@$(DO) datasets build --stage finetune $(PLAN) $(FROM)
	@exec $(DO) $(LAUNCH) finetune $(PLAN) $(STEPS) $(READY_MADE) $(MORE)

encoder: $(READY) ## CONFIG= train the network that reads a picture back into a latent
	@exec $(DO) blend encoder $(PLAN) $(STEPS) $(MORE)

invert: $(READY) ## CONFIG= [SRC= folder or picture, KIND=ordinary|concept] find the latents of pictures; held-out ones without SRC
	@exec $(DO) blend invert $(PLAN) $(PHOTOS) $(MORE)

measure: $(READY) ## CONFIG= held-out pairs from ordinary to futuristic in steps, and how futurism follows
	@exec $(DO) blend measure $(PLAN) $(MORE)

blend: $(READY) ## CONFIG= [ORDINARY= CONCEPT= folders or pictures | SEEDS=0-31] [INTENSITY= STYLE= | FUTURISM= | RANGE=0:1:11] [NAME=] designs
	@exec $(DO) blend blend $(PLAN) $(PARENTS) $(DIALS) $(if $(NAME),--name "$$NAME") $(MORE)

gallery: $(READY) ## CONFIG= write the page: runs/<name>/report.html
	@exec $(DO) blend gallery $(PLAN) $(MORE)

studio: $(READY) ## [RUN= OPEN=1 PORT= HOST=] the page: drop two pictures, move a slider; opens the demo's run, before that the ready-made model
	@exec $(DO) blend studio $(if $(RUN),--run "$$RUN") $(if $(OPEN),--open) $(if $(PORT),--port "$$PORT") $(if $(HOST),--host "$$HOST") $(MORE)

draw: $(READY) ## SRC=design.json [OUT= FORCE=1] a design that the studio exported, drawn again bit for bit
	@exec $(DO) blend draw "$$SRC" $(if $(OUT),--out "$$OUT") $(if $(FORCE),--force) $(MORE)

evaluate: $(READY) ## RUN= [CHECKPOINT=best] FID or FD, KID, F_8, precision and recall of a run, beside real pictures
	@exec $(DO) harness evaluate "$$RUN" $(AT) $(SETS) $(MORE)

sample: $(READY) ## RUN= [BRAND=name|number|random|all|audi:0.6,porsche:0.4 N=36 TRUNCATION=0.7 OUT=folder CHECKPOINT=best FORCE=1] cars, as a grid or one by one
	@exec $(DO) harness sample "$$RUN" $(if $(BRAND),--brand "$$BRAND") $(if $(N),--count "$$N") $(if $(OUT),--out "$$OUT") $(if $(TRUNCATION),--truncation "$$TRUNCATION") $(AT) $(if $(FORCE),--force) $(MORE)

configs: $(READY) ## CONFIG= [VERSION=0.4.0] write what StudioGAN would be given: runs/<name>/studiogan.json
	@exec $(DO) harness configs --config "$$CONFIG" $(SETS) $(if $(VERSION),--set studiogan.version="$$VERSION") $(MORE)

export: $(READY) ## RUN= OUT= [VERSION=0.4.0 CHECKPOINT=best FORCE=1] a run's weights as StudioGAN's own files
	@exec $(DO) harness export "$$RUN" $(if $(OUT),--out "$$OUT") $(OF) $(AT) $(if $(FORCE),--force) $(MORE)

import: $(READY) ## SRC= NAME= StudioGAN's weights (a folder, or a generator's .pth) as a run of ours
	@exec $(DO) harness import "$$SRC" $(if $(NAME),--name "$$NAME") $(SETS) $(MORE)

benchmark: $(READY) ## BENCH=CIFAR10/SNGAN [ENGINE=native|studiogan|both SRC= LIMIT_STEPS= VERSION=] StudioGAN's published figures beside ours
	@$(if $(DRY_RUN),exit 0;) plan=$$($(DO) harness benchmark "$$BENCH" --plan $(TERMS)) \
	&& $(DO) datasets build --stage train --config "$$plan" $(FROM) $(MADE) >/dev/null
	@exec $(DO) harness benchmark "$$BENCH" $(TERMS) $(STEPS) $(if $(DRY_RUN),--dry-run) $(MORE)

bench: $(READY) ## speed: each switch on and off, one thread, CPU time
	@exec $(DO) harness bench $(MORE)

ablate: $(READY) ## CONFIG= each stabiliser off in turn, two seeds: a table of KID, diversity and, with classes, brand accuracy
	@$(DO) datasets build --stage train $(PLAN) $(FROM)
	@$(if $(DRY_RUN),exit 0;) exec $(DO) harness.benchmarks.ablation --config "$$CONFIG" $(SETS) $(MORE)

studiogan: $(READY) ## [VERSION=0.4.0] clone StudioGAN (0.2.0) into third_party/ with an environment of its own
	@exec $(DO) harness studiogan $(if $(VERSION),--version "$$VERSION") $(MORE)

given-python:
	@$(PY) -c '$(RUNS)' 2>/dev/null || { printf 'PYTHON: found %s, which does not run as Python 3.11 or 3.12; allowed one that has the dependencies\n' "$$PYTHON" >&2; exit 2; }

# The stamp is a copy of the requirements that were installed. It goes before anything is changed and comes back at the
# very end; .venv/.unfinished tells an interrupted installation (thrown away) from an environment that was made by hand.
$(STAMP): requirements.txt
	@if cmp -s requirements.txt $(STAMP); then touch $(STAMP); exit 0; fi; \
	if [ -e .venv/.unfinished ] || ! .venv/bin/python -c '$(FITS)' 2>/dev/null; then rm -rf .venv; fi; \
	if [ ! -e .venv ]; then \
	    for base in $(BASES) none; do \
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
