# One target a stage; this is the only shell. `make help` lists the targets, README.md and docs/ say more.
# Variables are taken from the command line alone, so that a NAME or SET of the environment changes nothing.
# Those that a target takes stand above it after `#~`, each with an example.
TAKEN := $(shell awk '/^.~/ { for (i = 2; i <= NF; i++) { sub("=.*", "", $$i); names = names " " $$i } } \
    /^[a-z-]+:/ { sub(":.*", ""); n = split(names, each, " "); for (i = 1; i <= n; i++) print $$0 ":" each[i]; names = "" }' Makefile)
of_target = $(patsubst $(1):%,%,$(filter $(1):%,$(TAKEN)))
EVERYWHERE := ARGS PYTHON
VARIABLES := $(sort $(EVERYWHERE) BRAND $(foreach word,$(TAKEN),$(lastword $(subst :, ,$(word)))))
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
# BRAND is another name of LABEL.
ifneq ($(BRAND),)
  $(if $(LABEL),$(error BRAND: found beside LABEL, which is the same, allowed one of them))
  override LABEL := $(BRAND)
  override GIVEN := $(subst BRAND,LABEL,$(GIVEN))
endif
# What no target of this call takes would change nothing, so it is refused.
ifeq ($(filter help $(STAMP),$(or $(MAKECMDGOALS),help)),)
  GOALS_TAKE := $(sort $(EVERYWHERE) $(foreach goal,$(MAKECMDGOALS),$(call of_target,$(goal))))
  IDLE := $(firstword $(filter-out $(GOALS_TAKE),$(filter $(VARIABLES),$(GIVEN))))
  $(if $(IDLE),$(error $(IDLE): found with `make $(MAKECMDGOALS)`, which does not take it, allowed $(GOALS_TAKE)))
endif
ifneq ($(RUN),)
  $(if $(filter CONFIG,$(GIVEN)),$(error RUN: found beside CONFIG, allowed one of them: RUN= for a run that is there, CONFIG= for a new one))
endif
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
NEW_RUN := --config "$$CONFIG" $(SETS) $(if $(DRY_RUN),--dry-run)
PLAN := $(if $(RUN),--run "$$RUN" $(SETS) $(if $(DRY_RUN),--dry-run),$(NEW_RUN))
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
.PHONY: help setup demo studio test lint doctor clean-cache scrape dataset clinic train finetune encoder invert measure blend gallery
.PHONY: sample draw evaluate ablate bench benchmark studiogan configs export import reader given-python

help: ## this list
	@awk '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	    /^.~ / { variables = variables "\n               " substr($$0, 4) } \
	    /^[a-z-]+:.*## / { name = $$1; sub(":", "", name); sub("^[^#]*## ", ""); printf "  %-12s %s%s\n", name, $$0, variables; variables = "" }' Makefile
	@echo
	@echo "CONFIG= names an experiment, RUN= a run that is there (a folder of runs/). OVERRIDE='a.b=c d.e=f' changes keys of its config;"
	@echo "beside RUN= only those that training does not depend on. OUT= is a place outside the run, NAME= a name inside data/ or runs/."
	@echo "Switches (DRY_RUN=1 and the like) take 1 or 0. Every target takes ARGS='--more options' and PYTHON=/path/to/python, which uses"
	@echo "that interpreter and installs nothing. Quote for your shell: SRC='my cars/\$$1' arrives as it stands."

##@ Start here
#~ CONFIG=configs/demo.yaml RUN=photos OVERRIDE=section.key=value PRETRAINED=1 DRY_RUN=1
demo: $(READY) ## train on drawn cars and make a page of designs: a quarter of an hour on a CPU; resumes where it stopped
	@exec $(DO) blend demo $(PLAN) $(READY_MADE) $(MORE)

#~ RUN=demo OPEN=1 PORT=8000 HOST=0.0.0.0 OVERRIDE=blend.latent_share=0.2
studio: $(READY) ## the designer's page; opens your demo run, or the ready-made model until there is one
	@exec $(DO) blend studio $(if $(RUN),--run "$$RUN") $(if $(OPEN),--open) $(if $(PORT),--port "$$PORT") $(if $(HOST),--host "$$HOST") $(SETS) $(MORE)

setup: $(READY) ## make .venv and install requirements.txt (other targets do this by themselves)
	@$(PY) -c 'import sys; print(sys.executable)'

doctor: $(READY) ## what is installed, what is missing, what the hardware can do
	@exec $(PY) -m harness.doctor

