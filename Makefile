# make help lists what there is.
GO ?= go
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/authvigil
IDP := $(CACHE)/idp
TREE := $(CACHE)/bookworm
MACHINE := $(CACHE)/machine
SERVERS := AUTHVIGIL_IDP_MODULES=$(IDP) AUTHVIGIL_TREE=$(TREE)

.PHONY: help build release run test race integration integration-deps bench eval machine soak fuzz docs pictures gosec check clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

build: ## build ./authvigil
	CGO_ENABLED=0 $(GO) build -trimpath -o authvigil ./cmd/authvigil

run: build ## the daemon against its own sandbox on loopback
	./authvigil demo

test: ## all hermetic tests
	$(GO) vet ./...
	$(GO) test ./...

race: ## the same with the race detector
	$(GO) test -race ./...

integration-deps:
	packaging/integration-deps.sh $(IDP) $(TREE)

integration: integration-deps ## the built program against real servers
	$(GO) vet -tags integration ./...
	$(SERVERS) $(GO) test -tags integration -count=1 -timeout 20m -v ./cmd/authvigil/integration

bench: ## benchmarks with their ratios
	$(GO) test -run "^$$" -bench . -benchtime 1s ./agent/... ./probes/... ./exporters/...
	packaging/bench-logs.sh
	$(GO) test -tags integration -run "^$$" -bench . -benchtime 1x -timeout 20m ./cmd/authvigil/integration

eval: ## verdicts on recorded failures; writes docs/evaluation.md
	$(GO) test ./agent/diagnose -run "TestEval" -count=1 -v -update

machine: ## the clock and the limits of memory in a whole machine (qemu)
	packaging/integration-deps.sh $(IDP) $(TREE) $(MACHINE)
	$(SERVERS) AUTHVIGIL_MACHINE=$(MACHINE) $(GO) test -tags integration,machine -count=1 -v -run TestMachine ./cmd/authvigil/integration

SOAK ?= 4h
soak: ## a thousand probes behind toxiproxy for SOAK: four hours here are a day at the default pace
	AUTHVIGIL_SOAK=$(SOAK) $(GO) test -tags integration,soak -count=1 -timeout 0 -v -run TestSoak ./cmd/authvigil/integration

fuzz: ## every fuzz target for a minute
	packaging/fuzz.sh 60s $(CACHE)/corpora

release: ## deb, rpm, tarball, bill of materials and checksums into dist/
	packaging/release.sh dist

docs: ## the pages that are made from the code
	$(GO) test ./cmd/authvigil -run TestDocs -update

pictures: integration-deps ## the pictures of the page in docs/
	AUTHVIGIL_SCREENSHOTS=$(CURDIR)/docs $(SERVERS) $(GO) test -tags integration -count=1 -run TestBrowser ./cmd/authvigil/integration

# Left out: files and programs that the operator names (G304, G204), names that only sound like credentials (G101), errors of
# what cannot fail or is over (G104, which errcheck of golangci-lint watches), conversions and indices with bounds that gosec does not see (G115, G602),
# and modes of files for others to read (G301, G302, G306). The sandbox is a world of faults. What remains has its reason on its line.
gosec: ## the security linter
	$(GO) tool -modfile=packaging/tools.mod gosec -quiet -exclude=G304,G204,G101,G104,G115,G602,G301,G302,G306 -exclude-dir=probes/sandbox ./...

check: ## format, vet, staticcheck, tidy, race tests
	@test -z "$$(gofmt -l .)" || (gofmt -l .; exit 1)
	$(GO) mod tidy -diff
	$(GO) vet -tags integration ./...
	$(GO) tool -modfile=packaging/tools.mod staticcheck -tags integration ./...
	$(GO) test -race -shuffle=on ./...

clean: ## remove what was built
	rm -rf authvigil dist