clean-cache: $(READY) ## what data/ and runs/ take on the disk; removes what can be made again, after a yes
	@exec $(DO) harness.clean_cache $(MORE)

##@ Pictures
#~ SOURCE=kaggle|car_connection|concept|archive|folder CONTACT=you@your.domain LIMIT=500 SRC=file NAME=my-cars
#~ MAKES=audi,bmw YEARS=2015-2020 SIZE=64 PROVIDER=list|search CHECK=1 DRY_RUN=1
scrape: $(READY) ## fetch pictures into data/raw/
	@exec $(DO) scrapers "$$SOURCE" $(WHERE) $(WHICH) $(if $(CHECK),--check) $(if $(DRY_RUN),--dry-run) $(MORE)

#~ SET=brands50|car_connection|concept|cifar10|procedural|folder SRC=folder NAME=my-cars SIZE=128x224 COUNT=1000
#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value REBUILD=1 RESCAN=1 DRY_RUN=1
dataset: $(READY) ## build training sets: a named one, one from your pictures, or both of an experiment
ifeq ($(SET),)
	@exec $(DO) datasets build --stage all $(PLAN) $(FROM) $(MADE) $(MORE)
else ifeq ($(SET),procedural)
	@exec $(DO) datasets procedural $(AS) $(if $(COUNT),--count "$$COUNT") $(MORE)
else ifeq ($(SET),folder)
	@exec $(DO) datasets folder "$$SRC" $(if $(NAME),--name "$$NAME") $(AS) $(SETS) $(MORE)
else
	@exec $(DO) datasets set "$$SET" $(FROM) $(AS) $(SETS) $(MORE)
endif

#~ SET=my-cars SIZE=128x224 CONFIG=configs/x.yaml OVERRIDE=section.key=value OPEN=1 PORT=8000
clinic: $(READY) ## a page to review what cleaning did, decide otherwise, and rebuild
	@exec $(DO) datasets clinic $(if $(SET),"$$SET" $(if $(SIZE),--size "$$SIZE"),--config "$$CONFIG" $(SETS)) $(if $(OPEN),--open) $(if $(PORT),--port "$$PORT") $(MORE)

##@ Training
#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value SRC=folder PRETRAINED=1 LIMIT_STEPS=200 NPROC=2 DRY_RUN=1
train: $(READY) ## train a generator; builds its set first where it is missing, resumes where it stopped
	@$(DO) datasets build --stage train $(PLAN) $(FROM)
	@exec $(DO) $(LAUNCH) train $(PLAN) $(STEPS) $(READY_MADE) $(MORE)

#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value SRC=folder PRETRAINED=1 LIMIT_STEPS=200 NPROC=2 DRY_RUN=1
finetune: $(READY) ## FreezeD: fine-tune that generator on the second set
	@$(DO) datasets build --stage finetune $(PLAN) $(FROM)
	@exec $(DO) $(LAUNCH) finetune $(PLAN) $(STEPS) $(READY_MADE) $(MORE)

#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value LIMIT_STEPS=200 DRY_RUN=1
encoder: $(READY) ## train the network that turns a picture into a latent
	@exec $(DO) blend encoder $(PLAN) $(STEPS) $(MORE)

##@ Designs
#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value SRC=folder KIND=ordinary|concept LABEL=audi DRY_RUN=1
invert: $(READY) ## find the latents of your pictures, or of held-out ones
	@exec $(DO) blend invert $(PLAN) $(PHOTOS) $(MORE)

#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value DRY_RUN=1
measure: $(READY) ## how well the dial controls futurism, on pairs of held-out pictures
	@exec $(DO) blend measure $(PLAN) $(MORE)

#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value ORDINARY=folder CONCEPT=folder SEEDS=0-31 DRY_RUN=1
#~ INTENSITY=0.7 STYLE=1 FUTURISM=70 RANGE=0:1:11 LABEL=audi NAME=mine
blend: $(READY) ## draw designs from pairs of cars
	@exec $(DO) blend blend $(PLAN) $(PARENTS) $(DIALS) $(if $(NAME),--name "$$NAME") $(MORE)

#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value DRY_RUN=1
gallery: $(READY) ## write the page of a run: runs/<name>/report.html
	@exec $(DO) blend gallery $(PLAN) $(MORE)

#~ RUN=demo CHECKPOINT=best N=36 LABEL=audi|random|all|audi:0.6,porsche:0.4 TRUNCATION=0.7 OUT=folder FORCE=1
#~ OVERRIDE=reconstruction.sample_passes=2
sample: $(READY) ## draw cars, as a grid or one by one
	@exec $(DO) harness sample "$$RUN" $(CLASS) $(if $(N),--count "$$N") $(if $(OUT),--out "$$OUT") $(if $(TRUNCATION),--truncation "$$TRUNCATION") $(AT) $(if $(FORCE),--force) $(SETS) $(MORE)

#~ SRC=design.json OUT=file.png FORCE=1
draw: $(READY) ## redraw a design exported from the studio, bit for bit
	@exec $(DO) blend draw "$$SRC" $(if $(OUT),--out "$$OUT") $(if $(FORCE),--force) $(MORE)

##@ Evaluation
#~ RUN=demo CHECKPOINT=best OVERRIDE=evaluate.features=inception
evaluate: $(READY) ## FID or FD, KID, F_8, precision and recall of a run
	@exec $(DO) harness evaluate "$$RUN" $(AT) $(SETS) $(MORE)

#~ CONFIG=configs/x.yaml OVERRIDE=section.key=value SRC=folder OUT=table.md DRY_RUN=1
ablate: $(READY) ## train with each stabiliser off in turn, two seeds: a table
	@$(DO) datasets build --stage train $(NEW_RUN) $(FROM)
	@$(if $(DRY_RUN),exit 0;) exec $(DO) harness.benchmarks.ablation --config "$$CONFIG" $(SETS) $(if $(OUT),--out "$$OUT") $(MORE)

bench: $(READY) ## speed: each switch on and off, one thread, CPU time
	@exec $(DO) harness bench $(MORE)

##@ StudioGAN
#~ VERSION=0.4.0
studiogan: $(READY) ## clone StudioGAN (0.2.0) into third_party/, with an environment of its own
	@exec $(DO) harness studiogan $(if $(VERSION),--version "$$VERSION") $(MORE)

#~ BENCH=CIFAR10/SNGAN ENGINE=native|studiogan|both SRC=folder LIMIT_STEPS=200 VERSION=0.4.0 OVERRIDE=section.key=value
#~ REBUILD=1 RESCAN=1 DRY_RUN=1
benchmark: $(READY) ## train one of StudioGAN's configs and compare with the published figures
	@$(if $(DRY_RUN),exit 0;) plan=$$($(DO) harness benchmark "$$BENCH" --plan $(TERMS)) \
	&& $(DO) datasets build --stage train --config "$$plan" $(FROM) $(MADE) >/dev/null
	@exec $(DO) harness benchmark "$$BENCH" $(TERMS) $(STEPS) $(if $(DRY_RUN),--dry-run) $(MORE)

#~ CONFIG=configs/x.yaml RUN=demo OVERRIDE=section.key=value VERSION=0.4.0
configs: $(READY) ## write what StudioGAN would be given: runs/<name>/studiogan.json
	@exec $(DO) harness configs $(if $(RUN),--run "$$RUN",--config "$$CONFIG") $(SETS) $(if $(VERSION),--set studiogan.version="$$VERSION") $(MORE)

#~ RUN=demo CHECKPOINT=best OUT=folder VERSION=0.4.0 FORCE=1
export: $(READY) ## a run's weights as StudioGAN's own files
	@exec $(DO) harness export "$$RUN" $(if $(OUT),--out "$$OUT") $(OF) $(AT) $(if $(FORCE),--force) $(MORE)

#~ SRC=folder NAME=new-run OVERRIDE=section.key=value
import: $(READY) ## StudioGAN's weights (a folder, or a generator's .pth) as a run of ours
	@exec $(DO) harness import "$$SRC" $(if $(NAME),--name "$$NAME") $(SETS) $(MORE)

##@ Development
test: lint ## lint, then the tests that this machine can run, on up to 4 cores; prints the ten slowest
	@OMP_NUM_THREADS=1 exec $(DO) pytest -q -n auto --maxprocesses 4 --dist loadfile --durations 10 $(MORE)

lint: $(READY) ## ruff and pyright
	@$(DO) ruff check .
	@$(DO) ruff format --check -q .
	@exec $(DO) pyright --pythonpath "$$($(PY) -c 'import sys; print(sys.executable)')"

reader: $(READY) ## train the small network that reads a drawn car's factors from a picture
	@exec $(DO) datasets reader $(MORE)

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
	echo "setup: installing requirements.txt into .venv (once, takes minutes)" >&2; \
	.venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt >&2 || exit 2; \
	cp requirements.txt $(STAMP); rm -f .venv/.unfinished
